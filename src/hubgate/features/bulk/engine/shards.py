"""Shards: how rows are cut into them, and the file that keeps their vectors until the output is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from hubgate.features.bulk.engine.rows import ByteRange, FailedRow, Row, Shard
from hubgate.files import sync_folder

MAX_SHARD_BYTES = 1_000_000
"""Of a shard's texts in UTF-8; a longer text is a shard of its own."""


def cut_shards(
    rows: Iterable[Row | FailedRow], max_rows: int, max_bytes: int = MAX_SHARD_BYTES
) -> Iterator[Shard]:
    """Cut an input into shards. The same rows make the same shards, so that a shard is known by its number."""
    shard = _ShardBuilder(0)
    for row in rows:
        text = row.text.encode() if isinstance(row, Row) else b""
        if shard.size and (shard.size == max_rows or shard.bytes + len(text) > max_bytes):
            yield shard.build()
            shard = _ShardBuilder(shard.number + 1)
        shard.add(row, text)
    if shard.size:
        yield shard.build()


class _ShardBuilder:
    def __init__(self, number: int) -> None:
        self.number = number
        self.size = self.bytes = 0
        self._rows: list[Row] = []
        self._failed: list[FailedRow] = []
        self._digest = blake2b(digest_size=16)

    def add(self, row: Row | FailedRow, text: bytes) -> None:
        self.size += 1
        self.bytes += len(text)
        if isinstance(row, Row):
            self._rows.append(row)
            kept = f"{row.kept!r} " if row.kept else ""
            head = f"{row.number} {row.id!r} {kept}{len(text)} "
            self._digest.update(head.encode("utf-8", "backslashreplace") + text)
        else:
            self._failed.append(row)
            self._digest.update(f"{row.row} {row.id!r} {row.cause} ".encode("utf-8", "backslashreplace"))

    def build(self) -> Shard:
        return Shard(self.number, self._rows, self._failed, self._digest.hexdigest())


class ShardFile:
    """The vectors of all finished shards, appended by one thread. A torn end that a crash left is never read.

    One file for all: creating, syncing and deleting a file per shard takes longer than writing its vectors.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        sync_folder(path.parent)
        self._path = path

    def append(self, shards: Iterable[bytes | memoryview]) -> list[ByteRange]:
        """Append encoded shards, with one flush to disk for all.

        Raises:
            OSError: they cannot be written; the file is as it was.
        """
        ranges = []
        with self._path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                for shard in shards:
                    rest = memoryview(shard)
                    ranges.append(ByteRange(file.tell(), len(rest)))
                    while rest:
                        rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
        return ranges

    def read(self, place: ByteRange) -> bytes:
        """One encoded shard."""
        with self._path.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.size)

    def has(self, place: ByteRange) -> bool:
        """Whether the file is long enough: it can be shorter if somebody changed it."""
        return self._path.stat().st_size >= place.offset + place.size
