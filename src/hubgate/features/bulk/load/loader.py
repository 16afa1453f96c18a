"""Loads an output batch by batch, and records how far it is, so that a stopped load continues."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from hubgate.domain.endpoint import Similarity
from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.retries import PATIENCE_SECONDS
from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.output import JobOutput, Position
from hubgate.features.bulk.load.targets import BatchRefused, Refused, Target, Unavailable
from hubgate.files import atomic_write

T = TypeVar("T")
_MAX_FIRST_REFUSED = 20
"""If the database accepts none of the first vectors, the mistake is elsewhere, and the load stops."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0


class LoadRecord(msgspec.Struct, kw_only=True):
    """How far a load is. Written after the database has stored a batch, so the last batch may be loaded twice."""

    output: dict[str, Any]
    """The identity of the output that is loaded."""
    position: Position = Position()
    refused: int = 0
    is_done: bool = False


class Progress(msgspec.Struct):
    """What a progress line shows."""

    total: int | None = None
    rows: int = 0
    refused: int = 0
    waiting_for: str | None = None


class Load:
    """One output on its way into one table."""

    def __init__(self, path: Path, output: JobOutput, target: Target, name: str) -> None:
        """Prepare a load.

        Args:
            path: of the output.
            output: its content.
            target: the table.
            name: identifies the table, without any secret.
        """
        digest = blake2b(name.encode(), digest_size=4).hexdigest()
        self._record_path = path.with_name(f"{path.name}.load-{digest}.json")
        self.failures = path.with_name(f"{path.name}.load-{digest}.failed.jsonl")
        self._output = output
        self._target = target
        self.progress = Progress(total=output.rows)
        self._sleep: Callable[[float], None] = time.sleep
        self._has_stored = False
        self._first_refused = 0
        """How many vectors were refused before any was stored."""

    def run(
        self,
        similarity: Similarity | None,
        *,
        restart: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> LoadRecord:
        """Load what is not loaded yet.

        Args:
            similarity: of a table to create; `None`: the table must exist.
            restart: load everything again.
            sleep: waits between attempts.

        Raises:
            JobStopped: the vectors do not fit the table, or the database stays away.
        """
        self._sleep = sleep
        record = self._open_record(restart=restart)
        self._show(record)
        self._insist(lambda: self._target.prepare(self._output.shape, similarity))
        if record.is_done:
            return record
        for batch, position in self._output.batches(record.position, self._target.rows_per_request):
            refused = self._upsert(_last_of_each_id(batch))
            self._report(refused)
            record.refused += len(refused)
            record.position = position
            self._write(record)
            self._show(record)
        self._insist(self._target.finish)
        record.is_done = True
        self._write(record)
        return record

    def _open_record(self, *, restart: bool) -> LoadRecord:
        identity = dict(self._output.identity())
        with contextlib.suppress(FileNotFoundError):
            if restart:
                self._record_path.unlink()
            else:
                try:
                    record = msgspec.json.decode(self._record_path.read_bytes(), type=LoadRecord)
                except msgspec.MsgspecError:
                    raise unusable_input(
                        f"{self._record_path} is damaged.", "Load everything again with --restart."
                    ) from None
                if record.output != identity:
                    raise unusable_input(
                        "The output has changed since it was loaded.",
                        "Load all of it again with --restart. Rows that it no longer has stay in the table.",
                    )
                return record
        self.failures.unlink(missing_ok=True)
        return LoadRecord(output=identity)

    def _upsert(self, batch: pa.Table) -> Sequence[Refused]:
        """Store a batch. What the database rejects is found by halves."""
        try:
            refused = self._insist(lambda: self._target.upsert(batch))
        except BatchRefused as error:
            if batch.num_rows == 1:
                self._first_refused += 0 if self._has_stored else 1
                if self._first_refused > _MAX_FIRST_REFUSED:
                    raise unusable_input(f"The database refuses the vectors: {error}.") from None
                return [Refused(batch.column("id")[0].as_py(), str(error))]
            half = batch.num_rows // 2
            return [*self._upsert(batch.slice(0, half)), *self._upsert(batch.slice(half))]
        self._has_stored = self._has_stored or len(refused) < batch.num_rows
        return refused

    def _insist(self, work: Callable[[], T]) -> T:
        pause, paused = _FIRST_PAUSE_SECONDS, 0.0
        while True:
            try:
                result = work()
            except Unavailable as error:
                if paused >= PATIENCE_SECONDS:
                    raise JobStopped(
                        f"The database does not answer: {error}.",
                        remedy="Run the same command again: it continues.",
                        cause=Cause.UPSTREAM_FAILED,
                    ) from None
                self.progress.waiting_for = str(error)
                self._sleep(pause)
                paused, pause = paused + pause, min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                self.progress.waiting_for = None
                return result

    def _report(self, refused: Sequence[Refused]) -> None:
        if refused:
            with self.failures.open("ab") as file:
                for one in refused:
                    file.write(msgspec.json.encode({"id": one.id, "message": one.message}) + b"\n")

    def _show(self, record: LoadRecord) -> None:
        self.progress.rows, self.progress.refused = record.position.rows, record.refused

    def _write(self, record: LoadRecord) -> None:
        with atomic_write(self._record_path) as file:
            file.write(msgspec.json.encode(record) + b"\n")


def _last_of_each_id(batch: pa.Table) -> pa.Table:
    """The batch without rows whose id comes again: databases reject it twice in one request."""
    last = {row_id: number for number, row_id in enumerate(batch.column("id").to_pylist())}
    return batch if len(last) == batch.num_rows else batch.take(sorted(last.values()))
