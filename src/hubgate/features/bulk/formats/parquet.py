"""Parquet as input and as output. Needs pyarrow: the extra `[bulk]`.

Vectors stay bytes: a column of vectors is one buffer, joined from those of the replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from hubgate.domain.endpoint import OutputDtype
from hubgate.features.bulk.engine.rows import (
    Columns,
    Embedded,
    FailedRow,
    Layout,
    Piece,
    Row,
    RowFault,
    chunk_numbers,
    is_id,
    make_row,
)
from hubgate.features.bulk.formats.inputs import InputFingerprint, no_such_field, unusable_input
from hubgate.files import flush_to_disk

_READ_ROWS = 1024
_READ_BUFFER = 1 << 20
_GROUP_BYTES = 32 * 1024 * 1024
"""Uncompressed size of a row group of the output: what writing it holds in memory."""
_STRING_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NUMBER_TYPES = {
    OutputDtype.FLOAT: pa.float32(),
    OutputDtype.INT8: pa.int8(),
    OutputDtype.UINT8: pa.uint8(),
    OutputDtype.BINARY: pa.int8(),
    OutputDtype.UBINARY: pa.uint8(),
}
_CONVERSION_ERRORS = (ValueError, OverflowError)
"""From values that Python cannot represent: invalid UTF-8, nanoseconds, years after 9999."""


class ParquetSource:
    """A file on this machine."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._fingerprint = InputFingerprint(path)
        self.check = self._fingerprint.check
        self._table = ParquetTable(str(path), path, columns)

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        return self._table.layout

    @property
    def expected_rows(self) -> int | None:
        return self._table.size

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "Parquet", **self._fingerprint.identity()}

    def rows(self) -> Iterator[Row | FailedRow]:
        return self._table.rows()


class ParquetTable:
    """Reads the rows of a file in small batches, wherever the file is.

    Args:
        name: of the file, for messages.
        where: its path.
        columns: that are read.
        filesystem: of Arrow; by default that of this machine.

    Raises:
        JobStopped: it is not a Parquet file, or a column is missing or has the wrong type.
    """

    def __init__(self, name: str, where: str | Path, columns: Columns, filesystem: Any = None) -> None:
        self._name = name
        self._where = where
        self._filesystem = filesystem
        self._columns = columns
        try:
            with self._open() as file:
                self._schema = file.schema_arrow
                self._groups: list[int] = [
                    file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)
                ]
        except (pa.ArrowException, OSError) as error:
            raise unusable_input(f"{name} is not a valid Parquet file: {_first_line(error)}.") from error
        for column in (columns.text, *([columns.id] if columns.id else []), *columns.keep):
            if column not in self._schema.names:
                raise no_such_field(f"{name} has no column [{column}].", "columns", self._schema.names)
            if self._schema.names.count(column) > 1:
                raise unusable_input(f"{name} has several columns [{column}].", "Rename all but one of them.")
        self._check_type(columns.text, _is_string, "strings")
        if columns.id is not None:
            self._check_type(columns.id, _is_id_type, "integers or strings")

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        column = self._columns.id
        text = column is not None and _is_string(self._schema.field(column).type)
        return "text" if text else "int", {name: self._schema.field(name).type for name in self._columns.keep}

    @property
    def size(self) -> int:
        """The number of rows."""
        return sum(self._groups)

    def rows(self, start: int = 0, stop: int | None = None, *, before: int = 0) -> Iterator[Row | FailedRow]:
        """The rows from `start` to `stop`. In a broken row group, only the rows that cannot be read fail.

        Args:
            start: the first row, from 0.
            stop: the row after the last; `None`: all.
            before: rows in the files before this one, for the rows' numbers.
        """
        stop = self.size if stop is None else stop
        first = 0
        with self._open() as file:
            for group, size in enumerate(self._groups):
                if first < stop and first + size > start:
                    yield from self._group(
                        file, group, range(max(first, start), min(first + size, stop)), first, before
                    )
                first += size

    def _group(
        self, file: pq.ParquetFile, group: int, wanted: range, first: int, before: int
    ) -> Iterator[Row | FailedRow]:
        """The wanted rows of a row group, which begins with the row `first`."""
        number = first
        try:
            for batch in file.iter_batches(_READ_ROWS, row_groups=[group], columns=self._wanted()):
                stop = number + batch.num_rows
                if stop > wanted.start:
                    skipped = max(0, wanted.start - number)
                    number += skipped
                    yield from self._batch(before + number, batch.slice(skipped, wanted.stop - number))
                number = stop
                if number >= wanted.stop:
                    return
        except (pa.ArrowException, OSError) as error:
            message = f"Row group {group} of the file is broken: {_first_line(error)}."
            for row in range(max(number, wanted.start), wanted.stop):
                yield FailedRow(row=before + row, id=None, cause=RowFault.UNREADABLE, message=message)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._where,
            filesystem=self._filesystem,
            buffer_size=_READ_BUFFER,
            pre_buffer=False,
            page_checksum_verification=True,
        )

    def _wanted(self) -> list[str]:
        columns = self._columns
        return list(dict.fromkeys([columns.text, *([columns.id] if columns.id else []), *columns.keep]))

    def _batch(self, first: int, batch: pa.RecordBatch) -> Iterator[Row | FailedRow]:
        columns = self._columns
        texts = _values(batch.column(columns.text))
        ids = range(first, first + len(texts)) if columns.id is None else _values(batch.column(columns.id))
        lists = [_values(batch.column(name)) for name in columns.keep]
        kept = zip(*lists, strict=True) if lists else repeat((), len(texts))
        numbers = range(first, first + len(texts))
        if _are_all_valid(ids, texts) and not any(map(_first_error, lists)):
            yield from map(Row, numbers, ids, texts, kept)
            return
        for number, row_id, text, others in zip(numbers, ids, texts, kept, strict=True):
            if isinstance(text, ValueError) or isinstance(row_id, ValueError):
                message = "The row has a text or an id that is not UTF-8."
                yield FailedRow(row=number, id=None, cause=RowFault.NOT_UTF8, message=message)
            elif error := _first_error(others):
                named = row_id if is_id(row_id) else None
                message = f"A value cannot be kept: {_first_line(error)}."
                yield FailedRow(row=number, id=named, cause=RowFault.UNREADABLE, message=message)
            else:
                yield make_row(number, row_id, text, others)

    def _check_type(self, name: str, fits: Any, wanted: str) -> None:
        kind = self._schema.field(name).type
        if not fits(kind):
            raise unusable_input(f"The column [{name}] of {self._name} contains {kind}, not {wanted}.")


