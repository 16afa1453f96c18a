"""What a job does on the cluster: prepare it, embed a split, finish it. Plain functions, which know nothing of Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.manifest import Record, Totals
from hubgate.features.bulk.engine.requests import ShardRequests
from hubgate.features.bulk.engine.retries import PATIENCE_SECONDS, RetryingEmbedder
from hubgate.features.bulk.engine.rows import Embedded, Embedder, FailedRow, JobStopped, Layout
from hubgate.features.bulk.engine.runner import check_model
from hubgate.features.bulk.folder import Task
from hubgate.features.bulk.formats.inputs import compare_identity, input_changed
from hubgate.features.bulk.formats.parquet import ParquetSink
from hubgate.features.bulk.job import compare_tasks
from hubgate.features.bulk.ray.parts import PartRecord, encode_part, part_name, read_record, read_records
from hubgate.features.bulk.ray.splits import Split, SplitSource, plan_splits
from hubgate.features.bulk.ray.storage import InputFile, OutputFolder, list_inputs

ROWS_PER_TASK = 8192
"""By default. When a node dies, at most this number of rows is sent again for each task that ran on it."""
_JOB, _FAILED, _DONE = "_job.json", "_failed.jsonl", "_SUCCESS"


class RayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The file `_job.json`. All runs of the job follow it."""

    task: Task
    rows_per_task: int
    model: dict[str, Any]
    files: list[InputFile]
    splits: list[Split]
    created_at: float

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    def work(self, split: Split) -> Work:
        return Work(self.task, self.model, self.files[split.file], split)


class Prepared(NamedTuple):
    """A job that can start or continue."""

    plan: RayPlan
    missing: list[Split]
    done: Totals
    """Of the parts that exist."""
    is_complete: bool


class Report(NamedTuple):
    """How far a split is."""

    totals: Totals
    waiting_for: str | None = None


def prepare(task: Task, model: Mapping[str, Any], rows_per_task: int | None, *, overwrite: bool) -> Prepared:
    """Plan a job, or find the plan of earlier runs and what they have left to do.

    Raises:
        JobStopped: the job cannot start or continue.
    """
    folder = OutputFolder(task.output)
    names = folder.names()
    if overwrite:
        # The plan last: if this is interrupted, the rest is known to be of the earlier job.
        for name in [*sorted(names - {_JOB}), _JOB]:
            if name.startswith("part-") or name in {_JOB, _FAILED, _DONE}:
                folder.delete(name)
        names = set()
    if _JOB not in names:
        if names:
            raise JobStopped(
                f"The output {task.output} has files that are not of this job.",
                remedy="Choose another folder, or use --overwrite, which deletes earlier parts.",
                cause=Cause.INVALID_REQUEST,
            )
        folder.create(_JOB, msgspec.json.encode(_plan(task, model, rows_per_task or ROWS_PER_TASK)))
    plan = _read_plan(folder)  # also if another driver was first
    compare_tasks(plan.task, task)
    if rows_per_task not in {None, plan.rows_per_task}:
        raise JobStopped(
            f"The job for {task.output} was started with {plan.rows_per_task} rows per task, not {rows_per_task}.",
            remedy="Continue without --rows-per-task, or start over with --overwrite.",
            cause=Cause.INVALID_REQUEST,
        )
    check_model(plan.model, model)
    _compare_files(plan.files, list_inputs(task.input))
    return _prepared(folder, plan, names)


def find_prepared(place: str) -> Prepared:
    """The job whose output is in a folder, and how far it is.

    Raises:
        JobStopped: there is none, or it cannot be read.
    """
    folder = OutputFolder(place)
    names = folder.names()
    if _JOB not in names:
        raise JobStopped(
            f"{place} is not the output of a job on Ray: it has no {_JOB}.",
            remedy="Name the folder that was the job's OUT.",
            cause=Cause.NOT_FOUND,
        )
    return _prepared(folder, _read_plan(folder), names)


def _prepared(folder: OutputFolder, plan: RayPlan, names: Collection[str]) -> Prepared:
    made = [part_name(split) for split in plan.splits if part_name(split) in names]
    done = Totals()
    for record in read_records(folder, made):
        done.include(record.totals)
    missing = [split for split in plan.splits if part_name(split) not in names]
    return Prepared(plan, missing, done, _DONE in names and not missing)


