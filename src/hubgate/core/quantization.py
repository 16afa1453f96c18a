"""Quantized vectors: a byte or a bit per dimension instead of four bytes. Without numpy.

A quantized vector depends on nothing but its own vector and the number of dimensions, so vectors of different requests,
keys and machines compare. docs/embeddings.md has the formulas, and the measurements behind `RANGE`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import orjson

from hubgate.core import vector_codec
from hubgate.core.off_loop import total
from hubgate.core.vectors import f32_to_base64, floats, in_encoding
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.endpoint import OutputDtype
from hubgate.domain.errors import Cause, InvalidRequest

RANGE = 5.0
"""int8 covers the numbers from -5 to 5 times the root mean square of a vector; larger ones become -127 or 127."""
_SIGNED = frozenset({OutputDtype.INT8, OutputDtype.BINARY})
_BYTES = frozenset({OutputDtype.INT8, OutputDtype.UINT8})
_PACKED = frozenset({OutputDtype.BINARY, OutputDtype.UBINARY})
_MAX_INT8 = 127
_FLIP_SIGN = bytes(byte ^ 0x80 for byte in range(256))
_DIGIT_OF_SIGN = bytes(ord("0") if byte & 0x80 else ord("1") for byte in range(256))


def quantize(item: bytes, dtype: OutputDtype) -> bytes:
    """The bytes of an f32 vector in another type; `FLOAT` returns the same bytes.

    Raises:
        InvalidRequest: the server has already quantized the vector, to something else.
    """
    if dtype is OutputDtype.FLOAT:
        return item
    if _is_quantized(item):
        return _unchanged(item, dtype)
    return _QUANTIZERS[dtype](item)


def quantized_length(dimensions: int, dtype: OutputDtype) -> int:
    """How many numbers a vector has in this type."""
    return -(-dimensions // 8) if dtype in _PACKED else dimensions


def work_size(vectors: Vectors, dtype: OutputDtype) -> int:
    """What `off_loop` should count for rendering: a byte per dimension takes three times as long as writing a float."""
    return total(vectors.items) * (3 if dtype in _BYTES else 1)


def quantized_to_json(data: bytes, dtype: OutputDtype) -> bytes:
    """The bytes of a quantized vector as a JSON array of integers."""
    return orjson.dumps(memoryview(data).cast("b").tolist() if dtype in _SIGNED else list(data))


class VectorFormat(NamedTuple):
    """How a response contains vectors: as arrays of numbers, or as strings with the base64 of their bytes."""

    dtype: OutputDtype = OutputDtype.FLOAT
    as_base64: bool = False

    @property
    def source(self) -> Encoding:
        """The encoding that vectors are rendered from: floats that are JSON already are not converted."""
        return Encoding.JSON if self.dtype is OutputDtype.FLOAT and not self.as_base64 else Encoding.F32

    def value(self, item: bytes) -> bytes:
        """A vector in the encoding `source` as a JSON value.

        Raises:
            InvalidRequest: as `quantize`.
        """
        if self.dtype is OutputDtype.FLOAT:
            return b'"%b"' % f32_to_base64(item) if self.as_base64 else item
        data = quantize(item, self.dtype)
        return b'"%b"' % f32_to_base64(data) if self.as_base64 else quantized_to_json(data, self.dtype)

    def values(self, vectors: Vectors) -> Sequence[bytes]:
        """Each vector, in any encoding, as a JSON value.

        Raises:
            InvalidRequest: as `quantize`.
            UpstreamUnreadable: a number is not finite.
        """
        if self.dtype is OutputDtype.FLOAT and not self.as_base64:  # on the hot path
            return in_encoding(vectors, Encoding.JSON).items
        return [self.value(item) for item in in_encoding(vectors, Encoding.F32).items]


def _int8(item: bytes) -> bytes:
    """Each number of the vector, scaled to length 1, in steps of RANGE / 127 of the root mean square."""
    numbers = floats(item)
    length = math.hypot(*numbers)
    if not length:
        return bytes(len(numbers))
    scale = _MAX_INT8 * math.sqrt(len(numbers)) / (RANGE * length)
    return vector_codec.int8(item, scale)


def _uint8(item: bytes) -> bytes:
    return _int8(item).translate(_FLIP_SIGN)


def _ubinary(item: bytes) -> bytes:
    """A bit for each number that is positive, in the order of numpy's `packbits`: the first is a byte's highest."""
    last = item[3::4]  # with the sign
    if 0 in last:  # perhaps a zero
        digits = "".join("1" if number > 0 else "0" for number in floats(item))
    else:
        digits = last.translate(_DIGIT_OF_SIGN).decode()
    size = quantized_length(len(last), OutputDtype.UBINARY)
    return int(digits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def _binary(item: bytes) -> bytes:
    return _ubinary(item).translate(_FLIP_SIGN)


_QUANTIZERS: Mapping[OutputDtype, Callable[[bytes], bytes]] = {
    OutputDtype.INT8: _int8,
    OutputDtype.UINT8: _uint8,
    OutputDtype.BINARY: _binary,
    OutputDtype.UBINARY: _ubinary,
}


def _is_quantized(item: bytes) -> bool:
    """Whether the numbers are bytes already, as those of infinity with `--embedding-dtype`, and of pplx-embed.

    A small integer leaves the lower half of its four bytes empty. Almost every other vector fails that search at its
    first number. No number of a vector of length 1 exceeds 1.
    """
    if any(item[::4]) or any(item[1::4]):
        return False
    numbers = floats(item)
    return 1 < max(map(abs, numbers), default=0) < 256 and all(map(float.is_integer, numbers))


def _unchanged(item: bytes, dtype: OutputDtype) -> bytes:
    """The integers that a server sent, if they are of this type."""
    codes = {OutputDtype.INT8: "b", OutputDtype.UINT8: "B"}
    numbers = list(map(int, floats(item)))
    try:
        return struct.pack(f"{len(numbers)}{codes[dtype]}", *numbers)
    except (KeyError, struct.error):
        raise InvalidRequest(
            "This endpoint's server already returns quantized vectors (whole numbers), "
            f"which cannot be quantized again to {dtype}.",
            remedy="Request float, which returns the server's numbers, or let the server return floats.",
            cause=Cause.WRONG_TASK,
        ) from None