class ParquetSink:
    """A row per vector, in a column of fixed-size lists of numbers."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._schema = _schema(layout)

    def encode(self, shard: Embedded) -> memoryview:
        """A stream in Arrow's own format, so that values are not encoded twice."""
        content = pa.BufferOutputStream()
        with pa.ipc.new_stream(content, self._schema) as writer:
            writer.write_table(self._table(shard))
        return memoryview(content.getvalue())

    def write(
        self,
        file: BinaryIO,
        shards: Iterable[bytes | memoryview],
        metadata: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Join shards to row groups of a size that reads well. `metadata` is what the file says about itself."""
        waiting: list[pa.Table] = []
        with self._writer(file) as writer:
            for shard in shards:
                with pa.ipc.open_stream(shard) as reader:
                    waiting.append(reader.read_all())
                if sum(table.nbytes for table in waiting) >= _GROUP_BYTES:
                    _write_group(writer, waiting)
                    waiting.clear()
                    flush_to_disk(file)
            if waiting:
                _write_group(writer, waiting)
            if metadata:
                writer.add_key_value_metadata(metadata)

    def _table(self, shard: Embedded) -> pa.Table:
        rows, pieces = shard
        layout = self._layout
        ids = [row.id for row in rows]
        columns = [pa.array(ids if layout.ids == "int" else map(str, ids), self._schema.field("id").type)]
        for index, (name, kind) in enumerate(layout.kept.items()):
            kept = [row.kept[index] for row in rows]
            columns.append(
                pa.array(kept if kind is not None else map(as_text, kept), self._schema.field(name).type)
            )
        if layout.chunked:
            columns.append(pa.array(chunk_numbers(rows), pa.int32()))
            columns.append(pa.array([piece.start for piece in pieces], pa.int64()))
            columns.append(pa.array([piece.end for piece in pieces], pa.int64()))
            columns.append(pa.array([piece.text for piece in pieces], pa.string()))
        columns.append(_vectors(pieces, layout))
        columns.append(pa.array([piece.tokens for piece in pieces], pa.int32()))
        columns.append(pa.array([piece.tokens_unread for piece in pieces], pa.int32()))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _writer(self, file: Any) -> pq.ParquetWriter:
        # Vectors do not compress, and no two are equal.
        names = [name for name in self._schema.names if name != "embedding"]
        compression = {**dict.fromkeys(names, "zstd"), "embedding": "none", "embedding.list.element": "none"}
        return pq.ParquetWriter(
            file, self._schema, compression=compression, use_dictionary=False, write_statistics=["id"]
        )


def _schema(layout: Layout) -> pa.Schema:
    fields = [pa.field("id", pa.int64() if layout.ids == "int" else pa.string(), nullable=False)]
    fields += [pa.field(name, pa.string() if kind is None else kind) for name, kind in layout.kept.items()]
    if layout.chunked:
        columns = {"chunk": pa.int32(), "start": pa.int64(), "end": pa.int64(), "text": pa.string()}
        fields += [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    fields.append(pa.field("embedding", pa.list_(_NUMBER_TYPES[layout.dtype], layout.length), nullable=False))
    fields += [pa.field("tokens", pa.int32()), pa.field("tokens_unread", pa.int32())]
    return pa.schema(fields)


def _vectors(pieces: Sequence[Piece], layout: Layout) -> pa.Array:
    numbers = pa.py_buffer(b"".join(piece.vector for piece in pieces))
    kind, length = _NUMBER_TYPES[layout.dtype], layout.length
    flat = pa.Array.from_buffers(kind, len(pieces) * length, [None, numbers])
    return pa.FixedSizeListArray.from_arrays(flat, length)


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    group = pa.concat_tables(tables)
    writer.write_table(group, row_group_size=max(1, group.num_rows))


def _are_all_valid(ids: Sequence[Any], texts: list[Any]) -> bool:
    """Whether every row has a text and an id. Checked by column, because almost always all have."""
    return {*map(type, texts)} == {str} and "" not in texts and {*map(type, ids)} <= {int, str}


def as_text(value: object) -> str | None:
    """A JSON value for a column of strings."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200].rstrip(".")


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; where Python cannot represent one, the error in its place."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except _CONVERSION_ERRORS:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _CONVERSION_ERRORS as error:
        return error


def _first_error(values: Iterable[Any]) -> Exception | None:
    return next((value for value in values if isinstance(value, _CONVERSION_ERRORS)), None)


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(fits(kind) for fits in _STRING_TYPES)


def _is_id_type(kind: pa.DataType) -> bool:
    return _is_string(kind) or bool(pa.types.is_integer(kind) and kind != pa.uint64())  # ids are int64
