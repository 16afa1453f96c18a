"""LanceDB, in a folder or an object store. Needs lancedb: the extra `[lancedb]`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lancedb
import pyarrow as pa
import pyarrow.compute as pc

from hubgate.domain.endpoint import Similarity
from hubgate.jobs.inputs import unusable_input
from hubgate.jobs.load.output import Shape
from hubgate.jobs.load.targets import (
    BatchRefused,
    Refused,
    Unavailable,
    check_dimensions,
    no_table,
    rows_within,
)

_BOUNDS = {
    "LANCE_CPU_THREADS": "2",
    "LANCE_IO_THREADS": "2",
    "LANCE_DEFAULT_IO_BUFFER_SIZE": str(16 * 1024 * 1024),
    "LANCE_DEFAULT_FRAGMENT_READAHEAD": "1",
}
"""LanceDB runs in this process. By default, it uses all processors and up to 2 GiB of buffers to join files."""
_IDS_AT_ONCE = 8192


class LanceTarget:
    """A table of LanceDB. Each batch is one version of it, so batches are large."""

    def __init__(self, uri: str, table: str) -> None:
        for name, value in _BOUNDS.items():  # read when LanceDB first needs them
            os.environ.setdefault(name, value)
        self._uri = uri
        self._name = table
        self.rows_per_request = 1

    def prepare(self, shape: Shape, similarity: Similarity | None) -> None:
        self.rows_per_request = rows_within(64, shape, 10_000)
        with _errors():
            database = lancedb.connect(self._uri)
            try:
                self._table = database.open_table(self._name)
            except (ValueError, FileNotFoundError):
                if similarity is None:
                    raise no_table(self._name) from None
                self._table = database.create_table(self._name, schema=shape.schema)
            known = self._table.schema
        for field in shape.schema:
            if field.name not in known.names:
                raise unusable_input(
                    f"The table [{self._name}] has no column [{field.name}].", "Add the column."
                )
        check_dimensions(self._name, getattr(known.field("embedding").type, "list_size", None), shape)

    def upsert(self, batch: pa.Table) -> Sequence[Refused]:
        with _errors():
            if self._has_any(batch.column("id")):
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(batch)
            else:
                self._table.add(batch)
        return ()

    def _has_any(self, ids: pa.ChunkedArray) -> bool:
        """Whether the table has one of the ids. A merge would hold all ids of the table in memory."""
        wanted = ids.cast(self._table.schema.field("id").type).combine_chunks()
        stored = self._table.search().select(["id"]).limit(None).to_batches(_IDS_AT_ONCE)
        return any(pc.any(pc.is_in(batch.column("id"), value_set=wanted)).as_py() for batch in stored)

    def finish(self) -> None:
        """Join the files of the batches."""
        with _errors():
            self._table.optimize()

    def close(self) -> None:
        """Nothing is open between calls."""


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError) as error:
        raise BatchRefused(_message(error)) from None
    except (OSError, RuntimeError) as error:
        raise Unavailable(_message(error)) from None


def _message(error: Exception) -> str:
    return str(error).partition("\n")[0][:300].rstrip(".")
