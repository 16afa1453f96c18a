"""A job on disk: the folder beside its output, who works in it, and how it stands.

vectors.parquet.job/
job.json         what is to be done, and what the input and the model were when it began
manifest.jsonl   what is done
state.json       how it ended, if it did
lock             held by the process that works on it; its text is the process's number
parts/           the vectors that are done, until they are joined, and what is joined of them
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

from hubgate.domain.errors import Cause
from hubgate.files import atomic_write, is_locked, take_lock
from hubgate.jobs.manifest import Totals, totals_of
from hubgate.jobs.rows import Columns, JobStopped

T = TypeVar("T")
ROWS_PER_REQUEST = 128
"""Unless the operator says otherwise. With 8 requests at once, a killed job repeats at most 1,024 rows."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: the same for all runs of a job. Paths are absolute."""

    input: str
    output: str
    endpoint: str
    text_field: str = "text"
    id_field: str | None = None
    keep: tuple[str, ...] = ()
    chunk: bool = False
    input_type: str = "document"
    rows_per_request: int = ROWS_PER_REQUEST

    @property
    def columns(self) -> Columns:
        """The fields of the input."""
        return Columns(self.text_field, self.id_field, self.keep)


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How it is done: each run may do it otherwise."""

    bulk: bool = True
    cached: bool = False
    concurrency: int = 8
    price_per_million_tokens: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The file `job.json`."""

    task: Task
    manner: Manner
    input: dict[str, Any]
    model: dict[str, Any]
    created_at: float
    expected_rows: int | None = None


class Status(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """It ended by itself, with a reason."""
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Its process was killed, or the machine went down."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The file `state.json`."""

    status: Status
    reason: str = ""
    at: float = 0.0
    """Seconds since the epoch."""
    worked_seconds: float = 0.0
    """Of all runs."""


class JobFolder:
    """The folder of the job that makes an output."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.job")
        self.id = blake2b(os.fsencode(output), digest_size=4).hexdigest()
        self.parts = self.path / "parts"
        self.manifest = self.path / "manifest.jsonl"
        self.failures = output.with_name(f"{output.name}.failed.jsonl")

    def plan(self) -> Plan | None:
        """What the job is, if there is one.

        Raises:
            JobStopped: its file cannot be read.
        """
        return self._read("job.json", Plan)

    def write_plan(self, plan: Plan) -> None:
        """Begin, or go on in another manner."""
        self._write("job.json", plan)

    def state(self) -> State:
        """How it stands."""
        if self.worker() is not None:
            return State(status=Status.RUNNING, worked_seconds=self.last_state().worked_seconds)
        return self.last_state()

    def write_state(self, status: Status, reason: str = "", *, worked: float = 0.0) -> None:
        """Say how it ended, after so many more seconds of work."""
        seconds = self.last_state().worked_seconds + worked
        self._write("state.json", State(status=status, reason=reason, at=time.time(), worked_seconds=seconds))

    def totals(self) -> Totals:
        """What is done, also while another process does it."""
        return totals_of(self.manifest)

    @contextlib.contextmanager
    def held(self, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Work on it, alone. If there is no job in it at the end, the folder goes.

        Raises:
            JobStopped: another process does.
            OSError: the folder cannot be made.
        """
        self.path.mkdir(exist_ok=True)
        lock = take_lock(self.path / "lock", mode=0o644, sleep=sleep)
        if lock is None:
            raise JobStopped(
                f"Another process works on {self.output}.",
                remedy=f"`hubgate job show {self.id}` tells how far it is.",
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
        """The process that works on it, if one does; one that has only just begun is not told yet."""
        lock = self.path / "lock"
        try:
            return int(lock.read_bytes() or 0) or None if is_locked(lock) else None
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """Forget all that was done, but not the output. For who holds it."""
        for name in ("state.json", "manifest.jsonl", "job.json"):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)
        self.failures.unlink(missing_ok=True)

    def last_state(self) -> State:
        """How it stood when somebody last worked on it: for who holds it."""
        return self._read("state.json", State) or State(status=Status.INTERRUPTED)

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise JobStopped(
                f"{self.path / name} cannot be read: {error}.",
                remedy="It is of another version of hubgate, or damaged: start anew with --overwrite.",
            ) from error

    def _write(self, name: str, value: object) -> None:
        with atomic_write(self.path / name) as file:
            file.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
