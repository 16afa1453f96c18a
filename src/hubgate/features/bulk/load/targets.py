"""What a vector database must do to be loaded, and the errors by which the loader knows what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import orjson
import pyarrow as pa

from hubgate.core.vectors import f32_to_json
from hubgate.domain.endpoint import Similarity
from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.rows import Id, JobStopped
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.output import Shape


class Refused(NamedTuple):
    """A vector that the database did not accept."""

    id: Id
    message: str


class BatchRefused(Exception):
    """The database rejected something in the batch; halves of it may be accepted."""


class Unavailable(Exception):
    """The database cannot be reached or is overloaded; the same batch may be accepted later."""


class Target(Protocol):
    """A table of a vector database. Used by one thread."""

    rows_per_request: int

    def prepare(self, shape: Shape, similarity: Similarity | None) -> None:
        """Create the table if there is none and a similarity is given, and check that the vectors fit.

        Raises:
            JobStopped: there is no table, or it has other columns.
            Unavailable: see there.
        """
        ...

    def upsert(self, batch: pa.Table) -> Sequence[Refused]:
        """Insert the vectors, and replace those with the same ids. Returned when they are stored.

        Raises:
            BatchRefused, Unavailable: see there.
        """
        ...

    def finish(self) -> None:
        """Called once after the last batch, such as to build an index."""
        ...

    def close(self) -> None: ...


def no_table(name: str) -> JobStopped:
    """The error for a table that does not exist."""
    return JobStopped(
        f"There is no table [{name}].",
        remedy="Create it, or let hubgate do so with --create.",
        cause=Cause.NOT_FOUND,
    )


def check_dimensions(table: str, known: object, shape: Shape) -> None:
    """Check the dimensions of a table's vectors.

    Raises:
        JobStopped: they differ.
    """
    if known != shape.dimensions:
        raise unusable_input(
            f"The vectors of [{table}] have {known} dimensions, those of the job {shape.dimensions}.",
            "Load them into another table.",
        )


def require_float(shape: Shape, database: str) -> None:
    """Check that the vectors are float32.

    Raises:
        JobStopped: they are not.
    """
    if shape.number_type != pa.float32():
        raise unusable_input(
            f"hubgate loads only float vectors into {database}, not {shape.number_type}.",
            "Run the job without --output-dtype.",
        )


def json_vectors(batch: pa.Table) -> list[bytes]:
    """The vectors as JSON arrays, with the shortest numbers that are the same float32 if numpy is installed."""
    column = batch.column("embedding").combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    flat = column.flatten()
    if flat.type != pa.float32():
        return [orjson.dumps(vector) for vector in column.to_pylist()]
    size = column.type.list_size * 4
    numbers = memoryview(flat.buffers()[1])[flat.offset * 4 :]
    return [f32_to_json(bytes(numbers[at : at + size])) for at in range(0, len(column) * size, size)]


def records(batch: pa.Table) -> list[dict[str, object]]:
    """The rows with their vectors as lists, for clients that want Python objects."""
    rows: list[dict[str, object]] = batch.drop_columns(["embedding"]).to_pylist()
    for row, vector in zip(rows, json_vectors(batch), strict=True):
        row["embedding"] = orjson.loads(vector)
    return rows


def rows_within(megabytes: int, shape: Shape, most: int) -> int:
    """How many rows to send at once, at about eleven bytes a number."""
    return max(1, min(most, math.floor(megabytes * 1_000_000 / (shape.dimensions * 11 + 500))))
