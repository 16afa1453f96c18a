"""A job at work: so many shards are asked at once, and each is done or was never begun."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from hubgate.domain.errors import Cause
from hubgate.domain.ports import Clock
from hubgate.jobs.failures import Asked, Asking
from hubgate.jobs.inputs import input_changed, unusable_input
from hubgate.jobs.joiner import Joining
from hubgate.jobs.manifest import Manifest, Record, Totals
from hubgate.jobs.rows import Embedded, JobStopped, Shard, Sink, Source
from hubgate.jobs.shards import cut

T = TypeVar("T")
_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the largest size of a file is reached",
}
_RECENT_SECONDS = 60.0


@dataclass(slots=True)
class Progress:
    """How far a job is; read by whoever shows it."""

    totals: Totals
    """What was answered, in all runs of the job."""
    expected_rows: int | None = None
    waiting_for: str | None = None
    joining: bool = False
    clock: Clock = time.monotonic
    _started: float = field(init=False)
    _recent: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    """When rows were answered, and how many."""

    def __post_init__(self) -> None:
        self._started = self.clock()

    def answered(self, record: Record) -> None:
        """Count a shard that was answered in this run, whether or not it is on disk yet."""
        self.totals.add(record)
        self._recent.append((self.clock(), record.rows))

    @property
    def rate(self) -> float:
        """Rows per second in the last minute of this run."""
        now = self.clock()
        while self._recent and self._recent[0][0] <= now - _RECENT_SECONDS:
            self._recent.popleft()
        return sum(rows for _, rows in self._recent) / max(min(now - self._started, _RECENT_SECONDS), 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The parts of a job that is to run."""

    source: Source
    sink: Sink
    manifest: Manifest
    asking: Asking
    progress: Progress
    model: Mapping[str, Any]
    """What the model was when the job began."""
    rows_per_request: int
    concurrency: int


async def work(job: Work) -> None:
    """Ask for what is not done, then make the output. Cancelled, or killed, it can be called again.

    Raises:
        JobStopped: it cannot go on; says why.
    """
    # One thread writes parts and the manifest, in one order; the loop never waits for a disk.
    with (
        ThreadPoolExecutor(1, "job-writer") as writer,
        ThreadPoolExecutor(1, "job-reader") as reader,
        Joining(job.sink) as joining,
    ):
        run = _Run(job, reader, writer, joining)
        try:
            await run.ask_all()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        await run.finish()


