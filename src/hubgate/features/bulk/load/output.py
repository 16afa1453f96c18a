"""A job's output as Arrow batches for a database, from any position. Needs pyarrow: the extra `[bulk]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from hubgate.domain.endpoint import OutputDtype
from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.folder import JobFolder
from hubgate.features.bulk.formats.formats import JSONL, PARQUET
from hubgate.features.bulk.formats.inputs import InputFingerprint, unusable_input
from hubgate.features.bulk.formats.parquet import as_text

CHUNK_COLUMNS = ("document_id", "chunk", "start", "end", "text")
"""Of a chunked output, beside the kept ones. `document_id` is the id of the row that the chunk is from."""
_COUNTS = frozenset({"tokens", "tokens_unread"})
_NOT_KEPT = frozenset({"id", "embedding", "chunk", "start", "end", *_COUNTS})
_PACKED = frozenset({OutputDtype.BINARY, OutputDtype.UBINARY})


class Position(msgspec.Struct, frozen=True):
    """Where reading continues: how many vectors were read, and for JSON lines the byte in the file."""

    rows: int = 0
    offset: int = 0


class Shape(NamedTuple):
    """The columns of a batch: `id`, those of a chunk, the kept ones, and `embedding`, a list of `dimensions` numbers."""

    schema: pa.Schema

    @property
    def dimensions(self) -> int:
        return int(self.schema.field("embedding").type.list_size)

    @property
    def number_type(self) -> pa.DataType:
        return self.schema.field("embedding").type.value_type

    @property
    def has_text_ids(self) -> bool:
        return bool(self.schema.field("id").type == pa.string())

    @property
    def fields(self) -> list[pa.Field]:
        """All but the id and the vector."""
        return [field for field in self.schema if field.name not in {"id", "embedding"}]


class JobOutput(Protocol):
    """A finished output."""

    shape: Shape
    rows: int | None
    """How many vectors there are, if that is known without reading them."""

    def identity(self) -> Mapping[str, Any]:
        """Facts by which the file is recognised on another day."""
        ...

    def batches(self, start: Position, size: int) -> Iterator[tuple[pa.Table, Position]]:
        """Vectors in batches of up to `size`, each with the position behind it."""
        ...


def open_output(path: Path) -> JobOutput:
    """Open the output of a job.

    Raises:
        JobStopped: it is not one, is not complete, or contains packed bits.
    """
    plan = JobFolder(path).plan()
    if plan is not None:
        check_dtype(plan.task.output_dtype, path)
    if plan is not None and not path.exists():
        raise unusable_input(
            f"{path} is not complete.", f"Run `hubgate job resume {path}` until the job is done."
        )
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return _ParquetOutput(path)
    if suffix in JSONL:
        return _JsonlOutput(path)
    raise unusable_input(f"{path} is not the output of a job: its name ends in neither .parquet nor .jsonl.")


def check_dtype(dtype: OutputDtype, output: str | Path) -> None:
    """Raises: JobStopped: an output contains packed bits."""
    if dtype in _PACKED:
        raise unusable_input(
            f"{output} has binary vectors, which this command does not load.",
            "Run the job with another --output-dtype, such as float.",
        )


class ParquetVectors:
    """The vectors of a Parquet file.

    Args:
        name: of the file, for errors.
        open_file: opens it.
    """

    def __init__(self, name: str | Path, open_file: Callable[[], pq.ParquetFile]) -> None:
        self._open = open_file
        try:
            with open_file() as file:
                stored = file.schema_arrow
                self._groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise _no_output(name) from error
        if not {"id", "embedding"} <= {*stored.names} or not pa.types.is_fixed_size_list(
            stored.field("embedding").type
        ):
            raise _no_output(name)
        self._is_chunked = "chunk" in stored.names
        kept = [field for field in stored if field.name not in _chunk_names(stored.names)]
        self.shape = _shape(
            name, stored.field("id").type, kept, stored.field("embedding").type, is_chunked=self._is_chunked
        )
        self.rows = sum(self._groups)

    def batches(self, start: int, size: int) -> Iterator[tuple[pa.Table, int]]:
        """Vectors from row `start` in batches of up to `size`, each with the number of rows read by then."""
        done, first = start, 0
        wanted = [name for name in self.shape.schema.names if name != "document_id"]
        wanted += ["chunk"] if self._is_chunked else []
        with self._open() as file:
            for group, rows in enumerate(self._groups):
                number, last = first, first + rows
                first = last
                if last <= done:
                    continue
                for batch in file.iter_batches(size, row_groups=[group], columns=[*dict.fromkeys(wanted)]):
                    skip = max(0, done - number)
                    number += batch.num_rows
                    if skip >= batch.num_rows:
                        continue
                    done = number
                    yield self._table(batch.slice(skip)), done

    def _table(self, batch: pa.RecordBatch) -> pa.Table:
        columns = {name: batch.column(name) for name in batch.schema.names}
        if self._is_chunked:
            columns["document_id"] = columns["id"]
            columns["id"] = _chunk_ids(columns["document_id"].to_pylist(), columns["chunk"].to_pylist())
        schema = self.shape.schema
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


class _ParquetOutput:
    def __init__(self, path: Path) -> None:
        self._vectors = ParquetVectors(path, lambda: pq.ParquetFile(path, page_checksum_verification=True))
        self.identity = InputFingerprint(path).identity
        self.shape = self._vectors.shape
        self.rows: int | None = self._vectors.rows

    def batches(self, start: Position, size: int) -> Iterator[tuple[pa.Table, Position]]:
        for table, rows in self._vectors.batches(start.rows, size):
            yield table, Position(rows=rows)


class _JsonlOutput:
    rows: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.identity = InputFingerprint(path).identity
        with path.open("rb") as file:
            first = _row(path, file.readline())
        self._is_chunked = "chunk" in first
        kind = pa.int64() if type(first["id"]) is int else pa.string()
        kept = [pa.field(name, pa.string()) for name in first if name not in _chunk_names(first)]
        vector = first["embedding"]
        plan = JobFolder(path).plan()
        is_float = plan is None or plan.task.output_dtype is OutputDtype.FLOAT
        number = pa.float32() if is_float else pa.int16()  # int8 and uint8
        self.shape = _shape(path, kind, kept, pa.list_(number, len(vector)), is_chunked=self._is_chunked)
        self._document_ids = kind

    def batches(self, start: Position, size: int) -> Iterator[tuple[pa.Table, Position]]:
        rows, offset = start.rows, start.offset
        with self._path.open("rb") as file:
            file.seek(offset)
            while lines := list(islice(file, size)):
                batch = [_row(self._path, line) for line in lines]
                rows, offset = rows + len(lines), offset + sum(map(len, lines))
                yield self._table(batch), Position(rows=rows, offset=offset)

    def _table(self, rows: Sequence[dict[str, Any]]) -> pa.Table:
        columns: dict[str, Any] = {
            name: [row.get(name) for row in rows] for name in self.shape.schema.names if name != "document_id"
        }
        ids = columns["id"]
        if self._document_ids == pa.string():
            ids = [str(one) for one in ids]
        elif odd := next((one for one in ids if type(one) is not int), None):
            raise unusable_input(
                f"The ids of {self._path} are numbers and strings: the first is a number, and another is {odd!r:.60}.",
                "Write the job's output as Parquet, where all ids are strings.",
            )
        columns["id"] = ids
        if self._is_chunked:
            columns["document_id"] = ids
            columns["id"] = _chunk_ids(ids, [row["chunk"] for row in rows])
        names = [field.name for field in self.shape.fields if field.name not in CHUNK_COLUMNS]
        columns |= {name: [as_text(value) for value in columns[name]] for name in names}
        try:
            return pa.Table.from_pydict(columns, schema=self.shape.schema)
        except pa.ArrowException as error:
            raise _no_output(self._path) from error


def _shape(
    path: str | Path, ids: pa.DataType, kept: Sequence[pa.Field], vectors: pa.DataType, *, is_chunked: bool
) -> Shape:
    kept = [field for field in kept if field.name not in _NOT_KEPT]
    fields = [pa.field("id", pa.string() if is_chunked else ids)]
    if is_chunked:
        if any(field.name == "document_id" for field in kept):
            raise unusable_input(
                f"{path} has chunks, whose column [document_id] would be used twice.",
                "Run the job without --keep document_id.",
            )
        kinds = (ids, pa.int32(), pa.int64(), pa.int64(), pa.string())
        fields += map(pa.field, CHUNK_COLUMNS, kinds)
    fields += kept
    return Shape(pa.schema([*fields, pa.field("embedding", pa.list_(vectors.value_type, vectors.list_size))]))


def _chunk_names(names: Any) -> frozenset[str]:
    """The names that are no kept columns: without chunks, `text` is one."""
    return _NOT_KEPT | {"text"} if "chunk" in names else _NOT_KEPT


def _chunk_ids(ids: Sequence[Any], chunks: Sequence[int]) -> pa.Array:
    return pa.array([f"{one}#{chunk}" for one, chunk in zip(ids, chunks, strict=True)], pa.string())


def _row(path: Path, line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("embedding"), list) or "id" not in row:
        raise _no_output(path)
    return row


def _no_output(path: str | Path) -> JobStopped:
    return unusable_input(f"{path} is not the output of a job.", "`hubgate job list` lists the outputs.")
