"""The queue of an endpoint that generates text: one call a request, and a stream keeps its slot until it is closed."""

from __future__ import annotations

import asyncio
import contextvars
import time

import msgspec

from hubgate.core.errors import deadline_exceeded, deadline_unreachable, endpoint_closing, queue_full
from hubgate.core.queue.fair_queue import MAX_WAITING_CALLS, Batch, FairQueue, QueueEntry
from hubgate.core.queue.next_tries import NextTries, NextTry
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.concurrency import RESERVED_PART, ConcurrencyLimit, Places
from hubgate.core.traffic.permits import Permit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Context
from hubgate.domain.ports import Clock

START_LIMIT = 128
"""Slots at first: text-generation-inference's default for concurrent requests."""


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
        self._places = ConcurrencyLimit(START_LIMIT) if places is None else places
        self._places.on_raise = self._start_dispatcher
        self._max_waiting_calls = max_waiting_calls
        self._clock = clock
        self._slots_by_caller: dict[str, int] = {}
        self._queue: FairQueue[QueueEntry] = FairQueue(turn=1)
        self._dispatcher: asyncio.Task[None] | None = None
        self._next_tries = NextTries(self._start_dispatcher)
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
        return self._queue.calls + self._next_tries.calls

    @property
    def queued_texts(self) -> int:
        """Each call counts as one text."""
        return self.queued_calls

    def try_acquire(self, caller: str, tokens: int) -> GenerationSlot | None:
        """A slot for a request of `tokens`, if there is one without waiting. The caller must release it."""
        if self._queue.calls or self._closed or not self._has_room(caller):
            return None
        tries = self._next_tries
        if tries.requests and (tries.due or tries.requests >= self._max_waiting_calls):
            return None
        permit = self._limiter.try_take(texts=1, tokens=tokens)
        if permit is None:
            return None
        self._take_place(caller)
        self.requests += 1
        slot = permit.sender = GenerationSlot(self, permit, caller)
        return slot

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
        permit = entry.reply.result()
        slot = permit.sender = GenerationSlot(self, permit, context.caller, self._clock() - now)
        return slot

    async def close(self) -> None:
        """Reject new calls, fail those that wait, and let those in flight finish."""
        self._closed = True
        entries, self._queue = list(self._queue), FairQueue(turn=1)
        for entry in entries:
            entry.reply.set_exception(endpoint_closing())
        if self._dispatcher:
            self._dispatcher.cancel()
        if self._places.in_flight or self._next_tries.requests:
            await self._idle.wait()

    def release(self, slot: GenerationSlot) -> None:
        """Free a slot. A second call does nothing."""
        if slot.released:
            return
        self._free_place(slot)
        if self._closed:
            self._note_idle()
        if self._queue.calls or self._next_tries.requests:
            self._start_dispatcher()

    async def try_again(self, slot: GenerationSlot, seconds: float, tokens: int) -> Permit:
        """See `Sender.again`."""
        self._free_place(slot)
        one = NextTry(caller=slot.caller, tokens=tokens)
        try:
            return await self._next_tries.wait(seconds, one)
        finally:
            if one.granted:
                slot.permit, slot.released = one.permit.result(), False
                slot.permit.sender = slot
            if self._closed:
                self._note_idle()

    def _take_place(self, caller: str) -> None:
        self._places.in_flight += 1
        self._slots_by_caller[caller] = self._slots_by_caller.get(caller, 0) + 1

    def _free_place(self, slot: GenerationSlot) -> None:
        slot.released, caller = True, slot.caller
        slot.permit.sender = None
        self._limiter.release(slot.permit)
        self._places.in_flight -= 1
        slots = self._slots_by_caller[caller] - 1
        if slots:
            self._slots_by_caller[caller] = slots
        else:
            del self._slots_by_caller[caller]

    def _note_idle(self) -> None:
        if not self._places.in_flight and not self._next_tries.requests:
            self._idle.set()

    def _admit(self, entry: QueueEntry, remaining: float) -> None:
        if self._closed:
            raise endpoint_closing()
        ahead = self._queue.texts_ahead(entry, 1, self._has_room)
        # The dispatcher, if it runs, already waits for one permit.
        wait = self._limiter.estimate_wait(ahead - (self._dispatcher is not None))
        if self.queued_calls >= self._max_waiting_calls:
            raise queue_full(self.queued_calls, wait)
        if wait > remaining:
            raise deadline_unreachable(wait, remaining)
        self._queue.add(entry)

    def _start_dispatcher(self) -> None:
        if self._dispatcher is None and self._next_tokens() is not None:
            loop = asyncio.get_running_loop()
            self._dispatcher = loop.create_task(self._dispatch(), context=contextvars.Context())

    def _next_tokens(self) -> int | None:
        """Of the request whose turn it is; `None` if there is none."""
        tokens = self._queue.next_weight(self._has_room)
        one = self._next_tries.whose_turn(others=tokens is not None, has_room=self._has_room)
        return tokens if one is None else one.tokens

    async def _dispatch(self) -> None:
        """Acquire permits for those that wait. Who gets a permit is decided when it is there."""
        try:
            while (tokens := self._next_tokens()) is not None:
                permit = await self._limiter.acquire(tokens)
                if self._grant_next_try(permit):
                    continue
                batch: Batch[QueueEntry] = Batch(1, 0)
                self._queue.fill(batch, self._has_room)
                for entry in batch.parts:
                    self._limiter.fill(permit, texts=1, tokens=entry.weights[0])
                    self._take_place(entry.context.caller)
                    self.requests += 1
                    self._next_tries.passed()
                    entry.reply.set_result(permit)
                if not batch.parts:  # all have left
                    self._limiter.cancel(permit)
        finally:
            self._dispatcher = None
            self._start_dispatcher()

    def _grant_next_try(self, permit: Permit) -> bool:
        others = self._queue.next_weight(self._has_room) is not None
        one = self._next_tries.whose_turn(others=others, has_room=self._has_room)
        if one is None or not self._next_tries.grant(one, permit):
            return False
        self._limiter.fill(permit, texts=1, tokens=one.tokens)
        self._take_place(one.caller)
        return True

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

    async def again(self, seconds: float, tokens: int) -> Permit:
        """See `Sender.again`."""
        return await self.queue.try_again(self, seconds, tokens)

    def release(self) -> None:
        """Free the slot. A second call does nothing."""
        self.queue.release(self)
