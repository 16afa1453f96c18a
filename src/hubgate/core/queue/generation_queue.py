"""Turns: calls that cannot share a request leave one by one, in fair order, as the rate limit admits."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter
from itertools import chain

from hubgate.core.errors import deadline_exceeded, deadline_unreachable, endpoint_closing, queue_full
from hubgate.core.queue.fair_line import Line, Waiter
from hubgate.core.traffic.rate_limiter import Permit, RateLimiter
from hubgate.domain.calls import BULK_TURN_INTERVAL, Context
from hubgate.domain.ports import Clock

MAX_IN_FLIGHT = 128
"""Requests in flight; text-generation-inference refuses more unless it is told otherwise."""
MAX_WAITING_CALLS = 2000
"""As in Elasticsearch."""
_KEPT_FREE = 8
"""One turn in so many is for callers who have none, so that nobody can take them all by never ending."""


class GenerationQueue:
    """Grants turns: interactive callers before bulk ones, and one after the other among those of a class.

    Args:
        rate limit: each turn takes one of its permits.
        at_once: turns that may be had at the same time.
        waiting_calls: how many may wait.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        at_once: int = MAX_IN_FLIGHT,
        waiting_calls: int = MAX_WAITING_CALLS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._at_once = at_once
        self._kept_free = at_once // _KEPT_FREE
        self._held: Counter[str] = Counter()
        """Turns by caller."""
        self._most = waiting_calls
        self._clock = clock
        self._lines = (Line(), Line())
        self._overtaken = 0
        self._usher: asyncio.Task[None] | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.requests = 0
        """Turns that were had."""
        self.shared = 0
        """None: a turn is one call's."""

    @property
    def queued_calls(self) -> int:
        """Calls that wait."""
        return sum(map(len, self._lines))

    @property
    def queued_texts(self) -> int:
        """Each call is one text."""
        return self.queued_calls

    async def take(self, context: Context, tokens: int, deadline: float) -> GenerationSlot:
        """Wait until the deadline for a turn of a request with so many tokens; it must be ended.

        Raises:
            QueueFull: too many wait already, or the endpoint is being closed.
            DeadlineExceeded: the turn comes too late.
        """
        caller = context.caller
        if not any(self._lines) and self._has_room_for(caller) and not self._closed:
            permit = self._limiter.take_now(tokens)
            if permit is not None:
                self._count(permit, caller, tokens)
                return GenerationSlot(self, permit, caller, 0.0)
        now = self._clock()
        waiter = Waiter(context, tokens)
        self._admit(context, deadline, now)
        self._lines[context.bulk].add(waiter)
        self._wake()
        try:
            async with asyncio.timeout(deadline - now):
                await asyncio.shield(waiter.permit)
        except TimeoutError:
            self._leave(waiter)
            raise deadline_exceeded(self._clock() - now, in_queue=True) from None
        except BaseException:
            self._leave(waiter)
            raise
        return GenerationSlot(self, waiter.permit.result(), caller, self._clock() - now)

    async def close(self) -> None:
        """Refuse newcomers, send away who waits, and let what is in flight end."""
        self._closed = True
        waiters, self._lines = list(chain(*self._lines)), (Line(), Line())
        for waiter in waiters:
            waiter.permit.set_exception(endpoint_closing())
        if self._usher:
            self._usher.cancel()
        await self._idle.wait()

    def end(self, permit: Permit, caller: str) -> None:
        """A turn is over."""
        self._limiter.done(permit)
        self.in_flight -= 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        if not self.in_flight:
            self._idle.set()
        self._wake()

    def _admit(self, context: Context, deadline: float, now: float) -> None:
        if self._closed:
            raise endpoint_closing()
        queued = self.queued_calls
        # The usher's own wait is for one of them.
        wait = self._limiter.wait_estimate(self._ahead(context) + 1 - (self._usher is not None))
        if queued >= self._most:
            raise queue_full(queued, wait)
        if wait > deadline - now:
            raise deadline_unreachable(wait, deadline - now)

    def _ahead(self, context: Context) -> int:
        """How many turns are had before a newcomer's, at the least."""
        own = self._lines[context.bulk].ahead(context.caller, self._has_room_for)
        return own + min(len(self._lines[0]), (BULK_TURN_INTERVAL - 1) * own) if context.bulk else own

    def _wake(self) -> None:
        if self._usher is None and any(self._lines) and not self._closed and self._next_line() is not None:
            loop = asyncio.get_running_loop()
            self._usher = loop.create_task(self._serve(), context=contextvars.Context())

    async def _serve(self) -> None:
        """Get permits for those who wait. A permit comes first: until then anybody may still pass, or leave."""
        try:
            while line := self._next_line():
                permit = await self._limiter.take(line.first(self._has_room_for).tokens)
                if not self._grant(permit):
                    self._limiter.give_back(permit)
        finally:
            self._usher = None
            self._wake()

    def _grant(self, permit: Permit) -> bool:
        """Give a permit to whoever is next; not if all who could take it have left."""
        line = self._next_line()
        if line is None:
            return False
        passed_by = line is self._lines[0] and bool(self._lines[1])
        self._overtaken = self._overtaken + 1 if passed_by else 0
        waiter = line.first(self._has_room_for)
        line.pass_on(waiter)
        self._count(permit, waiter.context.caller, waiter.tokens)
        waiter.permit.set_result(permit)
        return True

    def _count(self, permit: Permit, caller: str, tokens: int) -> None:
        self._limiter.load(permit, texts=1, tokens=tokens)
        self.in_flight += 1
        self._held[caller] += 1
        self.requests += 1
        self._idle.clear()

    def _has_room_for(self, caller: str) -> bool:
        free = self._at_once - self.in_flight
        return free > self._kept_free or (free > 0 and caller not in self._held)

    def _next_line(self) -> Line | None:
        """Where somebody waits for whom there is room; `None` if nobody does."""
        interactive, bulk = (line if line.any(self._has_room_for) else None for line in self._lines)
        if bulk and self._overtaken >= BULK_TURN_INTERVAL - 1:
            return bulk
        return interactive or bulk

    def _leave(self, waiter: Waiter) -> None:
        if not waiter.permit.done():
            self._lines[waiter.context.bulk].remove(waiter)
            waiter.permit.cancel()
        elif not waiter.permit.cancelled() and waiter.permit.exception() is None:
            self.end(waiter.permit.result(), waiter.context.caller)  # granted in the moment of leaving


class GenerationSlot:
    """The right to ask once, until it is ended. `waited` is the seconds that it was waited for."""

    __slots__ = ("_caller", "_permit", "_turns", "waited")

    def __init__(self, turns: GenerationQueue, permit: Permit, caller: str, waited: float) -> None:
        self._turns = turns
        self._caller = caller
        self._permit: Permit | None = permit
        self.waited = waited

    @property
    def permit(self) -> Permit:
        """The permit of a turn that is not ended."""
        assert self._permit is not None  # noqa: S101 - its holder knows
        return self._permit

    def end(self) -> None:
        """Let the next one have it; a second time does nothing."""
        permit, self._permit = self._permit, None
        if permit is not None:
            self._turns.end(permit, self._caller)