class _Run:
    def __init__(
        self, job: Work, reader: ThreadPoolExecutor, writer: ThreadPoolExecutor, joining: Joining
    ) -> None:
        self._job = job
        self._reader = reader
        self._writer = writer
        self._joining = joining
        self._slots = asyncio.Semaphore(job.concurrency)
        self._answered: dict[int, _Answered] = {}
        """Shards that are not on disk yet."""
        self._writing = asyncio.Lock()

    async def ask_all(self) -> None:
        """Every shard that is not done."""
        job = self._job
        shards = cut(job.source.rows(), job.rows_per_request)
        async with asyncio.TaskGroup() as requests:
            while (shard := await self._in(self._reader, lambda: self._next(shards))) is not None:
                job.progress.expected_rows = job.source.expected_rows
                if self._is_done(shard):
                    self._join(shard)
                    continue
                await self._slots.acquire()
                requests.create_task(self._ask(shard))

    async def finish(self) -> None:
        """Join the parts, once everything is still what it was."""
        job = self._job
        job.source.check()
        check_model(job.model, await job.asking.model())
        job.progress.joining = True
        await self._in(self._writer, self._publish)

    def _publish(self) -> None:
        with written():
            self._joining.finish()

    def _join(self, shard: Shard) -> None:
        self._joining.add(shard.number, self._job.manifest.done[shard.number].part)

    def _next(self, shards: Iterator[Shard]) -> Shard | None:
        try:
            shard = next(shards, None)
        except OSError as error:
            raise unusable_input(f"The input cannot be read: {error.strerror or error}.") from error
        self._job.source.check()  # after it was read: what is asked is what the file holds
        return shard

    def _is_done(self, shard: Shard) -> bool:
        """Whether it is, with the rows that it has now.

        Raises:
            JobStopped: it is, with others.
        """
        manifest = self._job.manifest
        done = manifest.done.get(shard.number)
        if done is None:
            return False
        if done.digest != shard.digest:
            first = shard.rows[0].number if shard.rows else shard.failed[0].row
            raise input_changed(f"row {first} or one of the {shard.size - 1} after it is not what it was")
        if done.part is not None and not self._job.sink.has(done.part):
            self._job.progress.totals.remove(manifest.forget(shard.number))
            return False
        return True

    async def _ask(self, shard: Shard) -> None:
        try:
            asked = await self._job.asking(shard.rows)
            self._check_vectors(asked)
            record = _record(shard, asked)
            self._job.progress.answered(record)
            await self._commit(_Answered(record, asked.embedded))
            self._join(shard)
        finally:
            self._slots.release()

    def _check_vectors(self, asked: Asked) -> None:
        wanted = self._job.model["dimensions"] * 4
        for length in {len(piece.vector) for piece in asked.embedded.pieces} - {wanted}:
            raise JobStopped(
                f"The endpoint gave a vector of {length // 4} numbers, not of {wanted // 4}.",
                remedy="Another model answers there: `hubgate check` says more.",
                cause=Cause.DIMENSIONS_CHANGED,
            )

    async def _commit(self, answered: _Answered) -> None:
        """Put a shard on disk. Shards that are answered while others are written go together in the next write."""
        number = answered.record.shard
        self._answered[number] = answered
        async with self._writing:
            if number in self._answered:
                await self._in(self._writer, partial(self._write, list(self._answered.values())))

    def _write(self, shards: Sequence[_Answered]) -> None:
        """First the parts, then the lines that say that they are there."""
        job = self._job
        with written():
            parts = iter(job.sink.write(one.embedded for one in shards if one.record.pieces))
            records = [
                msgspec.structs.replace(one.record, part=next(parts)) if one.record.pieces else one.record
                for one in shards
            ]
            job.manifest.add(records)
        for one in shards:
            self._answered.pop(one.record.shard, None)

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


class _Answered(NamedTuple):
    """A shard that was answered."""

    record: Record
    """Without its part."""
    embedded: Embedded


def _record(shard: Shard, asked: Asked) -> Record:
    unread = [piece.tokens_unread for piece in asked.embedded.pieces]
    known = [tokens for tokens in unread if tokens is not None]
    return Record(
        shard=shard.number,
        digest=shard.digest,
        rows=shard.size,
        pieces=len(asked.embedded.pieces),
        tokens=asked.tokens,
        exact=asked.exact,
        part=None,
        failed=[*shard.failed, *asked.failed],
        truncated=sum(map(bool, known)) if len(known) == len(unread) else None,
        unread=sum(known),
    )


def check_model(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Look whether the model is the one that the job began with.

    Raises:
        JobStopped: it is not; says in what it differs.
    """
    for name in then:
        if then[name] != now.get(name):
            raise JobStopped(
                f"The endpoint is not what it was when the job began: its {name} was {then[name]}, and is {now.get(name)}.",
                remedy="Vectors of two models must not stand in one file. Start anew with --overwrite.",
                cause=Cause.MODEL_CHANGED,
            )


@contextmanager
def written() -> Iterator[None]:
    """What the disk says inside becomes a reason to stop.

    Raises:
        JobStopped: something cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = _NO_ROOM.get(error.errno or 0, error.strerror or str(error))
        where = f" ({error.filename})" if error.filename else ""
        raise JobStopped(
            f"The output cannot be written: {reason}{where}.",
            remedy="Make room, and run the same command again: what is done stays done.",
            cause=Cause.STORE_FAILED,
        ) from error
