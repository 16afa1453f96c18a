"""The batches of all keys, and the runs of those that this gateway works on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from hubgate.domain.errors import CallerError, Cause, InvalidRequest, NotFound, QueueFull, StoreFailed
from hubgate.domain.records import ACTOR, DAY, HOUR, Key
from hubgate.features.bulk.batches.files import Files, may_see
from hubgate.features.bulk.batches.model import Batch, BatchStatus, ClaimLost, Fault, Page
from hubgate.features.bulk.batches.run import LEASE_SECONDS, BatchRun, Parts
from hubgate.features.bulk.batches.store import SqlBatches
from hubgate.features.bulk.batches.turns import PATIENCE, Patience, leavers
from hubgate.features.bulk.batches.webhook import Webhook
from hubgate.service.keys.access import Access
from hubgate.store.audit_log import SqlAudit
from hubgate.web.http.internal import RowCaller

PATHS = ("/v1/embeddings", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/rerank")
"""Where the requests of a batch can go. Reranking is hubgate's own."""
MAX_RUNNING = 4
"""Batches that one gateway works on at a time."""
MAX_UNFINISHED = 100
"""Batches of one key that have not ended."""
_MAX_WINDOW = 30 * DAY
_KEPT_DAYS = 90
"""How long a finished batch is listed."""
_POLL_SECONDS = 15.0
_CLEAN_SECONDS = 600.0
_WINDOW = re.compile(r"(\d{1,4})([hd])")
_MAX_METADATA, _MAX_NAME, _MAX_VALUE = 16, 64, 512

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What a caller asks for."""

    input_file: str
    path: str
    window: str
    metadata: Mapping[str, str] | None = None
    output_seconds: float | None = None


class Batches:
    """All batches. Those of other keys do not exist for a caller, unless its key is an admin's.

    Args:
        store: where they are.
        files: their input and output.
        access: the keys.
        audit: records what admins do to batches of others.
        webhook: sends the message at the end of each batch.
        max_row_bytes: of one request.
        alone: whether no other gateway uses the database.
        clock: seconds since the epoch.
        patience: when a batch gives its place back.
    """

    def __init__(
        self,
        store: SqlBatches,
        files: Files,
        access: Access,
        audit: SqlAudit,
        *,
        webhook: Webhook | None,
        max_row_bytes: int,
        alone: bool,
        clock: Callable[[], float] = time.time,
        patience: Patience = PATIENCE,
    ) -> None:
        self._store = store
        self.files = files
        self._access = access
        self._audit = audit
        self._webhook = webhook
        self.max_row_bytes = max_row_bytes
        self._alone = alone
        self._clock = clock
        self._patience = patience
        self._owner = secrets.token_hex(8)
        self._wake = asyncio.Event()
        self._runs: dict[str, BatchRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    async def create(self, key: Key, new: NewBatch) -> Batch:
        """Create a batch; it starts in the background.

        Raises:
            InvalidRequest: a value is not valid.
            NotFound: the caller has no such file.
            QueueFull: the key has too many batches.
        """
        if new.path not in PATHS:
            raise InvalidRequest(
                f"[endpoint] is not supported: '{new.path[:100]}'.", remedy=f"Use one of: {', '.join(PATHS)}."
            )
        seconds = _parse_window(new.window)
        _check_metadata(new.metadata)
        if new.output_seconds is not None:
            self.files.life(new.output_seconds)
        file, _ = await self.files.content(key, new.input_file)
        now = self._clock()
        batch = Batch(
            id=f"batch_{secrets.token_hex(16)}",
            key=key.id,
            folder=file.folder,
            path=new.path,
            input_file=file.id,
            window=new.window,
            created_at=now,
            expires_at=now + seconds,
            output_seconds=new.output_seconds,
            metadata=new.metadata,
        )
        if not await self._store.add_batch(batch, MAX_UNFINISHED):
            raise QueueFull(
                f"The key has {MAX_UNFINISHED} batches that have not ended, which is the maximum.",
                remedy="Wait until one of them has ended, cancel one, or put the requests into fewer batches.",
                retryable=False,
            )
        self._wake.set()
        return batch

    async def find(self, key: Key, batch_id: str) -> Batch:
        """A batch of the caller. Raises: NotFound."""
        batch = await self._store.batch(batch_id)
        if batch is None or not may_see(key, batch.key):
            raise NotFound(
                f"No batch has the id [{batch_id[:100]}].",
                remedy="GET /v1/batches lists the batches of your key.",
            )
        return batch

    async def list(self, key: Key, page: Page) -> Sequence[Batch]:
        return await self._store.batches(page, None if key.admin else key.id)

    async def cancel(self, key: Key, batch_id: str) -> Batch:
        """Cancel a batch of the caller. What is answered by then is in its output.

        Raises:
            NotFound: it does not exist.
            CallerError: it has ended.
        """
        batch = await self.find(key, batch_id)
        if batch.is_finished:
            raise CallerError(
                f"The batch has ended: it is {batch.status}.",
                remedy="Only an unfinished batch can be cancelled.",
                cause=Cause.CONFLICT,
            )
        await self._store.request_cancel(batch.id, self._clock())
        await self._record("job.cancel", key, batch)
        if run := self._runs.get(batch.id):
            with contextlib.suppress(ClaimLost):
                await run.cancel()
        return await self.find(key, batch_id)

    async def resume(self, key: Key, batch_id: str) -> Batch:
        """Send again what has no successful answer in a batch that has ended.

        Raises:
            NotFound: the batch does not exist, or its input was deleted.
            CallerError: nothing is left to send, or it has not ended.
        """
        batch = await self.find(key, batch_id)
        if not can_resume(batch):
            raise CallerError(
                f"The batch cannot be resumed: it is {batch.shown_status}.",
                remedy="A batch can be resumed after it has ended without a successful answer to every request.",
                cause=Cause.CONFLICT,
            )
        file, _ = await self.files.content(key, batch.input_file)
        now = self._clock()
        again = msgspec.structs.replace(
            batch,
            folder=file.folder,
            status=BatchStatus.IN_PROGRESS,
            expires_at=now + _parse_window(batch.window),
            faults=(),
            failed=0,
            record=0,
            unclean=0,
            finalizing_at=None,
            ended_at=None,
            cancel_at=None,
            notify_at=None,
        )
        if not await self._store.restart_batch(again):
            raise CallerError("The batch was resumed already.", cause=Cause.CONFLICT)
        await self._record("job.resume", key, batch)
        self._wake.set()
        return again

    async def _record(self, verb: str, key: Key, batch: Batch) -> None:
        """Log what an admin does to the batch of another key."""
        if key.id != batch.key:
            ACTOR.set(key.id)
            await self._audit.record(verb, batch.id)

    async def start(self, call: RowCaller) -> None:
        """Continue unfinished batches, and work on new ones."""
        if self._alone:
            await self._store.end_claims()
        parts = Parts(
            store=self._store,
            files=self.files,
            call=call,
            find_key=self._access.valid_key,
            clock=self._clock,
            max_row_bytes=self.max_row_bytes,
            notify=self._webhook is not None,
        )
        self._loop = asyncio.create_task(self._work(parts))

    async def close(self) -> None:
        """Stop. Another start, or another gateway, continues the batches."""
        tasks = [*self._tasks, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, parts: Parts) -> None:
        cleaned = -_CLEAN_SECONDS
        while True:
            self._wake.clear()
            try:
                while len(self._tasks) < MAX_RUNNING and (batch := await self._claim()):
                    run = self._runs[batch.id] = BatchRun(parts, batch, self._owner)
                    task = asyncio.create_task(self._run(run))
                    self._tasks.add(task)
                    task.add_done_callback(self._ended)
                if len(self._tasks) >= MAX_RUNNING:
                    await self._pass_turns()
                if time.monotonic() - cleaned >= _CLEAN_SECONDS:
                    cleaned = time.monotonic()
                    await self._clean()
            except StoreFailed as error:
                _log.error("batches cannot be continued, retrying: %s", error)
            with contextlib.suppress(TimeoutError):
                is_full = len(self._tasks) >= MAX_RUNNING
                await asyncio.wait_for(self._wake.wait(), self._patience.look if is_full else _POLL_SECONDS)

    async def _pass_turns(self) -> None:
        """Let runs give their place back to batches that wait for one."""
        turns = await self._store.turns(await self.files.folder_id(), self._clock())
        for run in leavers(tuple(self._runs.values()), turns, self._patience, time.monotonic()):
            run.leave()

    async def _claim(self) -> Batch | None:
        now = self._clock()
        folder = await self.files.folder_id()
        return await self._store.claim(self._owner, folder, now, LEASE_SECONDS, self._runs.keys())

    async def _run(self, run: BatchRun) -> None:
        try:
            if not run.batch.is_finished:
                await run.work()
            if run.batch.notify_at is not None:
                run.batch = await self._notify(run.batch)
        except ClaimLost:
            _log.warning("batch %s: another gateway continues it", run.batch.id)
            return
        except StoreFailed as error:
            _log.error("batch %s stopped, retrying later: %s", run.batch.id, error)
            await asyncio.sleep(_POLL_SECONDS)
        except Exception:  # noqa: BLE001 - an error that recurs must not restart the batch for ever
            _log.exception("batch %s failed", run.batch.id)
            fault = Fault(code=Cause.INTERNAL, message="Internal error. See hubgate's log.")
            run.batch = msgspec.structs.replace(
                run.batch, status=BatchStatus.FAILED, faults=(fault,), ended_at=self._clock()
            )
        finally:
            with contextlib.suppress(ClaimLost, StoreFailed):
                await self._store.save_batch(msgspec.structs.replace(run.batch, unclean=0), self._owner, None)
            del self._runs[run.batch.id]

    async def _notify(self, batch: Batch) -> Batch:
        if self._webhook is None:  # the setting was removed
            return msgspec.structs.replace(batch, notify_at=None)
        return await self._webhook.send(batch)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _clean(self) -> None:
        await self.files.clean()
        await self._store.forget_batches(self._clock() - _KEPT_DAYS * DAY)


def can_resume(batch: Batch) -> bool:
    """Whether it has ended, and requests have no successful answer, or the answers are in no file."""
    has_more = batch.completed < batch.total or batch.status is BatchStatus.FAILED
    return batch.is_finished and batch.in_progress_at is not None and has_more


def _parse_window(window: str) -> float:
    """The seconds of a completion window.

    Raises:
        InvalidRequest: it is not valid.
    """
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * (HOUR if match[2] == "h" else DAY) if match else 0
    if not HOUR <= seconds <= _MAX_WINDOW:
        raise InvalidRequest(
            f"[completion_window] is not valid: '{window[:20]}'.",
            remedy="Use 24h, or from 1h to 30d in hours or days.",
        )
    return seconds


def _check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raises: InvalidRequest: there is more than OpenAI allows."""
    values = metadata or {}
    if (
        len(values) > _MAX_METADATA
        or any(len(name) > _MAX_NAME for name in values)
        or any(len(value) > _MAX_VALUE for value in values.values())
    ):
        raise InvalidRequest(
            "[metadata] is too large.",
            remedy=f"Send at most {_MAX_METADATA} names of up to {_MAX_NAME} characters, with values of up to {_MAX_VALUE}.",
        )
