"""Parquet in, Parquet out. Needs pyarrow: the extra `[bulk]`.

Vectors stay bytes: a column of vectors is one buffer, joined from those of the replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from hubgate.files import atomic_write, flush_to_disk
from hubgate.jobs.inputs import Stamp, no_such_field, unusable_input
from hubgate.jobs.parquet_values import first_fault, is_id_column, is_text, values
from hubgate.jobs.parts import Parts
from hubgate.jobs.rows import (
    Columns,
    Embedded,
    Failed,
    Layout,
    Part,
    Piece,
    Row,
    RowFault,
    is_id,
    places,
    read_row,
)

_READ_ROWS = 1024
_READ_BUFFER = 1 << 20
_GROUP_BYTES = 32 * 1024 * 1024
"""Of a row group of the output, uncompressed: what joining holds in memory, and what may be left for the end."""


class ParquetSource:
    """A row a row, read in small batches."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path = path
        self._columns = columns
        self._stamp = Stamp(path)
        self.check = self._stamp.check
        try:
            with self._open() as file:
                self._schema = file.schema_arrow
                self._groups: list[int] = [
                    file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)
                ]
        except (pa.ArrowException, OSError) as error:
            raise unusable_input(f"{path} is not Parquet, or a broken one: {_first_line(error)}.") from error
        for name in (columns.text, *([columns.id] if columns.id else []), *columns.keep):
            if name not in self._schema.names:
                raise no_such_field(f"{path} has no column [{name}].", "columns", self._schema.names)
            if self._schema.names.count(name) > 1:
                raise unusable_input(f"{path} has several columns [{name}].", "Rename all but one of them.")
        self._check_type(columns.text, is_text, "texts")
        if columns.id is not None:
            self._check_type(columns.id, is_id_column, "whole numbers or texts")

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        """Ids are of their column's kind, and so are the columns that are kept."""
        column = self._columns.id
        text = column is not None and is_text(self._schema.field(column).type)
        return "text" if text else "int", {name: self._schema.field(name).type for name in self._columns.keep}

    @property
    def expected_rows(self) -> int | None:
        """As the file says."""
        return sum(self._groups, 0)

    def identity(self) -> Mapping[str, Any]:
        """Of the file."""
        return {"kind": "Parquet", **self._stamp.identity()}

    def rows(self) -> Iterator[Row | Failed]:
        """Every row. Of a row group that cannot be read, those that could not be."""
        first = 0
        with self._open() as file:
            for group, size in enumerate(self._groups):
                number, last = first, first + size
                try:
                    for batch in file.iter_batches(_READ_ROWS, row_groups=[group], columns=self._wanted()):
                        yield from self._batch(number, batch)
                        number += batch.num_rows
                except (pa.ArrowException, OSError) as error:
                    message = f"Row group {group} of the file is broken: {_first_line(error)}."
                    for row in range(number, last):
                        yield Failed(row=row, id=None, cause=RowFault.UNREADABLE, message=message)
                first = last

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._path, buffer_size=_READ_BUFFER, pre_buffer=False, page_checksum_verification=True
        )

    def _wanted(self) -> list[str]:
        columns = self._columns
        return list(dict.fromkeys([columns.text, *([columns.id] if columns.id else []), *columns.keep]))

    def _batch(self, first: int, batch: pa.RecordBatch) -> Iterator[Row | Failed]:
        columns = self._columns
        texts = values(batch.column(columns.text))
        ids = range(first, first + len(texts)) if columns.id is None else values(batch.column(columns.id))
        lists = [values(batch.column(name)) for name in columns.keep]
        kept = zip(*lists, strict=True) if lists else repeat((), len(texts))
        numbers = range(first, first + len(texts))
        if _all_can_be_asked(ids, texts) and not any(map(first_fault, lists)):
            yield from map(Row, numbers, ids, texts, kept)
            return
        for number, row_id, text, others in zip(numbers, ids, texts, kept, strict=True):
            if isinstance(text, ValueError) or isinstance(row_id, ValueError):
                message = "The row has a text or an id that is not UTF-8."
                yield Failed(row=number, id=None, cause=RowFault.NOT_UTF8, message=message)
            elif fault := first_fault(others):
                named = row_id if is_id(row_id) else None
                message = f"A value cannot be kept: {_first_line(fault)}."
                yield Failed(row=number, id=named, cause=RowFault.UNREADABLE, message=message)
            else:
                yield read_row(number, row_id, text, others)

    def _check_type(self, name: str, fits: Any, wanted: str) -> None:
        kind = self._schema.field(name).type
        if not fits(kind):
            raise unusable_input(f"The column [{name}] of {self._path} holds {kind}, not {wanted}.")


