"""Arithmetic on the bytes of vectors (`domain.calls.Vectors`), without numpy.

A vector is either the bytes of a flat JSON array of numbers, or little-endian float32 ("f32"). What is asked of
every reply (how many numbers, are they finite) never makes a Python float; only a change of form does, once.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import mul

import msgspec
import orjson

from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.errors import Cause, UpstreamUnreadable

_BASE64 = msgspec.json.Decoder(bytes)
_F32_BYTES = 4
_NO_NUMBER = tuple(b'ulN"{')
"""One of these bytes is in each of null, true, false, NaN, a text and an object."""
_LARGE_EXPONENT = re.compile(rb"e[^-]")
_LARGE_DIGITS = b"0" * 39
_EVERY_DIGIT_IS_0 = bytes.maketrans(b"123456789", b"000000000")


def dimensions(item: bytes, encoding: Encoding) -> int:
    """How many numbers one vector has."""
    if encoding is Encoding.F32:
        return len(item) // _F32_BYTES
    return item.count(b",") + 1 if len(item.strip(b"[] \t\r\n")) else 0


def is_finite(item: bytes) -> bool:
    """Whether no number of an f32 vector is NaN or infinite.

    Those have all eight exponent bits set, seven of them in the last byte of a number. So a vector whose last bytes
    never have all seven set is finite, which slices and searches find without walking the numbers.
    """
    last = item[3::_F32_BYTES]
    if 0x7F not in last and 0xFF not in last:
        return True
    return all(map(math.isfinite, floats(item)))


def is_flat(item: bytes) -> bool:
    """Whether what parses as JSON is an array of numbers and of nothing else, told without making floats of them."""
    return item[:1] == b"[" and item.find(b"[", 1) < 0 and not any(mark in item for mark in _NO_NUMBER)


def check_range(item: bytes) -> None:
    """Refuse a JSON vector (see `is_flat`) with a number too large for single precision.

    It takes an exponent that is not negative, or 39 digits in a row. Vectors hardly ever have either, and those that do
    are parsed.

    Raises:
        UpstreamUnreadable: there is one.
    """
    exponent = b"E" in item or (b"e" in item and _LARGE_EXPONENT.search(item))
    if exponent or _LARGE_DIGITS in item.translate(_EVERY_DIGIT_IS_0):
        json_to_f32(item)


def floats(item: bytes) -> tuple[float, ...]:
    """The numbers of an f32 vector."""
    return struct.unpack(f"<{len(item) // _F32_BYTES}f", item)


def f32(numbers: Sequence[float]) -> bytes:
    """Numbers as an f32 vector.

    Raises:
        UpstreamUnreadable: one of them is too large for single precision, or none is a number.
    """
    try:
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except (OverflowError, struct.error) as error:
        raise not_a_number() from error


def json_to_f32(item: bytes) -> bytes:
    """A JSON vector as f32.

    Raises:
        UpstreamUnreadable: it holds what is no finite number.
    """
    try:
        return f32(orjson.loads(item))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise not_a_number() from error


def f32_to_json(item: bytes) -> bytes:
    """An f32 vector as JSON, each number exactly the single-precision one."""
    return orjson.dumps(floats(item))


def f32_to_base64(item: bytes) -> bytes:
    """An f32 vector as OpenAI's `encoding_format: base64` spells it."""
    return binascii.b2a_base64(item, newline=False)


def base64_to_f32(text: bytes) -> bytes:
    """The f32 vector in OpenAI's base64, as a string of JSON with its quotes.

    Raises:
        UpstreamUnreadable: not base64, or not whole numbers of four bytes.
    """
    try:
        item = _BASE64.decode(text)  # unpacked as it is read: binascii alone takes half as long again
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamUnreadable("The server sent a vector that is neither numbers nor base64.") from error
    if len(item) % _F32_BYTES:
        raise UpstreamUnreadable("The server sent a base64 vector that does not consist of 4-byte numbers.")
    return item


def in_encoding(vectors: Vectors, encoding: Encoding) -> Vectors:
    """The same vectors in another form; themselves if they are in it already.

    Raises:
        UpstreamUnreadable: a vector holds what is no finite number.
    """
    if vectors.encoding is encoding:
        return vectors
    change = json_to_f32 if encoding is Encoding.F32 else f32_to_json
    return replace(vectors, items=[change(item) for item in vectors.items], encoding=encoding)


def l2_normalize(item: bytes) -> bytes:
    """An f32 vector scaled to length 1 (L2); a vector of zeros stays as it is."""
    numbers = floats(item)
    length = math.hypot(*numbers)
    return f32([number / length for number in numbers]) if length else item


def cosines(source: bytes, others: Sequence[bytes]) -> list[float]:
    """The cosine of the angle between one f32 vector and each of others; 0 where a vector is all zeros."""
    numbers = floats(source)
    length = math.hypot(*numbers)
    return [_cosine(numbers, length, floats(other)) for other in others]


def _cosine(one: Sequence[float], length: float, other: Sequence[float]) -> float:
    lengths = length * math.hypot(*other)
    return max(-1.0, min(1.0, sum(map(mul, one, other)) / lengths)) if lengths else 0.0


def mean_pooled(rows: Iterable[Sequence[float]]) -> bytes:
    """One f32 vector from one row a token: their mean, every token counting the same.

    Raises:
        UpstreamUnreadable: no rows, rows of different lengths, or something in them is no finite number.
    """
    try:
        means = [math.fsum(column) / len(column) for column in zip(*rows, strict=True)]
    except (TypeError, ValueError, OverflowError) as error:
        raise UpstreamUnreadable("The server sent token vectors that cannot be averaged.") from error
    if not means:
        raise UpstreamUnreadable("The server sent a list of token vectors with nothing in it.")
    pooled = f32(means)
    if not is_finite(pooled):
        raise not_a_number()
    return pooled


def not_a_number() -> UpstreamUnreadable:
    """The error for a vector with NaN, infinity or null in it."""
    return UpstreamUnreadable(
        "The server sent a vector with something in it that is no finite number (NaN, infinity or null).",
        remedy="It computes wrongly: often half precision that overflows; start it with float32 or bfloat16.",
        cause=Cause.NOT_A_NUMBER,
    )
