"""A job from its task to its output: it starts, or continues where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hubgate.domain.errors import Cause, HubgateError
from hubgate.features.bulk.engine.manifest import Manifest
from hubgate.features.bulk.engine.retries import PATIENCE_SECONDS, RetryingEmbedder
from hubgate.features.bulk.engine.rows import Embedder, JobStopped, Layout, Source
from hubgate.features.bulk.engine.runner import Progress, Runner, check_model, report_disk_errors
from hubgate.features.bulk.folder import JobFolder, Plan, RunOptions, Status, Task
from hubgate.features.bulk.formats.formats import check_output, make_sink, open_source
from hubgate.features.bulk.formats.inputs import compare_identity
from hubgate.files import atomic_write


@dataclass(slots=True)
class Job:
    """A task to start or to continue. The caller holds the folder's lock.

    Args:
        task: what to do.
        options: how to do it.
        overwrite: start over, and discard the work of earlier runs.
        patience: seconds without a successful request after which the job stops.
    """

    task: Task
    options: RunOptions
    overwrite: bool = False
    patience: float = PATIENCE_SECONDS

    @property
    def folder(self) -> JobFolder:
        return JobFolder(Path(self.task.output))

    def check(self) -> None:
        """Check that the output can be written at all. Needs no lock.

        Raises:
            JobStopped: it cannot.
        """
        check_output(Path(self.task.output), self.task.columns, chunked=self.task.chunk)
        source = Path(self.task.input)
        for target in (self.folder.output, self.folder.failures):
            if source.exists() and target.exists() and target.samefile(source):
                raise JobStopped(
                    f"The input {source} is {target}, which the job would replace.",
                    remedy="Choose another output.",
                    cause=Cause.INVALID_REQUEST,
                )

    def open(self) -> tuple[Source, bool]:
        """Open the input, and return whether the job is already done.

        Raises:
            JobStopped: the job cannot start or continue; nothing was changed.
        """
        folder = self.folder
        source = open_source(Path(self.task.input), self.task.columns)
        if self.overwrite:
            folder.clear()
        plan = folder.plan()
        has_output = folder.output.exists()
        if plan is None:
            if has_output and not self.overwrite:
                raise JobStopped(
                    f"The output {folder.output} already exists.",
                    remedy="Choose another one, or use --overwrite.",
                    cause=Cause.INVALID_REQUEST,
                )
            return source, False
        compare_tasks(plan.task, self.task)
        compare_identity(plan.input, source.identity())
        is_done = folder.last_state().status is Status.DONE
        if is_done and not has_output:  # the output was deleted: make it again
            folder.clear()
            return source, False
        if is_done:
            folder.delete_shards()
        return source, is_done

    async def run(self, source: Source, embedder: Embedder, progress: Progress) -> None:
        """Do what is left to do.

        Raises:
            HubgateError: the job stopped. The reason is recorded, and another run continues.
        """

        def on_wait(reason: str | None) -> None:
            progress.waiting_for = reason

        started = time.monotonic()
        retrying = RetryingEmbedder(embedder, clock=time.monotonic, patience=self.patience, on_wait=on_wait)
        model = await retrying.model()
        with report_disk_errors():
            self._start(source, model)
            manifest = Manifest(self.folder.manifest)
        try:
            await self._run(source, retrying, manifest, progress, model)
        except BaseException as error:
            with contextlib.suppress(JobStopped):  # on a full disk the reason cannot be recorded
                self._end(manifest, Status.STOPPED, _reason(error), started)
            raise
        else:
            self._end(manifest, Status.DONE, "", started)
        finally:
            manifest.close()
        self.folder.delete_shards()

    def _start(self, source: Source, model: Mapping[str, Any]) -> None:
        """Write the plan. If the job continues, the model must be the same.

        Raises:
            JobStopped: it is not.
        """
        folder = self.folder
        plan = folder.plan()
        if plan is None:
            plan = Plan(
                task=self.task,
                options=self.options,
                input=dict(source.identity()),
                model=dict(model),
                created_at=time.time(),
                expected_rows=source.expected_rows,
            )
        else:
            check_model(plan.model, model)
        folder.write_plan(msgspec.structs.replace(plan, options=self.options))
        folder.write_state(Status.INTERRUPTED)  # what it is if nothing else is written

    async def _run(
        self,
        source: Source,
        embedder: RetryingEmbedder,
        manifest: Manifest,
        progress: Progress,
        model: Mapping[str, Any],
    ) -> None:
        ids, kept = source.layout
        progress.totals = msgspec.structs.replace(manifest.totals)
        progress.expected_rows = source.expected_rows
        layout = Layout(model["dimensions"], self.task.chunk, ids, kept, self.task.output_dtype)
        with report_disk_errors():
            runner = Runner(
                folder=self.folder,
                source=source,
                sink=make_sink(self.folder.output, layout),
                layout=layout,
                manifest=manifest,
                embedder=embedder,
                progress=progress,
                model=model,
                rows_per_request=self.task.rows_per_request,
                concurrency=self.options.concurrency,
            )
        await runner.run()

    def _end(self, manifest: Manifest, status: Status, reason: str, started: float) -> None:
        with report_disk_errors():
            _write_failures(self.folder, manifest)
            self.folder.write_state(status, reason, worked=time.monotonic() - started)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "It was interrupted."
    return str(error) if isinstance(error, HubgateError) else "Internal error in hubgate."


def compare_tasks(then: Task, now: Task) -> None:
    """Check that a task is the one that the job started with.

    Raises:
        JobStopped: it is not; the message says what differs.
    """
    for name in Task.__struct_fields__:
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            option = name.replace("_", " ")
            raise JobStopped(
                f"The job for {then.output} was started with a different {option}: {_format(before)}, not {_format(after)}.",
                remedy="Continue with the command that started it, or start over with --overwrite.",
                cause=Cause.INVALID_REQUEST,
            )


def _format(option: object) -> str:
    match option:
        case tuple():
            return ", ".join(option) or "none"
        case bool():
            return "yes" if option else "no"
        case _:
            return "none" if option is None else str(option)


def _write_failures(folder: JobFolder, manifest: Manifest) -> None:
    """Write the file of failed rows, in the order of the input; without failed rows, delete it."""
    if not manifest.totals.failed:
        folder.failures.unlink(missing_ok=True)
        return
    with atomic_write(folder.failures) as file:
        for failed in manifest.failures():
            file.write(msgspec.json.encode(failed) + b"\n")
