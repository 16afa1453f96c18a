"""The conversions and checks of vectors without compiled code. `compiled.c` does the same, faster.

"JSON" is a JSON array of numbers, and "f32" the bytes of little-endian single precision. Both modules accept the same
input, and return the same f32 for it. JSON that they write may differ in digits, not in its f32.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from functools import cache, partial

import msgspec
import orjson

_F32_BYTES = 4
_WHITE = b" \t\r\n"
_NUMBERS = msgspec.json.Decoder(list[float])
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_BASE64 = msgspec.json.Decoder(bytes)
_NOT_NUMERIC = tuple(b'ulN"{')
"""Each of null, true, false, NaN, a string and an object contains one of these bytes."""
_LARGE_EXPONENT = re.compile(rb"e[^-]")
_LARGE_DIGITS = b"0" * 39
_EVERY_DIGIT_IS_0 = bytes.maketrans(b"123456789", b"000000000")
_EXPONENT_BITS = 0x7F
_MAX_INT8 = 127
_ROUND = 1.5 * 2**23
"""The single-precision sum of this and a small number ends in the nearest integer, in two's complement."""
_SIGN_EXTENSION = bytes(0xFF if byte & 0x80 else 0 for byte in range(256))


def to_json(item: bytes) -> bytes:
    """An f32 vector as JSON. With numpy, its numbers have as few digits as single precision needs.

    Raises:
        ValueError: a number is not finite.
    """
    if not is_finite(item):
        raise ValueError("a number is not finite")
    return orjson.dumps(_array_reader()(item), option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(item: bytes) -> bytes:
    """A JSON vector as f32.

    Raises:
        ValueError: a value is not a number, or too large for single precision.
    """
    try:
        numbers = _NUMBERS.decode(item)
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except OverflowError as error:
        raise ValueError("a number is too large for single precision") from error


def count_json(item: bytes) -> int | None:
    """How many numbers a JSON value has, found without creating floats; `None` if it is not an array of numbers only.

    Raises:
        ValueError: a number is too large for single precision.
    """
    item = item.strip(_WHITE)
    if item[:1] != b"[" or item.find(b"[", 1) >= 0 or any(mark in item for mark in _NOT_NUMERIC):
        return None
    _check_range(item)
    return item.count(b",") + 1 if len(item.strip(b"[] \t\r\n")) else 0


def split_json(body: bytes) -> tuple[list[bytes], int] | None:
    """The vectors in a JSON array of them, and their dimensions; `None` if it is anything else.

    That includes no vectors, vectors of different dimensions, and a number that is too large for single precision.
    """
    try:
        items = [bytes(part).strip(_WHITE) for part in _ROWS.decode(body)]
        sizes = set(map(count_json, items))
    except ValueError:  # of msgspec, too
        return None
    size = sizes.pop() if len(sizes) == 1 else None
    return None if size is None else (items, size)


def from_base64(texts: list[msgspec.Raw]) -> tuple[list[bytes], int] | None:
    """The f32 vectors in JSON strings of base64, and their dimensions; `None` if they are anything else.

    That includes no vectors, vectors of different dimensions, and a number that is not finite. It may include strings
    with escapes.
    """
    try:
        items = list(map(_BASE64.decode, texts))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    sizes = set(map(len, items))
    size = sizes.pop() if len(sizes) == 1 else 0
    if not size or size % _F32_BYTES or not all(map(is_finite, items)):
        return None
    return items, size // _F32_BYTES


def int8(item: bytes, scale: float) -> bytes:
    """Each number of an f32 vector times `scale`, as the nearest integer from -127 to 127 in a byte."""
    numbers = struct.unpack(f"<{len(item) // _F32_BYTES}f", item)
    summed = struct.pack(f"<{len(numbers)}f", *[number * scale + _ROUND for number in numbers])
    low = summed[::4]
    if low.translate(_SIGN_EXTENSION) == summed[1::4] and 0x80 not in low:
        return low
    clipped = (max(-_MAX_INT8, min(_MAX_INT8, round(number * scale))) for number in numbers)
    return struct.pack(f"{len(numbers)}b", *clipped)


def is_finite(item: bytes) -> bool:
    """Whether no number of an f32 vector is NaN or infinite.

    Such a number has all eight exponent bits set, seven of them in its last byte. A vector whose last bytes never have
    all seven set is finite, which a slice and two searches find without iterating over the numbers.
    """
    last = item[3::_F32_BYTES]
    if _EXPONENT_BITS not in last and _EXPONENT_BITS | 0x80 not in last:
        return True
    return all(map(math.isfinite, struct.unpack(f"<{len(item) // _F32_BYTES}f", item)))


def _check_range(item: bytes) -> None:
    """A number that is too large has an exponent that is not negative, or 39 digits in a row.

    Vectors hardly ever have either, and only those that do are parsed.
    """
    exponent = b"E" in item or (b"e" in item and _LARGE_EXPONENT.search(item))
    if exponent or _LARGE_DIGITS in item.translate(_EVERY_DIGIT_IS_0):
        from_json(item)


@cache
def _array_reader() -> Callable[[bytes], object]:
    try:
        import numpy as np  # noqa: PLC0415 - part of the extra [local], and slow to import
    except ImportError:
        return lambda item: struct.unpack(f"<{len(item) // _F32_BYTES}f", item)
    return partial(np.frombuffer, dtype=np.float32)
