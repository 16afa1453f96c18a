"""Trying again what may succeed the next time."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hubgate.core.errors import error_for_caller
from hubgate.core.results import estimate_tokens, utf8_size
from hubgate.core.traffic.rate_limiter import RateLimiter, sending_under
from hubgate.domain.calls import Call, GenerationCall, Result
from hubgate.domain.errors import Cause, HubgateError
from hubgate.domain.ports import Clock, Handler

C = TypeVar("C", bound="Call | GenerationCall")
R = TypeVar("R")

_PASSES = frozenset({Cause.WAKING, Cause.OVERLOADED})
"""What time alone cures: it is asked again for as long as the caller can wait."""
_TELLING = 0.05
"""Seconds before the deadline."""
_LONGEST_HOLD = 600.0
"""Seconds; what Hugging Face's documentation lets its proxy hold a request for."""
_LONGEST_SILENCE = 300.0
"""Seconds after which a server is asked again whatever it said: the longest rate limit window of Hugging Face."""


class Retrier:
    """Asks again after errors that are `retryable`, with growing pauses, within the caller's deadline.

    The first try uses the permit of whoever calls this, unless it has to wait; every further one takes its own. What the server says of
    its load (`retry_after`, its `quota`, or that it is overloaded) slows the rate limit, and so everybody who shares it.
    A server that sleeps is woken by one call, which it may hold meanwhile; the others wait for that one.

    Args:
        rate limit: the one that the first try's permit is of.
        tries: how many at most, of failures that time alone may not cure.
        patient: whether a server that sleeps, is overloaded or says when to come again is waited for; not where another
            endpoint stands in.
        first_pause: seconds before the second try; each pause is about twice the one before.
        longest_pause: seconds.
        clock: seconds that never go back.
        chance: numbers from 0 to 1, so that many who failed together do not come back together.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        tries: int = 3,
        patient: bool = True,
        first_pause: float = 1.0,
        longest_pause: float = 5.0,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limiter = limiter
        self._tries = tries
        self._patient = patient
        self._passes = _PASSES if patient else frozenset()
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._clock = clock
        self._chance = chance
        self._alarm: _Alarm | None = None
        """While somebody wakes the server."""

    @property
    def waking(self) -> bool:
        """Whether the server sleeps, and somebody wakes it."""
        return self._alarm is not None

    async def ask(
        self, ask: Callable[[C], Awaitable[R]], call: C, tokens: int, deadline: float = math.inf
    ) -> R:
        """Ask for one call, of about so many tokens, until its caller's deadline.

        Raises:
            HubgateError: what the last try raised.
        """
        tried, mine, late = 0, None, False
        try:
            while True:
                if self._alarm is not mine and self._alarm is not None:
                    await self._in_time(self._alarm.over.wait(), self._alarm, deadline)
                    late = True  # the server may be awake long after the permit has ceased to count
                    continue
                try:
                    asking = self._again(ask, call, tokens) if tried or late else ask(call)
                    result = await (asking if mine is None else self._in_time(asking, mine, deadline))
                except HubgateError as error:
                    tried += 1
                    pause = self._heed(error, tried)
                    if not self._worth_another(error, tried, pause, deadline):
                        raise
                    if error.cause is Cause.WAKING and error.cause in self._passes and self._alarm is None:
                        self._alarm = mine = _Alarm(error_for_caller(error, strangers=True))
                    if mine is not None:
                        call = _held(call, deadline - self._clock())
                else:
                    return self._noted(result)
                if self._alarm is mine:
                    await asyncio.sleep(pause)
        finally:
            if mine is not None:
                self._alarm = None
                mine.over.set()

    async def _in_time(self, waited_for: Awaitable[R], alarm: _Alarm, deadline: float) -> R:
        """Wait for a server that sleeps, so long that its caller can still be told that it does."""
        try:
            async with asyncio.timeout(deadline - self._clock() - _TELLING if deadline < math.inf else None):
                return await waited_for
        except TimeoutError:
            raise alarm.still_asleep() from None

    def _worth_another(self, error: HubgateError, tried: int, pause: float, deadline: float) -> bool:
        wait = max(pause, self._limiter.wait_estimate())
        if error.retry_after and not self._patient:
            return False
        spent = tried >= self._tries and error.cause not in self._passes
        return error.retryable and not spent and self._clock() + wait < deadline

    async def _again(self, ask: Callable[[C], Awaitable[R]], call: C, tokens: int) -> R:
        permit = await self._limiter.take(tokens, again=True)
        try:
            with sending_under(permit):
                return await ask(call)
        finally:
            self._limiter.done(permit)

    def _heed(self, error: HubgateError, tried: int) -> float:
        """Seconds until the next try; tells the rate limit what the server said."""
        pause = min(self._first_pause * 2.0 ** (tried - 1), self._longest_pause) * (1 + self._chance()) / 2
        if error.retry_after is not None:
            pause = min(error.retry_after, _LONGEST_SILENCE)
        if error.retry_after or error.cause is Cause.OVERLOADED:
            self._limiter.slow_down(pause)
        return pause

    def _noted(self, result: R) -> R:
        quota = getattr(result, "quota", None)
        if quota is not None:
            self._limiter.slow_down(quota.seconds, quota.remaining)
        return result


class RetryStep:
    """`Retrier` around an answer; the options are its."""

    def __init__(self, answer: Handler, retries: Retrier) -> None:
        self._answer = answer
        self._retries = retries

    async def __call__(self, call: Call) -> Result:
        """Answer one call.

        Raises:
            HubgateError: what the last try raised.
        """
        tokens = estimate_tokens(sum(map(utf8_size, call.texts)), texts=len(call.texts))
        deadline = math.inf if call.context.deadline is None else call.context.deadline
        return await self._retries.ask(self._answer, call, tokens, deadline)


@dataclass(slots=True, eq=False)
class _Alarm:
    error: HubgateError
    """What the server said; a copy, as the traceback of the one that was raised holds this alarm."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def still_asleep(self) -> HubgateError:
        """The error for a call whose time is up."""
        error = error_for_caller(self.error, strangers=True)
        error.message = "The model's server is waking up, and did not answer in the call's time."
        error.args = (error.message,)
        return error


def _held(call: C, seconds: float) -> C:
    """The same call, for which a server that wakes may take its time."""
    return replace(call, context=replace(call.context, hold=max(1.0, min(seconds, _LONGEST_HOLD))))
