"""Jobs on disk: the folder beside each output, and the list of jobs that a home keeps.

vectors.parquet.job/
    job.json         the task, and facts about the input and the model when the job started
    manifest.jsonl   the finished shards
    shards           their vectors, until the output is written
    output           the draft of the output
    state.json       how the last run ended
    lock             held while a process works on the job; contains its process id
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hubgate.domain.endpoint import OutputDtype
from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.manifest import Totals, read_totals
from hubgate.features.bulk.engine.rows import Columns, JobStopped
from hubgate.files import atomic_write, is_locked, take_lock

T = TypeVar("T")
ROWS_PER_REQUEST = 128
"""By default. With 8 concurrent requests, a killed job repeats at most 1,024 rows."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a job does: the same in all its runs. Paths are absolute."""

    input: str
    output: str
    endpoint: str
    text_field: str = "text"
    id_field: str | None = None
    keep: tuple[str, ...] = ()
    chunk: bool = False
    input_type: str = "document"
    output_dtype: OutputDtype = OutputDtype.FLOAT
    rows_per_request: int = ROWS_PER_REQUEST

    @property
    def columns(self) -> Columns:
        return Columns(self.text_field, self.id_field, self.keep)


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a run does it: the next run may do it differently."""

    bulk: bool = True
    cached: bool = False
    concurrency: int = 8
    price_per_million_tokens: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True, rename={"options": "manner"}):
    """The file `job.json`."""

    task: Task
    options: RunOptions
    input: dict[str, Any]
    model: dict[str, Any]
    created_at: float
    expected_rows: int | None = None


class Status(StrEnum):
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """It ended with an error, which is the reason in its state."""
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Its process was killed, or the machine went down."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The file `state.json`."""

    status: Status
    reason: str = ""
    at: float = 0.0
    """Unix time."""
    worked_seconds: float = 0.0
    """Of all runs."""


class JobFolder:
    """The folder of the job that makes an output."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.job")
        self.id = blake2b(os.fsencode(output), digest_size=4).hexdigest()
        self.shards = self.path / "shards"
        self.draft = self.path / "output"
        self.manifest = self.path / "manifest.jsonl"
        self.failures = output.with_name(f"{output.name}.failed.jsonl")

    def plan(self) -> Plan | None:
        """The plan; `None` if there is no job.

        Raises:
            JobStopped: its file cannot be read.
        """
        return self._read("job.json", Plan)

    def write_plan(self, plan: Plan) -> None:
        self._write("job.json", plan)

    def state(self) -> State:
        """The state now."""
        if self.worker() is not None:
            return State(status=Status.RUNNING, worked_seconds=self.last_state().worked_seconds)
        return self.last_state()

    def last_state(self) -> State:
        """The state that the last run left; does not look whether a process works on the job."""
        return self._read("state.json", State) or State(status=Status.INTERRUPTED)

    def write_state(self, status: Status, reason: str = "", *, worked: float = 0.0) -> None:
        """Record how a run ended; `worked` is its duration in seconds."""
        seconds = self.last_state().worked_seconds + worked
        self._write("state.json", State(status=status, reason=reason, at=time.time(), worked_seconds=seconds))

    def totals(self) -> Totals:
        """The sums of the finished shards, also while another process works on the job."""
        return read_totals(self.manifest)

    @contextlib.contextmanager
    def locked(self, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Hold the job's lock. The folder is deleted afterwards if it contains no job.

        Raises:
            JobStopped: another process holds the lock.
            OSError: the folder cannot be created.
        """
        self.path.mkdir(exist_ok=True)
        lock = take_lock(self.path / "lock", mode=0o644, sleep=sleep)
        if lock is None:
            raise JobStopped(
                f"Another process is working on {self.output}.",
                remedy=f"`hubgate job show {self.id}` shows its progress.",
                cause=Cause.INVALID_REQUEST,
            )
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d" % os.getpid(), 0)
            try:
                yield
            finally:
                if not (self.path / "job.json").exists():
                    shutil.rmtree(self.path)
        finally:
            os.close(lock)

    def worker(self) -> int | None:
        """The id of the process that works on the job; `None` also in the moment before it has written its id."""
        lock = self.path / "lock"
        try:
            return int(lock.read_bytes() or 0) or None if is_locked(lock) else None
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """Delete all that was done, but not the output. The caller holds the lock."""
        for name in ("state.json", "manifest.jsonl", "job.json"):
            (self.path / name).unlink(missing_ok=True)
        self.delete_shards()
        self.failures.unlink(missing_ok=True)

    def delete_shards(self) -> None:
        """Delete the vectors that were kept for the output."""
        self.shards.unlink(missing_ok=True)

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise JobStopped(
                f"{self.path / name} cannot be read: {error}.",
                remedy="It is damaged or from another version of hubgate: start over with --overwrite.",
            ) from error

    def _write(self, name: str, value: object) -> None:
        with atomic_write(self.path / name) as file:
            file.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")


class JobRegistry:
    """The jobs of a home: a file `jobs/ID` for each, with the path of its output."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "jobs"

    def add(self, job: JobFolder) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(self._folder / job.id) as file:
            file.write(os.fsencode(job.output))

    def remove(self, job: JobFolder) -> None:
        (self._folder / job.id).unlink(missing_ok=True)

    def list(self) -> list[JobFolder]:
        """The jobs whose folders exist and can be read, oldest first."""
        plans = []
        for job in self._registered():
            with contextlib.suppress(JobStopped):  # `find` reports why it cannot be read
                if (plan := job.plan()) is not None:
                    plans.append((plan.created_at, job.id, job))
        return [job for *_, job in sorted(plans, key=lambda one: one[:2])]

    def find(self, name: str) -> JobFolder:
        """A job by its id, or by the path of its output.

        Raises:
            JobStopped: there is none, or it cannot be read.
        """
        job = next((job for job in self._registered() if job.id == name), None)
        job = job or JobFolder(Path(name).absolute())
        if job.plan() is None:
            raise JobStopped(
                f"No job [{name[:200]}].", remedy="`hubgate job list` lists them.", cause=Cause.NOT_FOUND
            )
        return job

    def _registered(self) -> Iterator[JobFolder]:
        for entry in self._folder.glob("[0-9a-f]*") if self._folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # removed a moment ago
                yield JobFolder(Path(os.fsdecode(entry.read_bytes())))
