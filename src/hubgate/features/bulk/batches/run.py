"""One run of a batch: from where the last run stopped until it ends, or the gateway stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from hubgate.core.off_loop import shielded
from hubgate.domain.errors import Cause, StoreFailed
from hubgate.domain.records import Key
from hubgate.features.bulk.batches.files import Files
from hubgate.features.bulk.batches.model import Batch, BatchStatus, Fault
from hubgate.features.bulk.batches.output import output_file, write_output
from hubgate.features.bulk.batches.record import Answer, Record, final_answer
from hubgate.features.bulk.batches.rows import Row, check_rows, read_rows, read_some
from hubgate.features.bulk.batches.store import SqlBatches
from hubgate.web.http.internal import RowCaller, RowReply

CONCURRENCY = 64
"""Requests of one batch in flight. Many, so that the endpoint's queue can send small ones together."""
LEASE_SECONDS = 60.0
"""How long a batch belongs to a gateway that does not report any more."""
_BEAT_SECONDS = 2.0
_FLUSH_BEATS = 3
_PUBLISH_BEATS = 15
_SLOT_BYTES = 128 * 1024
"""A larger request takes several slots: a request takes a few times its size in memory."""
_RECENT_SECONDS = 60.0
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.5, 30.0
_MAX_SUSPECT_TRIES = 5
_FULL_SECONDS = 5.0
_MAX_UNCLEAN = 2
"""A batch that was at work when that many gateways in a row were killed is paused: it may be what kills them."""
_STEADY_SECONDS = 600.0
"""A batch at work for this long does not kill its gateway."""
_PAUSED = "paused"
_BUSY = frozenset({Cause.OVERLOADED, Cause.GATE_BUSY})
_FIRST_UNAVAILABLE = 424
"""Statuses below it say that the request is at fault."""
_UNANSWERED: dict[str, tuple[str, str]] = {
    _PAUSED: ("batch_paused", "The batch was paused before this request was answered."),
    BatchStatus.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was sent."),
    BatchStatus.EXPIRED: ("batch_expired", "The batch expired before this request was answered."),
}

