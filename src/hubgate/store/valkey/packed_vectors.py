"""The bytes of a cached vector in a cache that gateways share."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from zlib import crc32

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
        tokens = -1 if vector.tokens is None else vector.tokens
        truncated = _UNKNOWN if vector.truncated is None else vector.truncated
        try:
            single = vector.vector if vector.encoding is Encoding.F32 else json_to_f32(vector.vector)
            checksum = crc32(single, crc32(key + _HEAD.pack(tokens, vector.exact, truncated)))
            head = _CHECKED.pack(checksum, tokens, vector.exact, truncated)
        except (UpstreamUnreadable, struct.error):
            continue  # a number too large for single precision, or a count too large for eight bytes
        yield key, head + single


def unpack(key: bytes, data: bytes) -> CachedVector | None:
    """A packed vector; `None` if it is damaged or belongs to another key: a wrong vector is worse than none."""
    if len(data) < _CHECKED.size:
        return None
    checksum, tokens, exact, truncated = _CHECKED.unpack_from(data)
    if checksum != crc32(memoryview(data)[_CHECKSUM_BYTES:], crc32(key)):
        return None
    return CachedVector(
        vector=data[_CHECKED.size :],
        tokens=None if tokens < 0 else tokens,
        exact=bool(exact),
        truncated=None if truncated == _UNKNOWN else bool(truncated),
    )
