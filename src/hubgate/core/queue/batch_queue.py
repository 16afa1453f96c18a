"""The one fair queue of an endpoint."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from hubgate.core.errors import (
    deadline_exceeded,
    deadline_unreachable,
    endpoint_closing,
    queue_full,
    request_dropped,
)
from hubgate.core.queue.batch import Batch, QueuedCall
from hubgate.core.queue.fair_queue import FairQueue
from hubgate.core.queue.splitting import SplitRetry
from hubgate.core.results import BYTES_PER_TOKEN, estimate_tokens
from hubgate.core.traffic.rate_limiter import Permit, RateLimiter, sending_under
from hubgate.domain.calls import Call, Result
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.ports import Clock, Handler

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one request to the server may carry, and how much may wait for it."""

    batch_texts: int = 32
    """The server's own client batch limit; 32 is text-embeddings-inference's default."""
    batch_bytes: int = 1_000_000
    """Of all texts of a request in UTF-8; half of text-embeddings-inference's body limit, as JSON escapes some."""
    batch_tokens: int | None = None
    """As guessed from the bytes."""
    lanes: int = 8
    """Requests in flight at once."""
    waiting_calls: int = 2000
    """As in Elasticsearch."""
    waiting_bytes: int = 64 * 1024 * 1024


class BatchQueue:
    """Cuts and joins texts into as few requests as the rate limit admits.

    Calls wait in a fair queue. A lane takes its permit first and only then closes its batch, so late texts still get
    on, leavers get off, and the order counts to the last moment. Nothing waits for a timer: while a permit and a lane
    are free, a call leaves in the next turn of the event loop, together with all others of this turn.

    `queued_calls`, `queued_texts` and `in_flight` are gauges; `requests` counts what was asked of the server, `shared`
    the calls that went along in another's request. `on_wait` is told the seconds that each call stood in the queue.
    """

    def __init__(
        self,
        answer: Handler,
        *,
        limiter: RateLimiter,
        limits: BatchLimits | None = None,
        clock: Clock = time.monotonic,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._answer = answer
        self._limiter = limiter
        self._limits = limits or BatchLimits()
        self._clock = clock
        self._on_wait = on_wait
        self._queue = FairQueue(turn=max(1, self._limits.batch_texts // 4))
        self._lanes: set[asyncio.Task[None]] = set()
        self._boarding: asyncio.Task[None] | None = None
        """The lane that waits for its permit; one does for the whole queue."""
        self._closed = False
        self._usual_seconds = 0.0
        """How long the server takes for a request, of late."""
        self.requests = 0
        self.shared = 0

    @property
    def queued_calls(self) -> int:
        """Calls of which something waits."""
        return self._queue.calls

    @property
    def queued_texts(self) -> int:
        """Texts that wait."""
        return self._queue.texts

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return len(self._lanes) - (self._boarding is not None)

    async def __call__(self, call: Call) -> Result:
        """Answer one call, in its turn.

        Raises:
            QueueFull: too many wait already.
            DeadlineExceeded: its turn comes too late, or the answer did.
            HubgateError: what the upstream raises.
        """
        ticket = self._admit(call)
        deadline = call.context.deadline
        timer = None
        if deadline is not None:
            timer = asyncio.get_running_loop().call_later(deadline - self._clock(), self._overdue, ticket)
        self._wake()
        try:
            return await ticket.reply
        finally:
            if timer:
                timer.cancel()
            self._leave(ticket)
            del ticket  # it holds the error, whose traceback holds this frame

    async def close(self) -> None:
        """Refuse newcomers, send away who waits, and let what is in flight end; if cancelled, end that too."""
        self._closed = True
        for ticket in self._queue:
            ticket.fail(endpoint_closing())
        if self._boarding:
            self._boarding.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    def _admit(self, call: Call) -> QueuedCall:
        if self._closed:
            raise endpoint_closing()
        if not call.texts:
            raise InvalidRequest("There is no text in this call.")
        now, limits, queue = self._clock(), self._limits, self._queue
        ticket = QueuedCall(call, now)
        if queue and (queue.calls >= limits.waiting_calls or queue.weight >= limits.waiting_bytes):
            raise queue_full(queue.calls, self._wait(ticket))
        deadline = call.context.deadline
        if deadline is not None and (wait := self._wait(ticket)) > deadline - now:
            raise deadline_unreachable(wait, deadline - now)
        queue.add(ticket)
        return ticket

    def _wait(self, newcomer: QueuedCall) -> float:
        """Seconds until the last text of a newcomer can leave, at the least: who is sent away would wait in vain."""
        lanes, most_texts = self._limits.lanes, self._limits.batch_texts
        batches = math.ceil(self._queue.ahead(newcomer, most_texts) / most_texts)
        permits = self._limiter.wait_estimate(batches - (self._boarding is not None))
        rounds = (batches + self.in_flight) / lanes - 2  # one is under way, and the last need not be over
        return max(permits, rounds * self._usual_seconds)

    def _wake(self) -> None:
        """Send the next lane to wait for a permit, if there is one, and something for it to carry."""
        if self._queue and not self._boarding and not self._closed and len(self._lanes) < self._limits.lanes:
            # In a context of its own: what the caller who happens to wake it has set there is not the others' business.
            loop = asyncio.get_running_loop()
            self._boarding = loop.create_task(self._lane(), context=contextvars.Context())
            self._lanes.add(self._boarding)

    async def _lane(self) -> None:
        """The way of one request."""
        lane = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            permit, batch = await self._board()
            self._wake()
            if batch.parts:
                await self._carry(batch, permit, lane)
            else:
                self._limiter.give_back(permit)
        except asyncio.CancelledError:
            pass  # nobody waits for it; the task would keep the error, whose traceback holds the task and its texts
        finally:
            # Freed here and not in a done-callback: that would run a turn later, and a call that came in between
            # would find no lane, and nobody would wake one for it.
            self._lanes.discard(lane)
            self._wake()

    async def _board(self) -> tuple[Permit, Batch]:
        """Wait for a permit; only then close the batch."""
        limits = self._limits
        try:
            permit = await self._limiter.take(estimate_tokens(self._queue.next_weight(), texts=1))
            tokens = min(permit.tokens, limits.batch_tokens or permit.tokens)
            most_texts = max(1, min(limits.batch_texts, permit.texts, tokens))
            batch = self._queue.load(most_texts, min(limits.batch_bytes, tokens * BYTES_PER_TOKEN))
        finally:
            self._boarding = None
        now = self._clock()
        for ticket in batch.parts:
            if not ticket.waiting:
                ticket.waited = now - ticket.since
                if self._on_wait:
                    self._on_wait(ticket.waited)
        return permit, batch

    async def _carry(self, batch: Batch, permit: Permit, lane: asyncio.Task[None]) -> None:
        """Ask for a batch, and again for the parts of what failed."""
        self.shared += len(batch.parts) - 1
        self._limiter.load(permit, texts=batch.texts, tokens=batch.tokens)
        for ticket in batch.parts:
            ticket.lanes[lane] = batch
        try:
            halving = SplitRetry()
            with sending_under(permit):
                await self._ask(batch, halving)
            while halving.parts:
                await self._ask_again(halving)
        except BaseException:
            batch.fail(request_dropped())
            raise
        finally:
            self._limiter.done(permit)
            for ticket in batch.parts:
                del ticket.lanes[lane]

    async def _ask_again(self, halving: SplitRetry) -> None:
        """Ask for a part of what failed; it keeps its place, and needs a permit of its own."""
        part = halving.parts.popleft()
        permit = await self._limiter.take(part.tokens, again=True)
        part = part.without_leavers()
        if not part.parts:
            self._limiter.give_back(permit)
            return
        self._limiter.load(permit, texts=0, tokens=part.tokens)
        try:
            with sending_under(permit):
                await self._ask(part, halving)
        finally:
            self._limiter.done(permit)

    async def _ask(self, batch: Batch, halving: SplitRetry) -> None:
        """Ask for a batch and answer its tickets, or leave parts of it to be asked for again."""
        self.requests += 1
        began = self._clock()
        if len(batch.parts) > 1 and _logger.isEnabledFor(logging.INFO):
            ids = ", ".join(ticket.call.context.request_id for ticket in batch.parts)
            _logger.info("%d texts of %d requests leave together: %s", batch.texts, len(batch.parts), ids)
        try:
            batch.deliver(await self._answer(batch.call()))
        except HubgateError as error:
            halving.failed(batch, error)
        except Exception as error:  # a fault of our own must not leave callers waiting
            _logger.exception("a request failed inside the gate")
            batch.fail(error)
        else:
            halving.answered()
            self._usual_seconds += (self._clock() - began - self._usual_seconds) / 8

    def _overdue(self, ticket: QueuedCall) -> None:
        ticket.fail(deadline_exceeded(self._clock() - ticket.since, in_queue=ticket.waiting > 0))

    def _leave(self, ticket: QueuedCall) -> None:
        """Take out what has not left, and end the requests that nobody else waits for."""
        self._queue.remove(ticket)
        for lane, batch in ticket.lanes.items():
            if not batch.wanted:
                lane.cancel()
