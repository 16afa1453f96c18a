"""The queue of an endpoint whose calls are about texts: it sends them in as few requests as the rate limit admits."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from hubgate.core.errors import (
    deadline_exceeded,
    deadline_unreachable,
    endpoint_closing,
    queue_full,
    request_dropped,
)
from hubgate.core.queue.batch import QueuedCall, TextBatch, queued_call
from hubgate.core.queue.fair_queue import MAX_WAITING_CALLS, FairQueue
from hubgate.core.queue.next_tries import NextTries, NextTry
from hubgate.core.queue.splitting import SplitRetry
from hubgate.core.results import BYTES_PER_TOKEN, estimate_tokens
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.concurrency import ConcurrencyLimit, Places
from hubgate.core.traffic.permits import Permit, sending_under
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.timers import Timers
from hubgate.domain.calls import Call, Result
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.ports import Clock, Handler

START_LIMIT = 8
"""Requests in flight at first."""

_LONGEST_PAUSE = 5.0
"""Seconds before a refused request is sent again, where the server does not say when; a second for each refusal."""
_SEARCH_PAUSE, _LONGEST_SEARCH_PAUSE = 8.0, 300.0
"""Seconds without a search for calls at fault, after searches that found none: the server limits the rate."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one request may carry, and how much may wait."""

    max_texts: int = 32
    """The server's own client batch limit; 32 is text-embeddings-inference's default."""
    max_bytes: int = 1_000_000
    """Of all texts in UTF-8: half of text-embeddings-inference's body limit, because JSON escapes some characters."""
    max_tokens: int | None = None
    """As estimated from the bytes."""
    max_waiting_calls: int = MAX_WAITING_CALLS
    max_waiting_bytes: int = 64 * 1024 * 1024


