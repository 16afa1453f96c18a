"""From a task to its output: a job that begins, or goes on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hubgate.domain.errors import Cause, HubgateError
from hubgate.files import atomic_write
from hubgate.jobs.failures import PATIENCE, Asking
from hubgate.jobs.folder import JobFolder, Manner, Plan, Status, Task
from hubgate.jobs.formats import check_output, open_sink, open_source
from hubgate.jobs.inputs import compare_identity
from hubgate.jobs.manifest import Manifest
from hubgate.jobs.rows import Embedder, JobStopped, Layout, Source
from hubgate.jobs.runner import Progress, Work, check_model, work, written

_END_OF: dict[type[BaseException], str] = {asyncio.CancelledError: "It was interrupted."}


@dataclass(slots=True)
class Job:
    """A task to be done, or to go on with. The caller holds its folder.

    Args:
        task: what is to be done.
        manner: how.
        overwrite: begin anew, whatever an earlier job has left.
        patience: seconds without any answer after which it stops.
    """

    task: Task
    manner: Manner
    overwrite: bool = False
    patience: float = PATIENCE

    @property
    def folder(self) -> JobFolder:
        """Where it is kept."""
        return JobFolder(Path(self.task.output))

    def check(self) -> None:
        """Look whether the output can be written at all; its folder need not be held for that.

        Raises:
            JobStopped: it cannot.
        """
        check_output(Path(self.task.output), self.task.columns, chunked=self.task.chunk)
        source = Path(self.task.input)
        for goal in (self.folder.output, self.folder.failures):
            if source.exists() and goal.exists() and goal.samefile(source):
                raise JobStopped(
                    f"The input {source} is {goal}, which the job would replace.",
                    remedy="Choose another output.",
                    cause=Cause.INVALID_REQUEST,
                )

    def open(self) -> tuple[Source, bool]:
        """Open the input, and look whether the job is done already.

        Raises:
            JobStopped: the task cannot be done as it is; nothing was changed.
        """
        task, folder = self.task, self.folder
        source = open_source(Path(task.input), task.columns)
        if self.overwrite:
            folder.clear()
        plan = folder.plan()
        there = folder.output.exists()
        if plan is None:
            if there and not self.overwrite:
                raise JobStopped(
                    f"The output {folder.output} exists already.",
                    remedy="Choose another one, or give --overwrite.",
                    cause=Cause.INVALID_REQUEST,
                )
            return source, False
        _compare_task(plan.task, task)
        compare_identity(plan.input, source.identity())
        done = folder.last_state().status is Status.DONE
        if done and not there:  # its output was taken away: it is to be made again
            folder.clear()
            done = False
        if done:
            shutil.rmtree(folder.parts, ignore_errors=True)
        return source, done

    async def run(self, source: Source, embedder: Embedder, progress: Progress) -> None:
        """Do what is left to do.

        Raises:
            HubgateError: it could not be done; how it stands is written down, and the same call goes on.
        """

        def on_wait(reason: str | None) -> None:
            progress.waiting_for = reason

        folder, started = self.folder, time.monotonic()
        asking = Asking(embedder, clock=time.monotonic, patience=self.patience, on_wait=on_wait)
        model = await asking.model()
        with written():
            self._begin(source, model)
            manifest = Manifest(folder.manifest)
        try:
            await self._work(source, asking, manifest, progress, model)
        except BaseException as error:
            reason = (
                str(error)
                if isinstance(error, HubgateError)
                else _END_OF.get(type(error), "hubgate made a mistake.")
            )
            with contextlib.suppress(JobStopped):  # a full disk takes no note of why it stopped
                self._end(manifest, Status.STOPPED, reason, started)
            raise
        else:
            self._end(manifest, Status.DONE, "", started)
        finally:
            manifest.close()
        shutil.rmtree(folder.parts)

    def _end(self, manifest: Manifest, status: Status, reason: str, started: float) -> None:
        with written():
            _write_failures(self.folder, manifest)
            self.folder.write_state(status, reason, worked=time.monotonic() - started)

    def _begin(self, source: Source, model: Mapping[str, Any]) -> None:
        """Write down what it is, unless it goes on; then the endpoint must be what it was.

        Raises:
            JobStopped: it is not.
        """
        folder = self.folder
        plan = folder.plan()
        if plan is None:
            plan = Plan(
                task=self.task,
                manner=self.manner,
                input=dict(source.identity()),
                model=dict(model),
                created_at=time.time(),
                expected_rows=source.expected_rows,
            )
        else:
            check_model(plan.model, model)
        folder.write_plan(msgspec.structs.replace(plan, manner=self.manner))
        folder.write_state(Status.INTERRUPTED)  # which is what it is, if nothing else is written

    async def _work(
        self,
        source: Source,
        asking: Asking,
        manifest: Manifest,
        progress: Progress,
        model: Mapping[str, Any],
    ) -> None:
        ids, kept = source.layout
        layout = Layout(model["dimensions"], self.task.chunk, ids, kept)
        progress.totals = msgspec.structs.replace(manifest.totals)
        progress.expected_rows = source.expected_rows
        with written():
            sink = open_sink(self.folder.output, self.folder.parts, layout)
        await work(
            Work(
                source=source,
                sink=sink,
                manifest=manifest,
                asking=asking,
                progress=progress,
                model=model,
                rows_per_request=self.task.rows_per_request,
                concurrency=self.manner.concurrency,
            )
        )


def _compare_task(then: Task, now: Task) -> None:
    for name in Task.__struct_fields__:
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            raise JobStopped(
                f"The job that makes {then.output} was begun with another {name.replace('_', ' ')}: {_told(before)}, not {_told(after)}.",
                remedy="Go on with the command that it was begun with, or start anew with --overwrite.",
                cause=Cause.INVALID_REQUEST,
            )


def _told(option: object) -> str:
    match option:
        case tuple():
            return ", ".join(option) or "none"
        case bool():
            return "yes" if option else "no"
        case _:
            return "none" if option is None else str(option)


def _write_failures(folder: JobFolder, manifest: Manifest) -> None:
    """The file of failed rows, in the order of the input; none if there are none."""
    if not manifest.totals.failed:
        folder.failures.unlink(missing_ok=True)
        return
    with atomic_write(folder.failures) as file:
        for failed in manifest.failures():
            file.write(msgspec.json.encode(failed) + b"\n")
