"""Arithmetic on the bytes of vectors (`domain.calls.Vectors`).

A vector is either the bytes of a flat JSON array of numbers, or little-endian float32 ("f32"). The checks of every
reply (how many numbers, are they finite) create no Python floats; only a conversion does, once, and only where
`vector_codec` is not compiled.
"""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Iterable, Sequence
from operator import mul

import msgspec
from msgspec.structs import replace

from hubgate.core import vector_codec
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.errors import Cause, UpstreamUnreadable

_BASE64 = msgspec.json.Decoder(bytes)
_F32_BYTES = 4


def dimensions(item: bytes, encoding: Encoding) -> int:
    """The dimensions of one vector, all of whose numbers are checked.

    Raises:
        UpstreamUnreadable: a value is not a finite number of single precision.
    """
    if encoding is Encoding.F32:
        if not vector_codec.is_finite(item):
            raise not_a_number()
        return len(item) // _F32_BYTES
    found = json_dimensions(item)
    if found is None:
        raise not_a_number()
    return found


def json_dimensions(item: bytes) -> int | None:
    """The dimensions of a JSON value, or `None` if it is not an array of numbers only.

    Raises:
        UpstreamUnreadable: a number is too large for single precision.
    """
    try:
        return vector_codec.count_json(item)
    except ValueError as error:
        raise not_a_number() from error


def floats(item: bytes) -> tuple[float, ...]:
    """The numbers of an f32 vector."""
    return struct.unpack(f"<{len(item) // _F32_BYTES}f", item)


def f32(numbers: Sequence[float]) -> bytes:
    """Numbers as an f32 vector.

    Raises:
        UpstreamUnreadable: one of them is too large for single precision, or not a number.
    """
    try:
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except (OverflowError, struct.error) as error:
        raise not_a_number() from error


def json_to_f32(item: bytes) -> bytes:
    """A JSON vector as f32.

    Raises:
        UpstreamUnreadable: a number is not finite.
    """
    try:
        return vector_codec.from_json(item)
    except ValueError as error:
        raise not_a_number() from error


def f32_to_json(item: bytes) -> bytes:
    """An f32 vector as JSON. As single precision, its numbers are exactly those of the vector.

    They have as few digits as that takes, about 11 characters; without the compiled codec and without numpy, they have
    as many as double precision.

    Raises:
        UpstreamUnreadable: a number is not finite.
    """
    try:
        return vector_codec.to_json(item)
    except ValueError as error:
        raise not_a_number() from error


def f32_to_base64(item: bytes) -> bytes:
    """An f32 vector in OpenAI's `encoding_format: base64`."""
    return binascii.b2a_base64(item, newline=False)


def base64_to_f32(text: bytes) -> bytes:
    """The f32 vector in a JSON string of base64, with its quotes.

    Raises:
        UpstreamUnreadable: it is not base64, or not whole numbers of four bytes.
    """
    try:
        item = _BASE64.decode(text)  # decodes while it parses: binascii takes half as long again
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamUnreadable("The server sent a vector that is neither numbers nor base64.") from error
    if len(item) % _F32_BYTES:
        raise UpstreamUnreadable("The server sent a base64 vector that does not consist of 4-byte numbers.")
    return item


def in_encoding(vectors: Vectors, encoding: Encoding) -> Vectors:
    """The vectors in another encoding; the same object if they have it already.

    Raises:
        UpstreamUnreadable: a number is not finite.
    """
    if vectors.encoding is encoding:
        return vectors
    convert = vector_codec.from_json if encoding is Encoding.F32 else vector_codec.to_json
    try:
        items = list(map(convert, vectors.items))
    except ValueError as error:
        raise not_a_number() from error
    return replace(vectors, items=items, encoding=encoding)


def l2_normalize(item: bytes) -> bytes:
    """An f32 vector scaled to length 1; a vector of zeros is not changed."""
    numbers = floats(item)
    length = math.hypot(*numbers)
    return f32([number / length for number in numbers]) if length else item


def cosines(source: bytes, others: Sequence[bytes]) -> list[float]:
    """The cosine similarity of one f32 vector and each of the others; 0 if a vector is all zeros."""
    numbers = floats(source)
    length = math.hypot(*numbers)
    return [_cosine(numbers, length, floats(other)) for other in others]


def _cosine(one: Sequence[float], length: float, other: Sequence[float]) -> float:
    lengths = length * math.hypot(*other)
    return max(-1.0, min(1.0, sum(map(mul, one, other)) / lengths)) if lengths else 0.0


def mean_pooled(rows: Iterable[Sequence[float]]) -> bytes:
    """The mean of token vectors, one row a token, as an f32 vector.

    Raises:
        UpstreamUnreadable: there are no rows, their lengths differ, or a number is not finite.
    """
    try:
        means = [math.fsum(column) / len(column) for column in zip(*rows, strict=True)]
    except (TypeError, ValueError, OverflowError) as error:
        raise UpstreamUnreadable("The server sent token vectors that cannot be averaged.") from error
    if not means:
        raise UpstreamUnreadable("The server sent an empty list of token vectors.")
    pooled = f32(means)
    if not vector_codec.is_finite(pooled):
        raise not_a_number()
    return pooled


def not_a_number() -> UpstreamUnreadable:
    """The error for a vector with NaN, infinity or null in it."""
    return UpstreamUnreadable(
        "The server sent a vector with a value that is not a finite number (NaN, infinity or null).",
        remedy="Often this is an overflow of half precision: start the server with float32 or bfloat16.",
        cause=Cause.NOT_A_NUMBER,
    )
