"""JSON lines as input and as output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import orjson

from hubgate.core.quantization import quantized_to_json
from hubgate.core.vectors import f32_to_json
from hubgate.domain.endpoint import OutputDtype
from hubgate.features.bulk.engine.rows import (
    Columns,
    Embedded,
    FailedRow,
    Layout,
    Row,
    RowFault,
    chunk_numbers,
    is_id,
    make_row,
)
from hubgate.features.bulk.formats.inputs import MAX_TEXT_BYTES, InputFingerprint, no_such_field

_CHECKED_ROWS = 100
_BOM = b"\xef\xbb\xbf"
_MAX_NESTING = 250
"""orjson parses deeper nesting than it can serialize; this much it can."""
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


class JsonlSource:
    """A file on this machine: a row per line, numbered by line from 0. Empty lines are skipped."""

    def __init__(self, path: Path, columns: Columns, *, max_bytes: int = MAX_TEXT_BYTES) -> None:
        self._path = path
        self._columns = columns
        self._reader = LineReader(columns, max_bytes=max_bytes)
        self._fingerprint = InputFingerprint(path)
        self._lines = self._bytes = 0
        self.check = self._fingerprint.check
        with path.open("rb") as file:
            self._reader.check_fields(file, str(path))

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        return jsonl_layout(self._columns)

    @property
    def expected_rows(self) -> int | None:
        """Estimated from the mean length of the lines read so far."""
        return self._lines * self._fingerprint.size // self._bytes if self._bytes else None

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "JSON lines", **self._fingerprint.identity()}

    def rows(self) -> Iterator[Row | FailedRow]:
        self._lines = self._bytes = 0
        with self._path.open("rb") as file:
            for line, length in self._reader.lines(file):
                number, self._lines = self._lines, self._lines + 1
                if (row := self._reader.row(number, line)) is not None:
                    yield row
                self._bytes += length


def jsonl_layout(columns: Columns) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
    """`Source.layout` of JSON lines."""
    return "int" if columns.id is None else "text", dict.fromkeys(columns.keep)


class LineReader:
    """Reads lines of a file, and rows from lines.

    Args:
        columns: that are read.
        max_bytes: of a line; a longer one is not read into memory.
    """

    def __init__(self, columns: Columns, *, max_bytes: int = MAX_TEXT_BYTES) -> None:
        self._columns = columns
        self._max_bytes = max_bytes

    def lines(self, file: IO[bytes]) -> Iterator[tuple[bytes | None, int]]:
        """Each line, or `None` for one that is too long, and its length in bytes."""
        first = True
        while line := file.readline(self._max_bytes + 1):
            length = len(line)
            if length > self._max_bytes:
                yield None, length + _skip_line(file, line)
            else:
                yield line.removeprefix(_BOM) if first else line, length
            first = False

    def row(self, number: int, line: bytes | None) -> Row | FailedRow | None:
        """The row of a line; `None` for an empty line."""
        if line is None:
            return _failed(number, RowFault.TOO_LONG, f"The line is longer than {self._max_bytes} bytes.")
        return self._row(number, line) if line.strip() else None

    def check_fields(self, file: IO[bytes], name: str) -> None:
        """Check that the text and id fields occur in the first rows: a name that none has is a mistake.

        Raises:
            JobStopped: the rows have other fields only.
        """
        missing = [self._columns.text, *([self._columns.id] if self._columns.id else [])]
        known: dict[str, None] = {}
        checked = 0
        rows = (line for line, _ in self.lines(file) if line is None or line.strip())
        for line in islice(rows, _CHECKED_ROWS):
            checked += 1
            fields = _fields(line or b"")
            known |= dict.fromkeys(fields)
            missing = [name for name in missing if name not in fields]
            if not missing:
                return
        if known:
            none = "No row" if checked < _CHECKED_ROWS else f"None of the first {_CHECKED_ROWS} rows"
            raise no_such_field(f"{none} of {name} has a field [{missing[0]}].", "fields", known)

    def _row(self, number: int, line: bytes) -> Row | FailedRow:
        columns = self._columns
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _failed(number, _cause(line), f"Line {number + 1} is not JSON: {error.msg}.")
        if not isinstance(fields, dict):
            return _failed(number, RowFault.NOT_JSON, f"Line {number + 1} is not a JSON object.")
        row_id = number if columns.id is None else fields.get(columns.id)
        known = row_id if is_id(row_id) else None
        if columns.text not in fields:
            return _failed(number, RowFault.NO_TEXT, f"The row has no field [{columns.text}].", known)
        kept = tuple(map(fields.get, columns.keep))
        if line.count(b"[") + line.count(b"{") > _MAX_NESTING and not _is_serializable(kept):
            message = "A value cannot be kept: it is nested too deeply."
            return _failed(number, RowFault.UNREADABLE, message, known)
        return make_row(number, row_id, fields[columns.text], kept)


class JsonlSink:
    """A line per vector."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def encode(self, shard: Embedded) -> bytes:
        return b"".join(self._lines(shard))

    def write(self, file: BinaryIO, shards: Iterable[bytes]) -> None:
        file.writelines(shards)

    def _lines(self, shard: Embedded) -> Iterator[bytes]:
        for row, piece, chunk in zip(*shard, chunk_numbers(shard.rows), strict=True):
            head = {"id": row.id, **dict(zip(self._layout.kept, row.kept, strict=True))}
            if self._layout.chunked:
                head |= {"chunk": chunk, "start": piece.start, "end": piece.end, "text": piece.text}
            fields = orjson.dumps(head, default=str, option=_OPTIONS)
            counts = b'"tokens":%b,"tokens_unread":%b' % (_number(piece.tokens), _number(piece.tokens_unread))
            yield b'%b,"embedding":%b,%b}\n' % (fields[:-1], self._vector(piece.vector), counts)

    def _vector(self, vector: bytes) -> bytes:
        dtype = self._layout.dtype
        return f32_to_json(vector) if dtype is OutputDtype.FLOAT else quantized_to_json(vector, dtype)


def _number(tokens: int | None) -> bytes:
    return b"null" if tokens is None else b"%d" % tokens


def _fields(line: bytes) -> Mapping[str, Any]:
    """The fields of a line, empty if it is not a JSON object."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_serializable(kept: tuple[Any, ...]) -> bool:
    try:
        orjson.dumps(kept)
    except TypeError:
        return False
    return True


def _skip_line(file: IO[bytes], start: bytes) -> int:
    """Skip the rest of a line without holding it; its length in bytes."""
    skipped, part = 0, start
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


def _failed(number: int, cause: RowFault, message: str, row_id: int | str | None = None) -> FailedRow:
    return FailedRow(row=number, id=row_id, cause=cause, message=message)
