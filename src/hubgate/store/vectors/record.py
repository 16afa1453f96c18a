"""The bytes of a cached vector, in a segment and in a cache that gateways share: a head with the key and a checksum, and f32."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from zlib import crc32

from hubgate.core.vectors import json_to_f32
from hubgate.domain.calls import CachedVector, Encoding
from hubgate.domain.errors import UpstreamUnreadable

UNIT = 8
"""Bytes: a record is padded to a multiple."""
HEAD = struct.Struct("<I32sII4x")
"""The bytes of the vector, its key, the checksum of the vector and its facts, and the facts.

The facts are one number: eight times the tokens plus one, or 0 if they are unknown; 4 if they are exact; and 1 if the
text was truncated, or 2 if that is unknown.
"""
_TRUNCATED, _UNKNOWN = 1, 2


def records_of(vectors: Mapping[bytes, CachedVector]) -> dict[bytes, bytes]:
    """The records of vectors by key, without those that do not fit into single precision."""
    records = {}
    pack_head, f32 = HEAD.pack, Encoding.F32
    for key, vector in vectors.items():
        tokens, truncated = vector.tokens, vector.truncated
        facts = 0 if tokens is None else 8 * tokens + 8
        facts += 4 * vector.exact + (_UNKNOWN if truncated is None else truncated)
        try:
            single = vector.vector if vector.encoding is f32 else json_to_f32(vector.vector)
            # The checksum begins with the facts, so it is wrong if they change.
            record = pack_head(len(single), key, crc32(single, facts), facts) + single
        except (UpstreamUnreadable, struct.error):
            continue  # a number too large for single precision, or a count too large for four bytes
        records[key] = record if len(record) % UNIT == 0 else record + bytes(-len(record) % UNIT)
    return records


def record_size(length: int) -> int:
    """The bytes of a record, with its padding, whose vector has `length` bytes."""
    return -(HEAD.size + length) // UNIT * -UNIT


def key_of(record: bytes) -> bytes:
    return record[4:36]


def read_record(record: bytes, key: bytes) -> CachedVector | None:
    """The vector; `None` if it is damaged or belongs to another key: a wrong vector is worse than none."""
    if len(record) < HEAD.size:
        return None
    length, own_key, checksum, facts = HEAD.unpack_from(record)
    vector = record[HEAD.size : HEAD.size + length]
    if own_key != key or crc32(vector, facts) != checksum:
        return None
    truncated = facts & (_TRUNCATED | _UNKNOWN)
    return CachedVector(
        vector=vector,
        tokens=(facts >> 3) - 1 if facts >> 3 else None,
        exact=bool(facts & 4),
        truncated=None if truncated == _UNKNOWN else bool(truncated),
    )