class BatchQueue:
    """Splits and joins calls into batches.

    A request gets its permit first and is filled only then: late texts still join, calls whose caller has left are
    dropped, and the order counts until the last moment. There is no timer: while a permit and a place in flight are
    free, a call leaves in the next turn of the event loop, with all others of that turn.

    `places` bounds the requests in flight: a server with many gets small batches at once, one with few gets full ones.

    A call without a deadline gets one after `default_timeout` seconds. `check` raises what is wrong with a result.
    Unless calls are `patient`, those that share a request that is refused with 429 all fail.

    `queued_calls`, `queued_texts` and `in_flight` are gauges. `requests` counts requests to the server, `shared` the
    calls that travelled in another call's request. `on_wait` gets the seconds that each call waited.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limiter: RateLimiter | Balancer,
        places: Places | None = None,
        limits: BatchLimits | None = None,
        default_timeout: float | None = None,
        patient: bool = True,
        check: Callable[[Call, Result], None] | None = None,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._handler = handler
        self._limiter = limiter
        self._places = ConcurrencyLimit(START_LIMIT) if places is None else places
        self._places.on_raise = self._start_next
        self.limits = limits or BatchLimits()
        self._default_timeout = default_timeout
        self._patient = patient
        self._check = check
        self._clock, self._chance = clock, chance
        self._on_wait = on_wait
        self._timers = Timers(clock)
        self._queue: FairQueue[QueuedCall] = FairQueue(turn=max(1, self.limits.max_texts // 4))
        self._tasks: dict[asyncio.Task[None], TextBatch | None] = {}
        """Of requests, with what each of them carries."""
        self._next: asyncio.Task[None] | None = None
        """The one task that waits for a permit."""
        self._next_tries = NextTries(self._start_next)
        self._search_after, self._search_pause = -math.inf, _SEARCH_PAUSE
        self._closed = False
        self.usual_seconds = 0.0
        """A moving average of how long the server takes for a request; 0 before the first."""
        self.requests = 0
        self.shared = 0

    @property
    def queued_calls(self) -> int:
        return self._queue.calls + self._next_tries.calls

    @property
    def queued_texts(self) -> int:
        return self._queue.texts

    @property
    def in_flight(self) -> int:
        return len(self._tasks) - (self._next is not None) - self._next_tries.requests

    @property
    def limit(self) -> int:
        """Of requests in flight."""
        return self._places.limit

    @property
    def limiter(self) -> RateLimiter | Balancer:
        """The rate limit that calls wait for."""
        return self._limiter

    async def __call__(self, call: Call) -> Result:
        """Wait for a place in a batch, and for its reply.

        Raises:
            QueueFull: too many calls wait.
            DeadlineExceeded: the deadline cannot be met, or was not.
            HubgateError: what the handler raises.
        """
        queued = self._admit(call)
        timer = None
        if queued.deadline is not None:
            timer = self._timers.call_at(queued.deadline, partial(self._expire, queued))
        self._start_next()
        try:
            result: Result = await queued.reply
        except BaseException:
            self._leave(queued)
            raise
        finally:
            if timer:
                timer.cancel()
            del queued  # it holds the error, whose traceback holds this frame
        if self._check is not None:
            self._check(call, result)
        return result

    async def close(self) -> None:
        """Reject new calls, fail those that wait, and let requests in flight finish; if cancelled, end them too."""
        self._closed = True
        for queued in self._queue:
            queued.fail(endpoint_closing())
        if self._next:
            self._next.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            if self._next:  # for a request that is cancelled with this task
                self._next.cancel()

    def _admit(self, call: Call) -> QueuedCall:
        if self._closed:
            raise endpoint_closing()
        if not call.texts:
            raise InvalidRequest("The call has no text.")
        now, limits, deadline = self._clock(), self.limits, call.context.deadline
        if deadline is None and self._default_timeout is not None:
            deadline = now + self._default_timeout
        queued = queued_call(call, now, deadline)
        calls, waiting_bytes = self.queued_calls, self._queue.weight + self._next_tries.weight
        if calls and (calls >= limits.max_waiting_calls or waiting_bytes >= limits.max_waiting_bytes):
            raise queue_full(calls, self._estimate_wait(queued))
        if deadline is not None and (wait := self._estimate_wait(queued)) > deadline - now:
            raise deadline_unreachable(wait, deadline - now)
        self._queue.add(queued)
        return queued

    def _estimate_wait(self, queued: QueuedCall) -> float:
        """Seconds until the last text of a new call can leave, at least."""
        max_texts, batches = self.limits.max_texts, 1
        if self._queue.texts + len(queued.weights) > max_texts:
            batches = math.ceil(self._queue.texts_ahead(queued, max_texts) / max_texts)
        permits = self._limiter.estimate_wait(batches - (self._next is not None))
        # One round is under way, and the last need not be over.
        rounds = (batches + self.in_flight) / self._places.limit - 2
        return max(permits, rounds * self.usual_seconds)

    def _start_next(self) -> None:
        """Let one more task wait for a permit, if there is something for it to send."""
        waits = self._next_tries.due or (self._queue.calls and not self._closed)
        if self._next is None and waits and self._has_place():
            self._next = self._start_task(None)

    def _start_task(self, request: _Request | None, pause: float = 0.0) -> asyncio.Task[None]:
        """In a context of its own: it does not belong to the caller that happens to start it."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(request, pause), context=contextvars.Context())
        self._tasks[task] = None
        return task

    async def _run(self, request: _Request | None, pause: float) -> None:
        """Send one request: this one, after a pause if it has no permit yet; or the next one once there is a permit."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            request = request or await self._fill_next()
            if request is None:
                return
            permit, batch = request.permit, request.batch
            if batch.wanted:
                self._tasks[task] = batch
                if permit is None:
                    permit = await self.try_again(request, pause, batch.tokens)
                else:
                    self._places.in_flight += 1
                    self.shared += len(batch.parts) - 1
                await self._send(request, permit)
            elif permit is not None:
                request.permit = None
                self._limiter.cancel(permit)
        except asyncio.CancelledError:
            pass  # nobody waits for the task; it would keep the error, whose traceback holds the task and its texts
        finally:
            # Not in a done-callback, which would run a turn later: a call that came in between would find no free
            # place, and nothing would start a task for it.
            del self._tasks[task]
            if request is not None:
                self._end(request)
            self._start_next()

    async def _fill_next(self) -> _Request | None:
        """Fill a request once there is a permit, unless that is for a further try of a request.

        Further ones leave in the same turn as long as they are full.
        """
        try:
            if one := self._next_tries.whose_turn(others=self._queue.calls > 0):
                permit = await self._limiter.acquire(one.tokens, texts=one.texts)
            else:
                tokens = self._next_tokens()
                permit = self._limiter.try_acquire(tokens) or await self._limiter.acquire(tokens)
            if one is not None and self._next_tries.grant(one, permit):
                self._limiter.fill(permit, texts=one.texts, tokens=one.tokens)
                return None
            self._next_tries.passed()
            request = self._fill_request(permit)
        finally:
            self._next = None
        while (
            not self._closed
            and self._fills_request()
            and self._has_place()
            and (further := self._limiter.try_acquire(self._next_tokens()))
        ):
            self._start_task(self._fill_request(further))
        self._start_next()
        return request

    def _has_place(self) -> bool:
        return len(self._tasks) - self._next_tries.requests < self._places.limit

    def _fills_request(self) -> bool:
        """Whether what waits fills a whole request."""
        queue, limits = self._queue, self.limits
        return queue.texts >= limits.max_texts or queue.weight >= limits.max_bytes

    def _next_tokens(self) -> int:
        return estimate_tokens(self._queue.next_weight() or 0, texts=1)

    def _fill_request(self, permit: Permit) -> _Request:
        limits = self.limits
        tokens = min(permit.tokens, limits.max_tokens or permit.tokens)
        max_texts = max(1, min(limits.max_texts, permit.texts, tokens))
        batch = TextBatch(max_texts, min(limits.max_bytes, tokens * BYTES_PER_TOKEN))
        self._queue.fill(batch)
        now = self._clock()
        for queued in batch.parts:
            if not queued.waiting:
                queued.waited = now - queued.since
                if self._on_wait:
                    self._on_wait(queued.waited)
        batch.waits = len(batch.parts) == 1 or not self._patient
        self._limiter.fill(permit, texts=batch.texts, tokens=batch.tokens)
        permit.sender = request = _Request(self, batch, permit)
        return request

    async def _send(self, request: _Request, permit: Permit) -> None:
        """Send a request, and its parts again if it fails."""
        batch = request.batch
        try:
            with sending_under(permit):
                error = await self._request(batch)
                if error is not None:
                    await self._retry_in_parts(request, error)
        except BaseException:
            batch.fail(request_dropped())
            raise

    def _end(self, request: _Request) -> None:
        """Give back what a request takes, if it has not."""
        permit, request.permit = request.permit, None
        if permit is not None:
            permit.sender = None
            self._places.in_flight -= 1
            self._limiter.release(permit)

    async def try_again(self, request: _Request, seconds: float, tokens: int) -> Permit:
        """See `Sender.again`."""
        batch = request.batch
        texts = batch.texts if request.permit is None else request.permit.texts
        self._end(request)
        one = NextTry(calls=len(batch.parts), weight=batch.weight, texts=texts, tokens=tokens)
        try:
            return await self._next_tries.wait(seconds, one)
        finally:
            if one.granted:
                request.permit = one.permit.result()
                request.permit.sender = request
                self._places.in_flight += 1

    async def _retry_in_parts(self, request: _Request, error: HubgateError) -> None:
        retry = SplitRetry(searches=self._clock() >= self._search_after)
        self._note_failure(retry, request.batch, error)
        while retry.parts:
            await self._retry_part(request, retry)
        if retry.found is False:
            self._search_after = self._clock() + self._search_pause
            self._search_pause = min(2 * self._search_pause, _LONGEST_SEARCH_PAUSE)
        elif retry.found:
            self._search_pause = max(self._search_pause / 2, _SEARCH_PAUSE)

    def _note_failure(self, retry: SplitRetry, batch: TextBatch, error: HubgateError) -> None:
        retry.failed(batch, error)
        waiting, retry.waiting = retry.waiting, []
        for part in waiting:
            pause = min(part.refusals, _LONGEST_PAUSE) * (1 + self._chance()) / 2
            if error.retry_after is not None:
                pause = error.retry_after
            part.fail_before(self._clock() + max(pause, self._limiter.estimate_wait()), error)
            self._start_task(_Request(self, part.without_leavers(), None), pause)

    async def _retry_part(self, request: _Request, retry: SplitRetry) -> None:
        """Send one part of what failed, under a permit of its own."""
        part = retry.parts.popleft()
        permit = await self._limiter.acquire(part.tokens, retry=True)
        part = part.without_leavers()
        if not part.parts:
            self._limiter.cancel(permit)
            return
        self._limiter.fill(permit, texts=0, tokens=part.tokens)
        permit.sender = request
        try:
            with sending_under(permit):
                error = await self._request(part)
        finally:
            self._limiter.release(permit)
        if error is None:
            retry.succeeded()
        else:
            self._note_failure(retry, part, error)

    async def _request(self, batch: TextBatch) -> HubgateError | None:
        """Deliver the reply to a batch, or return the error."""
        self.requests += 1
        started = self._clock()
        if len(batch.parts) > 1 and _logger.isEnabledFor(logging.INFO):
            ids = ", ".join(queued.context.request_id for queued in batch.parts)
            _logger.info("sending %d texts of %d requests together: %s", batch.texts, len(batch.parts), ids)
        try:
            batch.deliver(await self._handler(batch.call()))
        except HubgateError as error:
            return error
        except Exception as error:  # a bug of ours must not leave callers waiting
            _logger.exception("internal error while sending a request")
            batch.fail(error)
        else:
            self.usual_seconds += (self._clock() - started - self.usual_seconds) / 8
        return None

    def _expire(self, queued: QueuedCall) -> None:
        queued.fail(deadline_exceeded(self._clock() - queued.since, in_queue=queued.waiting > 0))

    def _leave(self, queued: QueuedCall) -> None:
        """Remove what has not been sent, and cancel requests that nobody else waits for."""
        self._queue.remove(queued)
        for task, batch in self._tasks.items():
            if batch is not None and queued in batch.parts and not batch.wanted:
                task.cancel()


class _Request:
    """A request that is sent, or waits for its next try."""

    __slots__ = ("batch", "permit", "queue")

    def __init__(self, queue: BatchQueue, batch: TextBatch, permit: Permit | None) -> None:
        self.queue = queue
        self.batch = batch
        self.permit = permit
        """`None` while it has no place."""

    async def again(self, seconds: float, tokens: int) -> Permit:
        return await self.queue.try_again(self, seconds, tokens)
