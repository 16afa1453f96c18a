"""The Bloom filter of the vector file's keys."""

from __future__ import annotations

from hashlib import sha256

from hubgate.store.vectors.table import BloomFilter

MIB = 1024 * 1024


def keys(start: int, stop: int) -> list[bytes]:
    return [sha256(number.to_bytes(4, "little")).digest() for number in range(start, stop)]


def test_contains_every_added_key_and_few_others() -> None:
    """A file of 8 MiB holds some 5000 vectors of 384 dimensions."""
    known = BloomFilter(8 * MIB)
    for key in keys(0, 5000):
        known.add(key)
    assert all(key in known for key in keys(0, 5000))
    assert sum(key in known for key in keys(5000, 15_000)) < 10_000 / 40


def test_new_filter_contains_nothing() -> None:
    assert not any(key in BloomFilter(0) for key in keys(0, 100))
