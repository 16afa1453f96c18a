"""The queue of an endpoint that generates text: one call a request, and a stream keeps its slot until it is closed."""

from __future__ import annotations

import asyncio
import contextvars
import time

import msgspec

from hubgate.core.errors import deadline_exceeded, deadline_unreachable, endpoint_closing, queue_full
from hubgate.core.queue.fair_queue import Batch, FairQueue, QueueEntry
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.concurrency import RESERVED_PART, ConcurrencyLimit, Places
from hubgate.core.traffic.permits import Permit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Context
from hubgate.domain.ports import Clock

START_LIMIT = 128
"""Slots at first: text-generation-inference's default for concurrent requests."""
MAX_WAITING_CALLS = 2000
"""Elasticsearch's limit."""


class GenerationQueue:
    """Grants slots: in fair order, within the rate limit, at most as many at once as there are `places`.

    One slot in eight is for callers that hold none, so that nobody takes all slots with streams that never end.

    Args:
        limiter: each slot takes one of its permits.
        places: how many slots there are.
        max_waiting_calls: in the queue.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        limiter: RateLimiter | Balancer,
        *,
        places: Places | None = None,
        max_waiting_calls: int = MAX_WAITING_CALLS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._limiter = limiter
        """Whether a slot depends on the number of tokens."""
        self._places = ConcurrencyLimit(START_LIMIT) if places is None else places
        self._places.on_raise = self._start_dispatcher
        self._max_waiting_calls = max_waiting_calls
        self._clock = clock
        self._slots_by_caller: dict[str, int] = {}
        self._queue: FairQueue[QueueEntry] = FairQueue(turn=1)
        self._dispatcher: asyncio.Task[None] | None = None
        self._closed = False
        self._idle = asyncio.Event()
        """Set when the last slot is released after `close`."""
        self.requests = 0
        """Slots granted so far."""
        self.shared = 0
        """Always 0: calls that generate share no request."""

    @property
    def in_flight(self) -> int:
        return self._places.in_flight

    @property
    def limit(self) -> int:
        """Of slots."""
        return self._places.limit

    @property
    def counts_tokens(self) -> bool:
        return self._limiter.counts_tokens

    @property
    def limiter(self) -> RateLimiter | Balancer:
        """The rate limit that calls wait for."""
        return self._limiter

    @property
    def queued_calls(self) -> int:
        return self._queue.calls

    @property
    def queued_texts(self) -> int:
        """Each call counts as one text."""
        return self._queue.calls

    def try_acquire(self, caller: str, tokens: int) -> GenerationSlot | None:
        """A slot for a request of `tokens`, if there is one without waiting. The caller must release it."""
        if self._queue.calls or self._closed or not self._has_room(caller):
            return None
        permit = self._limiter.try_take(texts=1, tokens=tokens)
        if permit is None:
            return None
        self._places.in_flight += 1
        self._slots_by_caller[caller] = self._slots_by_caller.get(caller, 0) + 1
        self.requests += 1
        return GenerationSlot(self, permit, caller)

    async def wait(self, context: Context, tokens: int, deadline: float) -> GenerationSlot:
        """Wait for a slot if there is none: see `try_acquire`.

        Raises:
            QueueFull: too many calls wait, or the endpoint is closing.
            DeadlineExceeded: there is no slot before the deadline.
        """
        now = self._clock()
        entry = QueueEntry(context, [tokens])
        self._admit(entry, deadline - now)
        self._start_dispatcher()
        try:
            async with asyncio.timeout(deadline - now):
                await asyncio.shield(entry.reply)
        except TimeoutError:
            self._leave(entry)
            raise deadline_exceeded(self._clock() - now, in_queue=True) from None
        except BaseException:
            self._leave(entry)
            raise
        return GenerationSlot(self, entry.reply.result(), context.caller, self._clock() - now)

    async def close(self) -> None:
        """Reject new calls, fail those that wait, and let those in flight finish."""
        self._closed = True
        entries, self._queue = list(self._queue), FairQueue(turn=1)
        for entry in entries:
            entry.reply.set_exception(endpoint_closing())
        if self._dispatcher:
            self._dispatcher.cancel()
        if self._places.in_flight:
            await self._idle.wait()

    def release(self, slot: GenerationSlot) -> None:
        """Free a slot. A second call does nothing."""
        if slot.released:
            return
        slot.released, caller = True, slot.caller
        self._limiter.release(slot.permit)
        self._places.in_flight -= 1
        slots = self._slots_by_caller[caller] - 1
        if slots:
            self._slots_by_caller[caller] = slots
        else:
            del self._slots_by_caller[caller]
        if self._closed and not self._places.in_flight:
            self._idle.set()
        if self._queue.calls:
            self._start_dispatcher()

    def _admit(self, entry: QueueEntry, remaining: float) -> None:
        if self._closed:
            raise endpoint_closing()
        ahead = self._queue.texts_ahead(entry, 1, self._has_room)
        # The dispatcher, if it runs, already waits for one permit.
        wait = self._limiter.estimate_wait(ahead - (self._dispatcher is not None))
        if self._queue.calls >= self._max_waiting_calls:
            raise queue_full(self._queue.calls, wait)
        if wait > remaining:
            raise deadline_unreachable(wait, remaining)
        self._queue.add(entry)

    def _start_dispatcher(self) -> None:
        if (
            self._dispatcher is None
            and not self._closed
            and self._queue.next_weight(self._has_room) is not None
        ):
            loop = asyncio.get_running_loop()
            self._dispatcher = loop.create_task(self._dispatch(), context=contextvars.Context())

    async def _dispatch(self) -> None:
        """Acquire permits for those that wait. Who gets a permit is decided when it is there."""
        try:
            while (tokens := self._queue.next_weight(self._has_room)) is not None:
                permit = await self._limiter.acquire(tokens)
                batch: Batch[QueueEntry] = Batch(1, 0)
                self._queue.fill(batch, self._has_room)
                for entry in batch.parts:
                    self._grant(permit, entry.context.caller, entry.weights[0])
                    entry.reply.set_result(permit)
                if not batch.parts:  # all have left
                    self._limiter.cancel(permit)
        finally:
            self._dispatcher = None
            self._start_dispatcher()

    def _grant(self, permit: Permit, caller: str, tokens: int) -> None:
        self._limiter.fill(permit, texts=1, tokens=tokens)
        self._places.in_flight += 1
        self._slots_by_caller[caller] = self._slots_by_caller.get(caller, 0) + 1
        self.requests += 1

    def _has_room(self, caller: str) -> bool:
        limit = self._places.limit
        free = limit - self._places.in_flight
        return free > limit // RESERVED_PART or (free > 0 and caller not in self._slots_by_caller)

    def _leave(self, entry: QueueEntry) -> None:
        if not entry.reply.done():
            self._queue.remove(entry)
            entry.reply.cancel()
        elif not entry.reply.cancelled() and entry.reply.exception() is None:
            # Granted while the caller left.
            self.release(GenerationSlot(self, entry.reply.result(), entry.context.caller))


class GenerationSlot(msgspec.Struct, eq=False):
    """The right to send one request, until it is released."""

    queue: GenerationQueue
    permit: Permit
    caller: str
    waited: float = 0.0
    """Seconds in the queue."""
    released: bool = False

    def release(self) -> None:
        """Free the slot. A second call does nothing."""
        self.queue.release(self)