_log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What runs of batches need."""

    store: SqlBatches
    files: Files
    call: RowCaller
    find_key: Callable[[str], Key | None]
    """The key with an id, unless it is revoked or expired."""
    clock: Callable[[], float]
    """Seconds since the epoch."""
    max_row_bytes: int
    notify: bool
    """Whether to send a webhook at the end."""


class _KeyGone(Exception):
    """The key of the batch was revoked or has expired."""


class _Leave(Exception):
    """The run gives its place back, and this request would have waited."""


@dataclass(slots=True)
class BatchRun:
    """One run of a claimed batch."""

    parts: Parts
    batch: Batch
    owner: str
    _record: Record | None = field(default=None, init=False)
    _asking: asyncio.Task[None] | None = field(default=None, init=False)
    """Cancelled when the batch is."""
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENCY), init=False)
    _limited: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    """Held by the request that waits for the limit of the key."""
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _unwritten: list[Answer] = field(default_factory=list, init=False)
    _recent: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    """Times and numbers of answered requests."""
    _answered: int = field(default=0, init=False)
    _leaving: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    answered_at: float = field(default_factory=time.monotonic, init=False)
    """The last time at which a request was answered, or the run began, on the monotonic clock."""
    began_at: float = field(default_factory=time.monotonic, init=False)
    """On the monotonic clock."""
    _waiting_for: str = field(default="", init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.parts.clock()

    async def work(self) -> None:
        """Continue the batch until it ends.

        Raises:
            ClaimLost: another gateway has taken it up.
            StoreFailed: the database or the disk cannot be used; another run continues.
        """
        beat = asyncio.create_task(self._beat())
        work = asyncio.create_task(self._continue())
        try:
            await asyncio.wait({beat, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (beat, work):
                if not task.done():
                    task.cancel()
            await asyncio.gather(beat, work, return_exceptions=True)
            await self._close_record()
            self.parts.files.room.close(self.batch.id)
        for task in (beat, work):
            if not task.cancelled():
                task.result()

    async def _close_record(self) -> None:
        if (record := self._record) is None:
            return
        if not self.batch.is_finished:
            # What is not stored is asked again, if another gateway continues.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(record.publish)
                self.batch = msgspec.structs.replace(self.batch, record=record.run)
        await asyncio.to_thread(record.close)

    def leave(self) -> None:
        """Give the place back to another batch. Requests in flight are completed; those that only wait are sent later."""
        self._leaving.set()

    @property
    def is_leaving(self) -> bool:
        return self._leaving.is_set()

    async def cancel(self) -> None:
        """Learn at once that the cancellation was requested here."""
        await self._save()

    async def _continue(self) -> None:
        try:
            if self.batch.unclean >= _MAX_UNCLEAN:
                await self._pause()
            if self.batch.status is BatchStatus.VALIDATING:
                await self._validate()
            if self.batch.status is BatchStatus.IN_PROGRESS:
                await self._ask()
            if self.batch.status is BatchStatus.FINALIZING:
                await self._finalize()
        except (OSError, msgspec.MsgspecError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "the input has changed"
            _log.error("batch %s: its files cannot be used: %s", self.batch.id, reason)
            message = f"The files of the batch cannot be used: {reason}."
            await self._end(BatchStatus.FAILED, Fault(code="file_unreadable", message=message))

    async def _pause(self) -> None:
        """End a batch that may be what kills its gateways. It keeps its answers, and can be resumed.

        The output is written as after a cancellation, unless that is what fails.
        """
        batch = self.batch
        began = batch.in_progress_at is not None
        resume = f"ask an admin to resume it: POST /api/jobs/{batch.id}/resume, or under Jobs in the console"
        message = (
            f"The batch is paused: hubgate was killed {batch.unclean} times in a row while it worked on it, perhaps for "
            f"lack of memory. See hubgate's log, then {resume if began else 'create the batch again'}."
        )
        fault = Fault(code=_PAUSED, message=message)
        if not began or batch.unclean > _MAX_UNCLEAN:
            await self._end(BatchStatus.FAILED, fault)
        elif batch.status is BatchStatus.IN_PROGRESS:
            record = await self._open_record()
            if record.completed + record.failed < batch.total:
                _log.error(
                    "batch %s: hubgate was killed %d times while it worked on it", batch.id, batch.unclean
                )
                await self._start_finalizing(record, *batch.faults, fault)

    async def _start_finalizing(self, record: Record, *faults: Fault) -> None:
        await self._change(
            status=BatchStatus.FINALIZING,
            finalizing_at=self.parts.clock(),
            faults=faults,
            completed=record.completed,
            failed=record.failed,
        )

    async def _validate(self) -> None:
        path = await asyncio.to_thread(self.parts.files.folder.fetch, self.batch.input_file)
        checked = await asyncio.to_thread(check_rows, path, self.batch.path, self.parts.max_row_bytes)
        if checked.faults:
            await self._end(BatchStatus.FAILED, *checked.faults)
            return
        await self._change(
            status=BatchStatus.IN_PROGRESS,
            in_progress_at=self.parts.clock(),
            total=checked.total,
            model=checked.model,
        )

    async def _ask(self) -> None:
        """Get an answer to each request, until all have one or the batch ends early."""
        record = await self._open_record()
        faults = self.batch.faults
        if self.batch.cancel_at is None:
            with contextlib.suppress(_KeyGone):
                await self._ask_until(self.batch.expires_at)
            if self._leaves(record):
                return
            if not self._has_key():
                message = "The key of the batch was revoked or has expired."
                faults = (*faults, Fault(code="key_revoked", message=message))
        await self._start_finalizing(record, *faults)

    def _leaves(self, record: Record) -> bool:
        """Whether another run continues, now that no request is in flight."""
        batch = self.batch
        is_over = batch.cancel_at is not None or self.parts.clock() >= batch.expires_at or not self._has_key()
        return self.is_leaving and not is_over and record.completed + record.failed < batch.total

    async def _ask_until(self, end: float) -> None:
        self._asking = asyncio.create_task(self._ask_all())
        try:
            await asyncio.wait({self._asking}, timeout=max(0.0, end - self.parts.clock()))
        finally:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        if not self._asking.cancelled():
            self._asking.result()

    async def _open_record(self) -> Record:
        if self._record is None:
            # A cancelled caller waits for the thread, so that the open file is known and gets closed.
            await shielded(asyncio.to_thread(self._open_record_file))
        assert self._record is not None  # noqa: S101 - the line above has set it
        return self._record

    def _open_record_file(self) -> None:
        batch, folder = self.batch, self.parts.files.folder
        rows = read_rows(folder.fetch(batch.input_file), self.parts.max_row_bytes)
        last = max((row.number for row in rows), default=0)
        self._record = Record(
            folder, batch.id, batch.record or batch.run, folder.fetch(output_file(batch)), last
        )

    async def _ask_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as requests:
                rows = self._rows()
                while batch := await asyncio.to_thread(read_some, rows):
                    for row in batch:
                        slots = min(CONCURRENCY, 1 + len(row.body) // _SLOT_BYTES)
                        for _ in range(slots):
                            await self._slots.acquire()
                        if self.is_leaving:
                            return
                        requests.create_task(self._ask_one(row, slots))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _rows(self) -> Iterator[Row]:
        """The requests that have no answer yet."""
        record, path = self._record, self.parts.files.folder.path(self.batch.input_file)
        for row in read_rows(path, self.parts.max_row_bytes):
            if record is not None and not record.has(row.number):
                yield row

    async def _ask_one(self, row: Row, slots: int) -> None:
        try:
            request_id = f"{self.batch.id}.{row.number}"
            reply = await self._answer(row, request_id)
            try:
                await self._write(final_answer(self.batch.id, row, reply, request_id))
            finally:
                reply.release()
            self._answered += 1
            self.answered_at = time.monotonic()
        except _Leave:
            pass
        finally:
            for _ in range(slots):
                self._slots.release()

    async def _answer(self, row: Row, request_id: str) -> RowReply:
        """Send a request until the gateway has a final answer.

        | response | reaction |
        |---|---|
        | a success, or a status that blames the request | it is the answer |
        | the key is over its limit | wait as long as the gateway says, one request at a time |
        | anything else, such as a paused endpoint | wait and retry until the batch expires |
        | the same five times, while other requests are answered | it is the answer |

        Raises:
            _KeyGone: the key may not call anything any more.
            _Leave: it would have to wait, and the run gives its place back.
        """
        before, tries, wait = self._answered, 0, _FIRST_WAIT_SECONDS
        while True:
            reply = await self._call(row, request_id)
            if reply.status < _FIRST_UNAVAILABLE:
                break
            tries += 1
            if tries >= _MAX_SUSPECT_TRIES and self._answered > before and reply.cause not in _BUSY:
                break
            reply.release()
            self._waiting_for = _message(reply.body)
            await self._sleep(max(wait, min(reply.retry_after or 0.0, _MAX_WAIT_SECONDS)))
            wait = min(wait * 2, _MAX_WAIT_SECONDS)
        self._waiting_for = ""
        return reply

    async def _call(self, row: Row, request_id: str) -> RowReply:
        if self._limited.locked():
            async with self._limited:
                pass
        reply = await self._send(row, request_id)
        if reply.cause != Cause.KEY_LIMIT:
            return reply
        async with self._limited:
            while reply.cause == Cause.KEY_LIMIT:
                self._waiting_for = _message(reply.body)
                await self._sleep(reply.retry_after or _FIRST_WAIT_SECONDS)
                reply = await self._send(row, request_id)
        return reply

    async def _sleep(self, seconds: float) -> None:
        """Raises: _Leave: the run gives its place back."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)
            raise _Leave

    async def _send(self, row: Row, request_id: str) -> RowReply:
        if self.is_leaving:
            raise _Leave
        key = self.parts.find_key(self.batch.key)
        if key is None:
            raise _KeyGone
        return await self.parts.call(key, self.batch.path, row.body, request_id)

    async def _write(self, answer: Answer) -> None:
        """Return when the answer is in the record. Answers that arrive during a write are written together."""
        self._unwritten.append(answer)
        async with self._writing:
            answers, self._unwritten = self._unwritten, []
            record = self._record
            if not answers or record is None:
                return
            while reason := await self._append(record, answers):
                self._waiting_for = reason
                await asyncio.sleep(_FULL_SECONDS)
        self._recent.append((self.parts.clock(), len(answers)))

    async def _append(self, record: Record, answers: Sequence[Answer]) -> str:
        """Append answers to the record, if there is room. Returns why they could not be appended, or nothing."""
        room, batch = self.parts.files.room, self.batch
        size = sum(len(answer.line) for answer in answers)
        try:
            if reason := await room.grow(batch.id, batch.key, record.size, size):
                return reason
            try:
                await shielded(asyncio.to_thread(record.append, answers))
            except OSError:
                room.shrink(batch.id, size)
                raise
        except (StoreFailed, OSError) as error:
            why = error.message if isinstance(error, StoreFailed) else f"{error.strerror}."
            return f"The folder for files cannot be written: {why}"
        return ""

    async def _finalize(self) -> None:
        """Write the output and the error file, then end the batch."""
        batch, files = self.batch, self.parts.files
        record = await self._open_record()
        status = BatchStatus.COMPLETED
        if record.completed + record.failed < batch.total:
            is_expired = batch.cancel_at is None and self.parts.clock() >= batch.expires_at
            status = BatchStatus.EXPIRED if is_expired else BatchStatus.CANCELLED
        missing = _UNANSWERED.get(_PAUSED if any(fault.code == _PAUSED for fault in batch.faults) else status)
        output, errors = await write_output(
            self.parts.store,
            files,
            batch,
            record,
            missing=missing,
            max_row_bytes=self.parts.max_row_bytes,
            clock=self.parts.clock,
        )
        await self._end(
            status,
            output_file=output,
            error_file=errors,
            completed=record.completed,
            failed=record.failed,
        )
        await asyncio.to_thread(files.folder.remove_parts, batch.id)
        files.room.drop(record.size)

    async def _end(self, status: BatchStatus, *faults: Fault, **values: Any) -> None:
        now = self.parts.clock()
        await self._change(
            status=status,
            faults=(*self.batch.faults, *faults),
            ended_at=now,
            rate=0.0,
            waiting_for="",
            notify_at=now if self.parts.notify else None,
            notified=0,
            **values,
        )
        _log.info(
            "batch %s: %s, %d of %d answered", self.batch.id, status, self.batch.completed, self.batch.total
        )

    async def _change(self, **values: Any) -> None:
        self.batch = msgspec.structs.replace(self.batch, **values)
        await self._save()

    def _has_key(self) -> bool:
        return self.parts.find_key(self.batch.key) is not None

    async def _beat(self) -> None:
        """Store the progress now and then, and learn about a cancellation and the end of the key.

        Raises:
            ClaimLost: another gateway has taken up the batch.
        """
        beats = 0
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            beats += 1
            try:
                if self._record is not None and beats % _FLUSH_BEATS == 0:
                    await asyncio.to_thread(self._record.flush)
                if self._record is not None and beats % _PUBLISH_BEATS == 0:
                    await asyncio.to_thread(self._record.publish)
                if not self.batch.is_finished:
                    await self._save()
                if self._asking is not None and not self._has_key():
                    self._asking.cancel()
            except (StoreFailed, OSError) as error:
                _log.error("batch %s: could not store its progress, retrying: %s", self.batch.id, error)

    async def _save(self) -> None:
        now = self.parts.clock()
        while self._recent and self._recent[0][0] <= now - _RECENT_SECONDS:
            self._recent.popleft()
        if self.batch.status is BatchStatus.IN_PROGRESS and self._record is not None:
            span = min(now - self._started, _RECENT_SECONDS)
            self.batch = msgspec.structs.replace(
                self.batch,
                completed=self._record.completed,
                failed=self._record.failed,
                rate=sum(count for _, count in self._recent) / max(span, 1.0),
                waiting_for=self._waiting_for,
            )
        if self.batch.unclean and time.monotonic() - self.began_at > _STEADY_SECONDS:
            self.batch = msgspec.structs.replace(self.batch, unclean=0)
        cancel_at = await self.parts.store.save_batch(self.batch, self.owner, LEASE_SECONDS)
        self.batch = msgspec.structs.replace(self.batch, cancel_at=cancel_at)
        if cancel_at is not None and self._asking is not None:
            self._asking.cancel()


def _message(body: bytes) -> str:
    """The message of an error in OpenAI's format."""
    try:
        error = msgspec.json.decode(body)["error"]
        return str(error["message"])[:300]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return "The gateway cannot answer at the moment."
