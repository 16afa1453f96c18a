"""The manifest: one line per finished shard, appended after the shard's vectors are on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hubgate.features.bulk.engine.rows import ByteRange, FailedRow
from hubgate.files import sync_folder


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A finished shard: a line of the manifest."""

    shard: int
    digest: str
    rows: int
    """Rows of the input, with those that failed."""
    pieces: int
    tokens: int
    exact: bool
    part: ByteRange | None
    """`None` if no row has a vector."""
    failed: list[FailedRow] = []
    truncated: int | None = None
    """Texts or chunks that are longer than the model reads; `None` if unknown."""
    unread: int = 0
    """Tokens beyond the model's limit."""


class Done(NamedTuple):
    """What stays in memory of a record; the rest is read again where it is needed."""

    offset: int
    """Of its line in the manifest."""
    digest: str
    part: ByteRange | None


class Totals(msgspec.Struct):
    """Sums over all records."""

    rows: int = 0
    failed: int = 0
    pieces: int = 0
    tokens: int = 0
    exact: bool = True
    truncated: int = 0
    unread: int = 0
    unknown_cuts: int = 0
    """Vectors of which nobody knows whether the model read the whole text."""

    def add(self, record: Record, sign: int = 1) -> None:
        """Count a shard, or with a sign of -1 take it back."""
        self.rows += sign * record.rows
        self.failed += sign * len(record.failed)
        self.pieces += sign * record.pieces
        self.tokens += sign * record.tokens
        self.exact = self.exact and record.exact
        if record.truncated is None:
            self.unknown_cuts += sign * record.pieces
        else:
            self.truncated += sign * record.truncated
            self.unread += sign * record.unread

    def include(self, other: Totals) -> None:
        """Add the sums of other records."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, mine and theirs if name == "exact" else mine + theirs)


_DECODER = msgspec.json.Decoder(Record)


class Manifest:
    """The open manifest of a job. A line that a crash left unfinished is cut off.

    Raises:
        OSError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        is_new = not path.exists()
        self._file = path.open("a+b", buffering=0)
        if is_new:
            sync_folder(path.parent)
        self.totals = Totals()
        self.done: dict[int, Done] = {}
        self._end = 0
        for start, stop, record in _read_records(path):
            self._note(record, start)
            self._end = stop
        self._file.truncate(self._end)

    def close(self) -> None:
        self._file.close()

    def add(self, records: Sequence[Record]) -> None:
        """Mark shards as done, with one flush to disk for all.

        Raises:
            OSError: the lines cannot be written; none of the shards is done.
        """
        lines = [msgspec.json.encode(record) + b"\n" for record in records]
        rest = memoryview(b"".join(lines))
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        for record, line in zip(records, lines, strict=True):
            self._note(record, self._end)
            self._end += len(line)

    def forget(self, shard: int) -> Record:
        """Take back a shard whose vectors are gone. Its line stays; the next one for this shard replaces it."""
        record = self._read(self.done.pop(shard))
        self.totals.add(record, -1)
        return record

    def failures(self) -> Iterator[FailedRow]:
        """The failed rows, in the order of the input."""
        for number in sorted(self.done):
            yield from sorted(self._read(self.done[number]).failed, key=lambda failed: failed.row)

    def _note(self, record: Record, offset: int) -> None:
        if record.shard in self.done:
            self.forget(record.shard)
        self.done[record.shard] = Done(offset, record.digest, record.part)
        self.totals.add(record)

    def _read(self, done: Done) -> Record:
        with self._path.open("rb") as file:
            file.seek(done.offset)
            return _DECODER.decode(file.readline())


def _read_records(path: Path) -> Iterator[tuple[int, int, Record]]:
    """The start and the end of each whole line, and its record, up to the first that is torn."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        start = 0
        for line in file:
            try:
                record = _DECODER.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return
            if not line.endswith(b"\n"):
                return
            yield start, start + len(line), record
            start += len(line)


def read_totals(path: Path) -> Totals:
    """The sums of a manifest, which another process may be writing."""
    latest = {record.shard: record for _, _, record in _read_records(path)}
    totals = Totals()
    for record in latest.values():
        totals.add(record)
    return totals