class ParquetSink:
    """A row a vector, in a column of fixed-size lists of float32."""

    def __init__(self, parts: Parts, output: Path, layout: Layout) -> None:
        self._parts = parts
        self._output = output
        self._layout = layout
        self._schema = _schema(layout)
        self.has = parts.has

    def write(self, shards: Iterable[Embedded]) -> Sequence[Part]:
        """A stream in Arrow's own format for each shard: nothing is encoded that is to be joined."""
        return self._parts.add(map(self._stream, shards))

    def _stream(self, vectors: Embedded) -> memoryview:
        content = pa.BufferOutputStream()
        with pa.ipc.new_stream(content, self._schema) as writer:
            writer.write_table(self._table(vectors))
        return memoryview(content.getvalue())

    def publish(self, parts: Iterable[Part]) -> None:
        """The parts one after the other, in row groups of a size to read well."""
        waiting: list[pa.Table] = []
        with atomic_write(self._output, self._parts.draft) as file, self._writer(file) as writer:
            for part in parts:
                with pa.ipc.open_stream(self._parts.read(part)) as reader:
                    waiting.append(self._completed(reader.read_all()))
                if sum(table.nbytes for table in waiting) >= _GROUP_BYTES:
                    _write_group(writer, waiting)
                    waiting.clear()
                    flush_to_disk(file)
            if waiting:
                _write_group(writer, waiting)

    def _table(self, vectors: Embedded) -> pa.Table:
        rows, pieces = vectors
        layout = self._layout
        ids = [row.id for row in rows]
        columns = [pa.array(ids if layout.ids == "int" else map(str, ids), self._schema.field("id").type)]
        for place, (name, kind) in enumerate(layout.kept.items()):
            kept = [row.kept[place] for row in rows]
            columns.append(
                pa.array(kept if kind is not None else map(_as_text, kept), self._schema.field(name).type)
            )
        if layout.chunked:
            columns.append(pa.array(places(rows), pa.int32()))
            columns.append(pa.array([piece.start for piece in pieces], pa.int64()))
            columns.append(pa.array([piece.end for piece in pieces], pa.int64()))
            columns.append(pa.array([piece.text for piece in pieces], pa.string()))
        columns.append(_vectors(pieces, layout.dimensions))
        columns.append(pa.array([piece.tokens for piece in pieces], pa.int32()))
        columns.append(pa.array([piece.tokens_unread for piece in pieces], pa.int32()))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _completed(self, part: pa.Table) -> pa.Table:
        """A part with all columns; one of an earlier version has none of the unread tokens."""
        if "tokens_unread" in part.schema.names:
            return part
        return part.append_column(self._schema.field("tokens_unread"), pa.nulls(len(part), pa.int32()))

    def _writer(self, file: Any) -> pq.ParquetWriter:
        # A vector has nothing to compress, and no two are alike.
        names = [name for name in self._schema.names if name != "embedding"]
        packed = {**dict.fromkeys(names, "zstd"), "embedding": "none", "embedding.list.element": "none"}
        return pq.ParquetWriter(
            file, self._schema, compression=packed, use_dictionary=False, write_statistics=["id"]
        )


def _schema(layout: Layout) -> pa.Schema:
    fields = [pa.field("id", pa.int64() if layout.ids == "int" else pa.string(), nullable=False)]
    fields += [pa.field(name, pa.string() if kind is None else kind) for name, kind in layout.kept.items()]
    if layout.chunked:
        places = {"chunk": pa.int32(), "start": pa.int64(), "end": pa.int64(), "text": pa.string()}
        fields += [pa.field(name, kind, nullable=False) for name, kind in places.items()]
    fields.append(pa.field("embedding", pa.list_(pa.float32(), layout.dimensions), nullable=False))
    fields += [pa.field("tokens", pa.int32()), pa.field("tokens_unread", pa.int32())]
    return pa.schema(fields)


def _vectors(pieces: Sequence[Piece], dimensions: int) -> pa.Array:
    numbers = pa.py_buffer(b"".join(piece.vector for piece in pieces))
    flat = pa.Array.from_buffers(pa.float32(), len(pieces) * dimensions, [None, numbers])
    return pa.FixedSizeListArray.from_arrays(flat, dimensions)


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    whole = pa.concat_tables(tables)
    writer.write_table(whole, row_group_size=max(1, whole.num_rows))


def _all_can_be_asked(ids: Sequence[Any], texts: list[Any]) -> bool:
    """Whether no row is a fault; told of columns, as almost always none is."""
    return {*map(type, texts)} == {str} and "" not in texts and {*map(type, ids)} <= {int, str}


def _as_text(value: object) -> str | None:
    """A value of JSON in a column of texts."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200].rstrip(".")
