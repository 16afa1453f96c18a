"""The output of a job on Ray: a folder of parts, here or in an object store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.output import ParquetVectors, Position, check_dtype
from hubgate.features.bulk.ray.parts import part_name
from hubgate.features.bulk.ray.storage import OutputFolder, reports_unreadable
from hubgate.features.bulk.ray.tasks import find_prepared


class PartsOutput:
    """All parts in the order of the input; a `JobOutput`.

    Args:
        place: the folder, as a URI or an absolute path.

    Raises:
        JobStopped: it is not the output of a job on Ray, is not complete, or contains packed bits.
    """

    def __init__(self, place: str) -> None:
        found = find_prepared(place)
        self._folder = OutputFolder(place)
        self._plan = found.plan
        check_dtype(found.plan.task.output_dtype, place)
        if not found.is_complete:
            raise unusable_input(
                f"{place} is not complete: {len(found.missing):,} of {len(found.plan.splits):,} parts are missing.",
                "Run the job again with the same command until it is done.",
            )
        self.endpoint = found.plan.task.endpoint
        self.rows: int | None = found.done.pieces
        self._names = [part_name(split) for split in found.plan.splits]
        if not self._names:
            raise unusable_input(f"{place} has no vectors: the input had no rows.")
        self.shape = self._part(self._names[0]).shape

    def identity(self) -> Mapping[str, Any]:
        return {"created_at": self._plan.created_at, "parts": len(self._names), "vectors": self.rows}

    def batches(self, start: Position, size: int) -> Iterator[tuple[pa.Table, Position]]:
        before = 0
        for name in self._names:
            part = self._part(name)
            if before + part.rows > start.rows:
                with reports_unreadable(f"{self._folder.place}/{name}"):
                    for table, rows in part.batches(max(0, start.rows - before), size):
                        yield table, Position(rows=before + rows)
            before += part.rows

    def _part(self, name: str) -> ParquetVectors:
        return ParquetVectors(
            f"{self._folder.place}/{name}",
            lambda: pq.ParquetFile(self._folder.open(name), page_checksum_verification=True),
        )
