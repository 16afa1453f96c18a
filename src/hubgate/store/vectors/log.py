"""Vectors in a folder of bounded size: a log of segments, and an index of it in memory.

Writes only append. To make room, the oldest segment is deleted; its vectors that were read since they were written are
appended again (the "clock" approximation of least recently used).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from hubgate.domain.calls import CachedVector
from hubgate.files import create_private_folder, take_lock
from hubgate.store.vectors.index import VectorIndex
from hubgate.store.vectors.record import key_of, read_record, records_of
from hubgate.store.vectors.segment import LISTED_BYTES, MAX_BYTES, Segment, hashes_of, is_segment

_SEGMENTS_BITS, _OFFSET_BITS = 12, 28
_SEGMENTS, _OFFSET = 1 << _SEGMENTS_BITS, (1 << _OFFSET_BITS) - 1
"""A place in the index is the number of a segment and an offset in it."""
_MIN_SEGMENT_BYTES = 64 * 1024
_RECORDS_PER_STEP = 2000
"""Records that one step of loading or evicting looks at, about 2 ms: other work comes between the steps."""
_MAX_READ_MARKS = 100_000


class VectorLog:
    """The folder of `hubgate.store.vectors.disk`.

    `find` and `read_at_once` may be called from any thread, everything else from one only. Methods raise `OSError` if the
    folder cannot be used.

    Args:
        folder: created by `load`.
        max_bytes: of all files in it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(max(max_bytes // 32, _MIN_SEGMENT_BYTES), MAX_BYTES)
        self._index = VectorIndex()
        self._segments: dict[int, Segment] = {}
        self._lock: int | None = None
        self._loading: Iterator[None] | None = None
        self._evicting: Iterator[None] | None = None
        self._read: set[int] = set()
        self.is_loaded = False
        """Whether `find` knows all vectors of the folder."""

    def load(self) -> bool:
        """Read some of the index; returns whether there may be more."""
        if self.is_loaded:
            return False
        if self._loading is None:
            self._open()
            self._loading = self._load_segments()
        self.is_loaded = _is_done(self._loading)
        return not self.is_loaded

    def find(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The places of those keys that may be in the folder."""
        hashes = hashes_of(keys)
        places = self._index.find_many(hashes)
        return (
            {key: places[each] for key, each in zip(keys, hashes, strict=True) if each in places}
            if places
            else {}
        )

    def read_at_once(self, places: Mapping[bytes, int]) -> tuple[dict[bytes, CachedVector], dict[bytes, int]]:
        """The vectors at these places that can be had without waiting for the disk, and the other places."""
        found: dict[bytes, CachedVector] = {}
        rest: dict[bytes, int] = {}
        for key, place in places.items():
            segment = self._segments.get(place >> _OFFSET_BITS)
            if segment is None:
                continue
            try:
                record = segment.read_at_once(place & _OFFSET)
            except OSError:
                rest[key] = place
            else:
                self._keep(found, key, place, record)
        return found, rest

    def read(self, places: Mapping[bytes, int]) -> dict[bytes, CachedVector]:
        """The undamaged vectors at these places."""
        found: dict[bytes, CachedVector] = {}
        for key, place in places.items():
            segment = self._segments.get(place >> _OFFSET_BITS)
            if segment is not None:
                self._keep(found, key, place, segment.read(place & _OFFSET))
        return found

    def write(self, vectors: Mapping[bytes, CachedVector]) -> None:
        """Add or replace vectors."""
        self._append(records_of(vectors))

    def evict(self, needed: int) -> bool:
        """Delete some of what has not been used for longest unless `needed` bytes are free; returns whether to call it again."""
        if self._evicting is None:
            if self._bytes() + needed <= self._max_bytes or len(self._segments) < 2:
                return False
            self._evicting = self._evict_oldest()
        if _is_done(self._evicting):
            self._evicting = None
        return True

    def measure(self) -> tuple[int, int]:
        """The number of vectors, and the bytes that they take."""
        return len(self._index), self._bytes()

    def remove(self) -> None:
        """Delete everything."""
        self._forget()
        if self._folder.exists():
            self._open()
            for path in self._folder.iterdir():
                path.unlink()
            self._folder.rmdir()
        self.close()

    def close(self) -> None:
        """Close the files. The next `load` opens them again."""
        if self.is_loaded and self._segments:
            with contextlib.suppress(OSError):  # then the next start reads the segment instead
                self._newest.complete()
        self._forget()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _forget(self) -> None:
        self._index, self._segments, self._read = VectorIndex(), {}, set()
        self._loading = self._evicting = None
        self.is_loaded = False

    def _open(self) -> None:
        create_private_folder(self._folder)
        self._lock = self._lock or take_lock(self._folder / "lock")
        if self._lock is None:
            raise OSError("another process uses it")

    def _load_segments(self) -> Iterator[None]:
        numbers = []
        for path in self._folder.glob("*.log"):
            if path.stem.isdecimal() and is_segment(path):
                numbers.append(int(path.stem))
            else:
                path.unlink()
        for number in sorted(numbers)[-_SEGMENTS + 1 :]:
            segment = self._segments[number % _SEGMENTS] = Segment(self._path(number))
            records = segment.records()
            while some := list(islice(records, _RECORDS_PER_STEP)):
                self._put(number % _SEGMENTS, some)
                yield
            if number != max(numbers):
                segment.complete()

    def _append(self, records: Mapping[bytes, bytes]) -> None:
        if not records:
            return
        if not self._segments or self._newest.bytes >= self._segment_bytes:
            self._begin_segment()
        number, newest = next(reversed(self._segments.items()))
        self._put(number, newest.append(records))

    def _put(self, number: int, records: Iterable[tuple[int, int]]) -> None:
        """Add the hashes and offsets of a segment's records to the index."""
        self._index.put_many(records, number << _OFFSET_BITS)

    def _begin_segment(self) -> None:
        number = 0
        if self._segments:
            self._newest.complete()
            number = int(self._newest.path.stem) + 1
        self._segments[number % _SEGMENTS] = Segment(self._path(number))

    def _evict_oldest(self) -> Iterator[None]:
        number, segment = next(iter(self._segments.items()))
        may_keep = segment.bytes // 2
        records = segment.records()
        while some := list(islice(records, _RECORDS_PER_STEP)):
            again = {}
            for key_hash, offset in some:
                place = number << _OFFSET_BITS | offset
                record = self._record_to_keep(segment, key_hash, place) if may_keep > 0 else None
                if record is not None:
                    may_keep -= len(record)
                    again[key_of(record)] = record
                self._index.remove(key_hash, place)
            with contextlib.suppress(OSError):  # on a full disk they are evicted as well
                self._append(again)
            yield
        del self._segments[number]
        segment.remove()

    def _record_to_keep(self, segment: Segment, key_hash: int, place: int) -> bytes | None:
        if place not in self._read:
            return None
        self._read.discard(place)
        if self._index.find(key_hash) != place:
            return None  # a later vector has replaced it
        return segment.read(place & _OFFSET)

    def _keep(self, found: dict[bytes, CachedVector], key: bytes, place: int, record: bytes | None) -> None:
        vector = read_record(record, key) if record is not None else None
        if vector is not None:
            found[key] = vector
            if len(self._read) >= _MAX_READ_MARKS:
                self._read.clear()
            self._read.add(place)

    @property
    def _newest(self) -> Segment:
        return next(reversed(self._segments.values()))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.log"

    def _bytes(self) -> int:
        return sum(segment.bytes for segment in self._segments.values()) + LISTED_BYTES * len(self._index)


def _is_done(steps: Iterator[None]) -> bool:
    for _ in steps:
        return False
    return True
