"""JSON lines in, JSON lines out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from hubgate.core.vectors import f32_to_json
from hubgate.files import atomic_write
from hubgate.jobs.inputs import MOST_TEXT_BYTES, Stamp, no_such_field
from hubgate.jobs.parts import Parts
from hubgate.jobs.rows import Columns, Embedded, Failed, Layout, Part, Row, RowFault, is_id, places, read_row

_FIRST_ROWS = 100
_BOM = b"\xef\xbb\xbf"
_MOST_NESTED = 250
"""What orjson writes for certain; it reads deeper than it writes."""
_SPELLED = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


class JsonlSource:
    """A row a line; its number is that of its line, from 0. Empty lines are no rows."""

    def __init__(self, path: Path, columns: Columns, *, longest: int = MOST_TEXT_BYTES) -> None:
        self._path = path
        self._columns = columns
        self._longest = longest
        self._stamp = Stamp(path)
        self._lines = self._bytes = 0
        self.check = self._stamp.check
        self._check_fields()

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        """Ids are texts unless they are line numbers; no column has a type."""
        return "int" if self._columns.id is None else "text", dict.fromkeys(self._columns.keep)

    @property
    def expected_rows(self) -> int | None:
        """As many as fill the file, if the rest of it is like what was read."""
        return self._lines * self._stamp.size // self._bytes if self._bytes else None

    def identity(self) -> Mapping[str, Any]:
        """Of the file."""
        return {"kind": "JSON lines", **self._stamp.identity()}

    def rows(self) -> Iterator[Row | Failed]:
        """Every line."""
        self._lines = self._bytes = 0
        with self._path.open("rb") as file:
            for line, length in self._read(file):
                number, self._lines = self._lines, self._lines + 1
                if line is None:
                    yield _failed(
                        number, RowFault.TOO_LONG, f"The line is longer than {self._longest} bytes."
                    )
                elif line.strip():
                    yield self._row(number, line)
                self._bytes += length

    def _read(self, file: BinaryIO) -> Iterator[tuple[bytes | None, int]]:
        """Every line, `None` for one that is too long to be held, and its length in bytes."""
        first = True
        while line := file.readline(self._longest + 1):
            length = len(line)
            if length > self._longest:
                yield None, length + _skip_line(file, line)
            else:
                yield line.removeprefix(_BOM) if first else line, length
            first = False

    def _check_fields(self) -> None:
        """Look whether the first rows have the fields that every row is to have: one that none has is a mistake.

        Raises:
            JobStopped: they have fields, but not these.
        """
        missing = [self._columns.text, *([self._columns.id] if self._columns.id else [])]
        known: dict[str, None] = {}
        looked_at = 0
        with self._path.open("rb") as file:
            rows = (line for line, _ in self._read(file) if line is None or line.strip())
            for line in islice(rows, _FIRST_ROWS):
                looked_at += 1
                fields = _fields(line or b"")
                known |= dict.fromkeys(fields)
                missing = [name for name in missing if name not in fields]
                if not missing:
                    return
        if known:
            none = "No row" if looked_at < _FIRST_ROWS else f"None of the first {_FIRST_ROWS} rows"
            raise no_such_field(f"{none} of {self._path} has a field [{missing[0]}].", "fields", known)

    def _row(self, number: int, line: bytes) -> Row | Failed:
        columns = self._columns
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _failed(number, _cause(line), f"Line {number + 1} is not JSON: {error.msg}.")
        if not isinstance(fields, dict):
            return _failed(number, RowFault.NOT_JSON, f"Line {number + 1} is JSON, but not an object.")
        row_id = number if columns.id is None else fields.get(columns.id)
        known = row_id if is_id(row_id) else None
        if columns.text not in fields:
            return _failed(number, RowFault.NO_TEXT, f"There is no field [{columns.text}].", known)
        kept = tuple(map(fields.get, columns.keep))
        if line.count(b"[") + line.count(b"{") > _MOST_NESTED and not _can_be_written(kept):
            message = "A value cannot be kept: it is nested too deeply."
            return _failed(number, RowFault.UNREADABLE, message, known)
        return read_row(number, row_id, fields[columns.text], kept)


class JsonlSink:
    """A line a vector."""

    def __init__(self, parts: Parts, output: Path, layout: Layout) -> None:
        self._parts = parts
        self._output = output
        self._layout = layout
        self.has = parts.has

    def write(self, shards: Iterable[Embedded]) -> Sequence[Part]:
        """The lines of each shard."""
        return self._parts.add(b"".join(self._lines(vectors)) for vectors in shards)

    def publish(self, parts: Iterable[Part]) -> None:
        """The parts, one after the other."""
        with atomic_write(self._output, self._parts.draft) as file:
            file.writelines(map(self._parts.read, parts))

    def _lines(self, vectors: Embedded) -> Iterator[bytes]:
        for row, piece, index in zip(*vectors, places(vectors.rows), strict=True):
            head = {"id": row.id, **dict(zip(self._layout.kept, row.kept, strict=True))}
            if self._layout.chunked:
                head |= {"chunk": index, "start": piece.start, "end": piece.end, "text": piece.text}
            spelled = orjson.dumps(head, default=str, option=_SPELLED)
            counts = b'"tokens":%b,"tokens_unread":%b' % (_number(piece.tokens), _number(piece.tokens_unread))
            yield b'%b,"embedding":%b,%b}\n' % (spelled[:-1], f32_to_json(piece.vector), counts)


def _number(tokens: int | None) -> bytes:
    return b"null" if tokens is None else b"%d" % tokens


def _fields(line: bytes) -> Mapping[str, Any]:
    """Those of a line; none, if it is no object."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _can_be_written(kept: tuple[Any, ...]) -> bool:
    try:
        orjson.dumps(kept)
    except TypeError:
        return False
    return True


def _skip_line(file: BinaryIO, begun: bytes) -> int:
    """Read to the end of a line, without holding it; how many bytes that were."""
    skipped, part = 0, begun
    while part and not part.endswith(b"\n"):
        part = file.readline(1 << 20)
        skipped += len(part)
    return skipped


def _cause(line: bytes) -> RowFault:
    try:
        line.decode()
    except UnicodeDecodeError:
        return RowFault.NOT_UTF8
    return RowFault.NOT_JSON


def _failed(number: int, cause: RowFault, message: str, row_id: int | str | None = None) -> Failed:
    return Failed(row=number, id=row_id, cause=cause, message=message)
