"""Runs a job on this machine: each shard is stored whole or not at all."""

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
from hubgate.features.bulk.engine.manifest import Manifest, Record, Totals
from hubgate.features.bulk.engine.requests import ShardRequests
from hubgate.features.bulk.engine.retries import RetryingEmbedder
from hubgate.features.bulk.engine.rows import Embedded, JobStopped, Layout, Shard, Sink, Source
from hubgate.features.bulk.engine.shards import ShardFile
from hubgate.features.bulk.folder import JobFolder
from hubgate.features.bulk.formats.inputs import input_changed
from hubgate.files import atomic_write

T = TypeVar("T")
_DISK_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "the maximum file size is reached",
}
_RECENT_SECONDS = 60.0


@dataclass(slots=True)
class Progress:
    """How far a job is. Read by whoever shows it."""

    totals: Totals
    """Of all runs of the job, with shards that are not on disk yet."""
    expected_rows: int | None = None
    waiting_for: str | None = None
    is_writing_output: bool = False
    clock: Clock = time.monotonic
    _started: float = field(init=False)
    _recent: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    """When shards were answered, and their rows."""

    def __post_init__(self) -> None:
        self._started = self.clock()

    def add(self, record: Record) -> None:
        """Count a shard that was answered in this run."""
        self.totals.add(record)
        self._recent.append((self.clock(), record.rows))

    def update(self, totals: Totals) -> None:
        """Set the totals, as counted elsewhere."""
        self._recent.append((self.clock(), totals.rows - self.totals.rows))
        self.totals = totals

    @property
    def rate(self) -> float:
        """Rows per second in the last minute of this run."""
        now = self.clock()
        while self._recent and self._recent[0][0] <= now - _RECENT_SECONDS:
            self._recent.popleft()
        return sum(rows for _, rows in self._recent) / max(min(now - self._started, _RECENT_SECONDS), 0.001)


class _Answered(NamedTuple):
    """A shard that was answered and is not on disk yet."""

    record: Record
    """Without `part`."""
    embedded: Embedded


@dataclass(slots=True, kw_only=True)
class Runner:
    """One run of a job.

    Args:
        folder: of the job; the caller holds its lock.
        model: the facts of the model when the job started.
    """

    folder: JobFolder
    source: Source
    sink: Sink
    layout: Layout
    manifest: Manifest
    embedder: RetryingEmbedder
    progress: Progress
    model: Mapping[str, Any]
    rows_per_request: int
    concurrency: int
    _shards: ShardFile = field(init=False)
    _reader: ThreadPoolExecutor = field(init=False)
    _writer: ThreadPoolExecutor = field(init=False)
    _answered: dict[int, _Answered] = field(default_factory=dict, init=False)
    _commit_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _shard_count: int = field(default=0, init=False)
    _is_cancelled: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._shards = ShardFile(self.folder.shards)
        # One thread writes shards, manifest and output in turn, so that the event loop never waits for the disk.
        self._reader = ThreadPoolExecutor(1, "job-reader")
        self._writer = ThreadPoolExecutor(1, "job-writer")

    async def run(self) -> None:
        """Embed the shards that are not done, then write the output. After a cancellation, another run continues.

        Raises:
            JobStopped: the job cannot continue.
        """
        with self._reader, self._writer:
            requests = ShardRequests(
                source=self.source,
                layout=self.layout,
                embedder=self.embedder,
                rows_per_request=self.rows_per_request,
                concurrency=self.concurrency,
                is_done=self._is_done,
                keep=self._keep,
                reader=self._reader,
            )
            self._shard_count = await requests.run()
            await self._finish()

    async def _finish(self) -> None:
        """Write the output, if input and model are still the same."""
        self.source.check()
        check_model(self.model, await self.embedder.model())
        self.progress.is_writing_output = True
        try:
            await self._in(self._writer, self._write_output)
        except asyncio.CancelledError:
            self._is_cancelled = True
            raise

    def _write_output(self) -> None:
        with report_disk_errors(), atomic_write(self.folder.output, self.folder.draft) as file:
            self.sink.write(file, self._finished_shards())

    def _finished_shards(self) -> Iterator[bytes]:
        for number in range(self._shard_count):
            if self._is_cancelled:  # a thread cannot be cancelled, and the caller waits for it
                raise asyncio.CancelledError
            if (place := self.manifest.done[number].part) is not None:
                yield self._shards.read(place)

    def _is_done(self, shard: Shard) -> bool:
        """Whether an earlier run has finished this shard.

        Raises:
            JobStopped: it has, with other rows.
        """
        self.progress.expected_rows = self.source.expected_rows
        done = self.manifest.done.get(shard.number)
        if done is None:
            return False
        if done.digest != shard.digest:
            first = shard.rows[0].number if shard.rows else shard.failed[0].row
            raise input_changed(f"row {first} or one of the {shard.size - 1} rows after it is different")
        if done.part is not None and not self._shards.has(done.part):
            self.progress.totals.add(self.manifest.forget(shard.number), -1)
            return False
        return True

    async def _keep(self, record: Record, embedded: Embedded) -> None:
        """Put a shard on disk. Shards that are answered during a write share the next one."""
        self.progress.add(record)
        number = record.shard
        self._answered[number] = _Answered(record, embedded)
        async with self._commit_lock:
            if number in self._answered:
                await self._in(self._writer, partial(self._write, list(self._answered.values())))

    def _write(self, shards: Sequence[_Answered]) -> None:
        """First the vectors, then the lines of the manifest that point to them."""
        with report_disk_errors():
            places = iter(
                self._shards.append(self.sink.encode(one.embedded) for one in shards if one.record.pieces)
            )
            self.manifest.add(
                [
                    msgspec.structs.replace(one.record, part=next(places))
                    if one.record.pieces
                    else one.record
                    for one in shards
                ]
            )
        for one in shards:
            self._answered.pop(one.record.shard, None)

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def check_model(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that the model is the one that the job started with.

    Raises:
        JobStopped: it is not; the message says what differs.
    """
    for name in then:
        if then[name] != now.get(name):
            raise JobStopped(
                f"The endpoint has changed since the job started: its {name} was {then[name]} and is now {now.get(name)}.",
                remedy="One file cannot contain vectors of two models. Start over with --overwrite.",
                cause=Cause.MODEL_CHANGED,
            )


@contextmanager
def report_disk_errors() -> Iterator[None]:
    """Turn an OSError into a reason to stop.

    Raises:
        JobStopped: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK_FULL.get(error.errno or 0, error.strerror or str(error))
        where = f" ({error.filename})" if error.filename else ""
        raise JobStopped(
            f"The output cannot be written: {reason}{where}.",
            remedy="Free up space, and run the same command again: finished work is kept.",
            cause=Cause.STORE_FAILED,
        ) from error
