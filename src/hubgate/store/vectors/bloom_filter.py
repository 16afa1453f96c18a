"""Which keys a file may hold, told without asking it."""

from __future__ import annotations

import struct

_TWO_NUMBERS = struct.Struct("<QQ")
_BYTES_PER_BIT = 128
"""Of the file: 12 bits for a vector of 384, of which two are set, so that one new key in forty is asked for in vain."""


class KnownKeys:
    """A Bloom filter: a key that is not in it is not in the file.

    Keys are digests, so they need no hashing. Those that are evicted from the file stay, which only costs a question.

    Args:
        file_bytes: what the file may grow to.
    """

    def __init__(self, file_bytes: int) -> None:
        bits = 1 << max(file_bytes // _BYTES_PER_BIT, 64).bit_length()
        self._mask = bits - 1
        self._bits = bytearray(bits // 8)

    def add(self, key: bytes) -> None:
        """Know a key from now on."""
        for number in _TWO_NUMBERS.unpack_from(key):
            place = number & self._mask
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: bytes) -> bool:
        one, two = _TWO_NUMBERS.unpack_from(key)
        one, two = one & self._mask, two & self._mask
        bits = self._bits
        return bool(bits[one >> 3] >> (one & 7) & 1 and bits[two >> 3] >> (two & 7) & 1)
