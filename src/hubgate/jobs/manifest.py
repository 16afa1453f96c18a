"""What is done: one line a shard, appended and on disk before the shard counts as done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hubgate.files import sync_folder
from hubgate.jobs.rows import Failed, Part


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A shard that is done."""

    shard: int
    digest: str
    rows: int
    """Of the input, the failed ones among them."""
    pieces: int
    tokens: int
    exact: bool
    part: Part | None
    """None where no row has a vector."""
    failed: list[Failed] = []
    truncated: int | None = None
    """Texts or chunks of which the model read only the beginning; `None` where nobody knows."""
    unread: int = 0
    """Tokens that it did not read."""


class Done(NamedTuple):
    """What is remembered of a record; the rest is read again when it is wanted."""

    place: int
    """Of its line, in bytes."""
    digest: str
    part: Part | None


class Totals(msgspec.Struct):
    """Sums over all records."""

    rows: int = 0
    failed: int = 0
    pieces: int = 0
    tokens: int = 0
    exact: bool = True
    truncated: int = 0
    unread: int = 0
    blind: int = 0
    """Vectors of which nobody knows whether the model read the whole text."""

    def add(self, record: Record) -> None:
        """Count a shard."""
        self.rows += record.rows
        self.failed += len(record.failed)
        self.pieces += record.pieces
        self.tokens += record.tokens
        self.exact = self.exact and record.exact
        self._count_cuts(record, 1)

    def remove(self, record: Record) -> None:
        """Take a shard back."""
        self.rows -= record.rows
        self.failed -= len(record.failed)
        self.pieces -= record.pieces
        self.tokens -= record.tokens
        self._count_cuts(record, -1)

    def _count_cuts(self, record: Record, sign: int) -> None:
        if record.truncated is None:
            self.blind += sign * record.pieces
        else:
            self.truncated += sign * record.truncated
            self.unread += sign * record.unread


_DECODER = msgspec.json.Decoder(Record)


class Manifest:
    """The file of records. A line that was torn by a crash is cut off when it is opened.

    Raises:
        OSError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        new = not path.exists()
        self._file = path.open("a+b", buffering=0)
        if new:
            sync_folder(path.parent)
        self.totals = Totals()
        self.done: dict[int, Done] = {}
        self._end = 0
        for start, stop, record in read_records(path):
            self._note(record, start)
            self._end = stop
        self._file.truncate(self._end)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def add(self, records: Sequence[Record]) -> None:
        """Say that shards are done, all with one flush to disk; they are on disk when this returns.

        Raises:
            OSError: they cannot be written; none of them is done then.
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
        """Take back that a shard is done, for as long as this is open: its part is gone. Its next record counts."""
        done = self.done.pop(shard)
        record = _DECODER.decode(self._line(done.place))
        self.totals.remove(record)
        return record

    def failures(self) -> Iterator[Failed]:
        """The failed rows, in the order of the input."""
        for number in sorted(self.done):
            yield from sorted(
                _DECODER.decode(self._line(self.done[number].place)).failed, key=lambda one: one.row
            )

    def _note(self, record: Record, place: int) -> None:
        if record.shard in self.done:
            self.forget(record.shard)
        self.done[record.shard] = Done(place, record.digest, record.part)
        self.totals.add(record)

    def _line(self, place: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(place)
            return file.readline()


def read_records(path: Path) -> Iterator[tuple[int, int, Record]]:
    """Where each whole line begins and ends, and its record, up to the first that is torn; nothing without a file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        place = 0
        for line in file:
            try:
                record = _DECODER.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return
            if not line.endswith(b"\n"):
                return
            yield place, place + len(line), record
            place += len(line)


def totals_of(path: Path) -> Totals:
    """The sums of a manifest that another process may be writing."""
    latest = {record.shard: record for _, _, record in read_records(path)}
    totals = Totals()
    for record in latest.values():
        totals.add(record)
    return totals
