"""Cutting rows into shards, the same ones each time: on resume a shard is known by its number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from hubgate.jobs.rows import Failed, Row, Shard

MOST_BYTES = 1_000_000
"""Of the texts of a shard in UTF-8; a longer text is a shard of its own."""


def cut(rows: Iterable[Row | Failed], most_rows: int, most_bytes: int = MOST_BYTES) -> Iterator[Shard]:
    """The shards of an input: so many rows, or so many bytes, whichever is first."""
    growing = _Growing(0)
    for row in rows:
        text = row.text.encode() if isinstance(row, Row) else b""
        if growing.size and (growing.size == most_rows or growing.bytes + len(text) > most_bytes):
            yield growing.shard()
            growing = _Growing(growing.number + 1)
        growing.add(row, text)
    if growing.size:
        yield growing.shard()


class _Growing:
    def __init__(self, number: int) -> None:
        self.number = number
        self.size = self.bytes = 0
        self._rows: list[Row] = []
        self._failed: list[Failed] = []
        self._digest = blake2b(digest_size=16)

    def add(self, row: Row | Failed, text: bytes) -> None:
        self.size += 1
        self.bytes += len(text)
        if isinstance(row, Row):
            self._rows.append(row)
            head = (
                f"{row.number} {row.id!r} {row.kept!r} {len(text)} "
                if row.kept
                else f"{row.number} {row.id!r} {len(text)} "
            )
            self._digest.update(head.encode("utf-8", "backslashreplace") + text)
        else:
            self._failed.append(row)
            self._digest.update(f"{row.row} {row.id!r} {row.cause} ".encode("utf-8", "backslashreplace"))

    def shard(self) -> Shard:
        return Shard(self.number, self._rows, self._failed, self._digest.hexdigest())