def _plan(task: Task, model: Mapping[str, Any], rows_per_task: int) -> RayPlan:
    files, splits = plan_splits(task.input, task.columns, rows_per_task)
    return RayPlan(
        task=task,
        rows_per_task=rows_per_task,
        model=dict(model),
        files=files,
        splits=splits,
        created_at=time.time(),
    )


def _read_plan(folder: OutputFolder) -> RayPlan:
    """The plan of a job. Raises: JobStopped."""
    try:
        return msgspec.json.decode(folder.read(_JOB), type=RayPlan)
    except msgspec.MsgspecError as error:
        raise JobStopped(
            f"{folder.place}/{_JOB} cannot be read: {error}.",
            remedy="It is damaged or from another version of hubgate: start over with --overwrite.",
        ) from error


def _compare_files(then: list[InputFile], now: list[InputFile]) -> None:
    name = "the number of its files"
    compare_identity({name: len(then)}, {name: len(now)})
    for before, after in zip(then, now, strict=True):
        if before != after:
            raise input_changed(f"{after.uri} is not the file it was when the job started")


class Work(NamedTuple):
    """What a task has to know of a job."""

    task: Task
    model: Mapping[str, Any]
    file: InputFile
    split: Split


async def embed_split(
    work: Work,
    embedder: Embedder,
    *,
    concurrency: int,
    report: Callable[[Report], None] = lambda _: None,
    patience: float = PATIENCE_SECONDS,
) -> Totals:
    """Make the part of a split, unless it exists. Returns its totals.

    Args:
        work: what to embed.
        embedder: sends the requests.
        concurrency: requests in flight.
        report: called after each request, and when the split begins or ends to wait.
        patience: seconds without a successful request after which the job stops.

    Raises:
        JobStopped: the job cannot continue.
    """
    task, model, file, split = work
    folder, name = OutputFolder(task.output), part_name(split)
    if folder.has(name):  # made by an attempt whose node died before it returned
        return read_record(folder, name).totals
    source = SplitSource(file, split, task.columns)
    ids, kept = source.layout
    layout = Layout(model["dimensions"], task.chunk, ids, kept, task.output_dtype)
    made = _Made(ParquetSink(layout), report)
    with ThreadPoolExecutor(1, "split-reader") as reader:
        await ShardRequests(
            source=source,
            layout=layout,
            embedder=RetryingEmbedder(
                embedder, clock=time.monotonic, patience=patience, on_wait=made.on_wait
            ),
            rows_per_request=task.rows_per_request,
            concurrency=concurrency,
            is_done=lambda _: False,
            keep=made.keep,
            reader=reader,
        ).run()

        def store() -> Totals:
            source.check_unchanged()
            return made.totals if folder.create(name, made.part()) else read_record(folder, name).totals

        return await asyncio.get_running_loop().run_in_executor(reader, store)


@dataclass(slots=True)
class _Made:
    """What is done of a split."""

    sink: ParquetSink
    report: Callable[[Report], None]
    totals: Totals = field(default_factory=Totals)
    shards: dict[int, bytes | memoryview] = field(default_factory=dict)
    failed: list[FailedRow] = field(default_factory=list)

    async def keep(self, record: Record, embedded: Embedded) -> None:
        self.totals.add(record)
        self.failed.extend(record.failed)
        if record.pieces:
            self.shards[record.shard] = self.sink.encode(embedded)
        self.report(Report(msgspec.structs.replace(self.totals)))

    def on_wait(self, reason: str | None) -> None:
        if reason is not None:
            self.report(Report(msgspec.structs.replace(self.totals), reason))

    def part(self) -> bytes:
        record = PartRecord(self.totals, sorted(self.failed, key=lambda row: row.row))
        return encode_part(self.sink, (self.shards[number] for number in sorted(self.shards)), record)


def finish(plan: RayPlan) -> Totals:
    """Write the file of failed rows, and mark the output as complete.

    Raises:
        JobStopped: a part is missing or cannot be read.
    """
    folder = OutputFolder(plan.task.output)
    totals = Totals()
    records = read_records(folder, (part_name(split) for split in plan.splits))
    with folder.writing(_FAILED) as file:
        for record in records:
            totals.include(record.totals)
            file.writelines(_lines(record.failed))
    if not totals.failed:
        folder.delete(_FAILED)
    folder.create(_DONE, msgspec.json.encode(totals))
    return totals


def _lines(failed: Iterable[FailedRow]) -> Iterable[bytes]:
    return (msgspec.json.encode(row) + b"\n" for row in failed)
