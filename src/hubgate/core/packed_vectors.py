"""The bytes of a cached vector, on disk and in a shared cache."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from hubgate.core.vectors import json_to_f32
from hubgate.domain.calls import CachedVector, Encoding
from hubgate.domain.errors import UpstreamUnreadable

_HEAD = struct.Struct("<qBB")
"""Tokens or -1, whether they are exact, whether the text was truncated or 2 if unknown."""
_CHECKED = struct.Struct("<IqBB")
"""The checksum of all that follows, with the key before it, and the head."""
_CHECKSUM_BYTES = 4
_UNKNOWN = 2


def pack(vectors: Mapping[bytes, CachedVector]) -> Iterator[tuple[bytes, bytes]]:
    """The keys and bytes of vectors, without those that do not fit into single precision."""
    for key, vector in vectors.items():
        try:
            single = vector.vector if vector.encoding is Encoding.F32 else json_to_f32(vector.vector)
            data = _packed(key, vector, single)
        except (UpstreamUnreadable, struct.error):
            continue  # a number too large for single precision, or a count too large for eight bytes
        yield key, data


def unpack(key: bytes, data: bytes) -> CachedVector | None:
    """A packed vector; `None` if it is damaged or belongs to another key: a wrong vector is worse than none."""
    if len(data) < _CHECKED.size:
        return None
    checksum, tokens, exact, truncated = _CHECKED.unpack_from(data)
    if checksum != zlib.crc32(memoryview(data)[_CHECKSUM_BYTES:], zlib.crc32(key)):
        return None
    return CachedVector(
        vector=data[_CHECKED.size :],
        tokens=None if tokens < 0 else tokens,
        exact=bool(exact),
        truncated=None if truncated == _UNKNOWN else bool(truncated),
    )


def _packed(key: bytes, vector: CachedVector, single: bytes) -> bytes:
    tokens = -1 if vector.tokens is None else vector.tokens
    truncated = _UNKNOWN if vector.truncated is None else vector.truncated
    rest = _HEAD.pack(tokens, vector.exact, truncated) + single
    return zlib.crc32(rest, zlib.crc32(key)).to_bytes(_CHECKSUM_BYTES, "little") + rest
