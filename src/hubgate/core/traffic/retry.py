"""Retrying requests that may succeed the next time."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec.structs import replace

from hubgate.core.errors import error_for_caller
from hubgate.core.results import estimate_tokens, utf8_sizes
from hubgate.core.traffic.concurrency import MOST, ConcurrencyLimit
from hubgate.core.traffic.notices import Notice
from hubgate.core.traffic.permits import Permit, Sender, current_permit, sending_under
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Call, GenerationCall, Result
from hubgate.domain.errors import Cause, HubgateError, UpstreamError
from hubgate.domain.ports import Clock, Handler

if TYPE_CHECKING:  # it imports this module
    from hubgate.core.traffic.balancer import Balancer

C = TypeVar("C", bound="Call | GenerationCall")
R = TypeVar("R")

_TRANSIENT = frozenset({Cause.WAKING, Cause.OVERLOADED})
"""Retried until the caller's deadline."""
_TOO_MUCH_LOAD = frozenset({Cause.OVERLOADED, Cause.UPSTREAM_TIMEOUT})
_RESERVED_FOR_ERROR = 0.05
"""Seconds before the deadline at which waiting ends, so that the caller still gets the error."""
_MAX_HOLD = 600.0
"""Seconds; how long Hugging Face's proxy may hold a request, by its documentation."""
MAX_RETRY_AFTER = 300.0
"""Seconds for which a call waits: the longest rate limit window of Hugging Face. Longer is a limit of a day or a month."""
_AWAKE_SECONDS = 10.0
"""After an answer, for which the server cannot have gone to sleep: one text may make it, or a proxy, fail like that."""
_WAKING_SECONDS = 15.0
"""After which another gateway takes over from one that was killed while it woke the server."""


class Retrier:
    """Retries errors that are `retryable`, with growing pauses, within the caller's deadline.

    The first try uses the permit of the caller, unless it had to wait. For each further one, the request gives back its
    permit and its place, and gets others after a pause (see `Sender`). A call's first refusal (`retry_after`, overload)
    pauses the rate limiter, and so everybody who shares it, until others test that the server refuses them, too. Further
    ones pause the call alone. `quota` holds for all. One call wakes a server that sleeps, which may hold that call
    meanwhile; the others wait for it, also those at other gateways. These keep their places. While others are answered,
    a call that fails as if the server slept is retried alone.

    Args:
        limiter: the one that granted the first try's permit.
        places: learns from every try how many requests the server bears; `None` if nobody wants to know.
        tries: at most, for failures that time alone may not cure.
        patient: whether to wait for a server that sleeps, is overloaded or sets a time; not if there is a fallback.
        elsewhere: whether another server can take the call, so that this one need not be tried again.
        waking: by which gateways know that one of them wakes the server.
        first_pause: seconds before the second try; each pause is about twice the one before.
        longest_pause: seconds.
        clock: seconds that never go back.
        chance: numbers from 0 to 1, so that calls that failed together are not retried together.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        places: ConcurrencyLimit | None = None,
        tries: int = 3,
        patient: bool = True,
        elsewhere: Callable[[], bool] | None = None,
        waking: Notice | None = None,
        first_pause: float = 1.0,
        longest_pause: float = 5.0,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limiter = limiter
        self._places = ConcurrencyLimit(MOST, clock=clock) if places is None else places
        self._tries = tries
        self._patient = patient
        self._elsewhere = elsewhere
        self._transient = _TRANSIENT if patient else frozenset()
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._clock = clock
        self._chance = chance
        self._wake_up: _WakeUp | None = None
        """Set while a call wakes the server."""
        self._answered_at = -math.inf
        self._waking = waking if patient else None
        if self._waking is not None:
            self._waking.on_change = self._follow
            self._follow()

    @property
    def waking(self) -> bool:
        """Whether the server sleeps and a call is waking it."""
        return self._wake_up is not None

    async def run(
        self, send: Callable[[C], Awaitable[R]], call: C, tokens: int, deadline: float = math.inf
    ) -> R:
        """Send one call of about `tokens`, until its caller's deadline.

        Raises:
            HubgateError: what the last try raised.
        """
        plan: _Plan | None = None
        if self._wake_up is None:
            begun = self._places.begin()
            try:
                result = await send(call)
            except BaseException as error:
                _note_failure(self._places, begun, error)
                if not isinstance(error, HubgateError):
                    raise
                plan = await self._plan(error, call, 1, None, deadline, sent=begun)
                if plan is None:
                    raise
            else:
                self._places.answered(begun, tokens)
                self._note_answer(result, begun)
                return result
        return await self._go_on(send, call, tokens, deadline, plan)

    async def _go_on(
        self,
        send: Callable[[C], Awaitable[R]],
        call: C,
        tokens: int,
        deadline: float,
        plan: _Plan | None,
    ) -> R:
        """Try again as planned. Without a plan, try when the server is awake: the first permit may count no longer by then."""
        held, granted = current_permit(), None
        sender = held.sender if held is not None and self._elsewhere is None else None
        tries, mine = 0, None
        try:
            while True:
                if plan is not None:
                    tries, (pause, mine), plan = tries + 1, plan, None
                    if mine is not None:
                        call = _held(call, deadline - self._clock())
                    granted = await self._pause(pause, tokens, mine, sender)
                if self._wake_up is not mine and self._wake_up is not None:
                    await self._until_awake(self._wake_up, deadline)
                    granted = None  # it has lapsed
                    continue
                try:
                    attempt = self._with_permit(send, call, tokens, granted)
                    result = await (attempt if mine is None else self._in_time(attempt, mine, deadline))
                except HubgateError as error:
                    if mine is not None and mine.over.is_set():
                        mine = None  # another call was answered
                    plan = await self._plan(error, call, tries + 1, mine, deadline)
                    if plan is None:
                        raise
                else:
                    return result
        finally:
            if mine is not None:
                self._end_wake_up(mine)

    async def _plan(
        self,
        error: HubgateError,
        call: Call | GenerationCall,
        tries: int,
        mine: _WakeUp | None,
        deadline: float,
        *,
        sent: float | None = None,
    ) -> _Plan | None:
        """How to go on after an error; `None` if the call has failed."""
        if error.cause is Cause.UPSTREAM_TIMEOUT and isinstance(call, GenerationCall):
            error.retryable = False  # the text takes as long again, and the server may still be working on it
        first = tries == 1 and not call.context.refused
        pause = self._backoff(error, tries, self._clock() if sent is None else sent, first=first)
        if self._patient and error.cause is Cause.OVERLOADED and not call.context.waits:
            return None
        if not self._should_retry(error, tries, pause, deadline):
            return None
        if error.cause is Cause.WAKING and self._may_sleep():
            mine = await self._start_wake_up(error)
        return pause, mine

    def _may_sleep(self) -> bool:
        """Whether a call that fails like that is to wake the server."""
        is_awake = self._clock() - self._answered_at < _AWAKE_SECONDS
        return self._patient and self._wake_up is None and not is_awake

    async def _start_wake_up(self, error: HubgateError) -> _WakeUp | None:
        """What the call that wakes the server has to end; `None` if another gateway wakes it."""
        self._wake_up = wake_up = _WakeUp(error_for_caller(error, shared=True))
        if self._waking is not None:
            try:
                wake_up.elsewhere = await self._waking.claim(_WAKING_SECONDS, keep=True) > 0
            except asyncio.CancelledError:
                self._end_wake_up(wake_up)
                raise
            if wake_up.over.is_set() and not wake_up.elsewhere:  # meanwhile, a call was answered
                self._waking.remove()
        return None if wake_up.elsewhere or wake_up.over.is_set() else wake_up

    def _end_wake_up(self, wake_up: _WakeUp) -> None:
        if self._wake_up is not wake_up:
            return
        self._wake_up = None
        wake_up.over.set()
        if self._waking is not None:
            self._waking.remove()

    def _follow(self) -> None:
        """Wait for another gateway that wakes the server, or no longer."""
        wakes_elsewhere = self._waking is not None and self._waking.of_others is not None
        if wakes_elsewhere and self._wake_up is None:
            self._wake_up = _WakeUp(_asleep(), elsewhere=True)
        elif not wakes_elsewhere and self._wake_up is not None and self._wake_up.elsewhere:
            self._wake_up.over.set()
            self._wake_up = None

    async def _until_awake(self, wake_up: _WakeUp, deadline: float) -> None:
        if self._elsewhere is not None and self._elsewhere():
            raise wake_up.still_asleep()
        await self._in_time(wake_up.over.wait(), wake_up, deadline)

    async def _in_time(self, awaited: Awaitable[R], wake_up: _WakeUp, deadline: float) -> R:
        """Wait for a sleeping server until shortly before the deadline."""
        limit = deadline - self._clock() - _RESERVED_FOR_ERROR if deadline < math.inf else None
        try:
            async with asyncio.timeout(limit):
                return await awaited
        except TimeoutError:
            raise wake_up.still_asleep() from None

    def _should_retry(self, error: HubgateError, tries: int, pause: float, deadline: float) -> bool:
        wait = max(pause, self._limiter.estimate_wait())
        if self._elsewhere is not None and self._elsewhere():
            return False
        if error.retry_after and not self._patient:
            return False
        if (error.retry_after or 0.0) > MAX_RETRY_AFTER and error.cause is not Cause.WAKING:
            return False
        exhausted = tries >= self._tries and error.cause not in self._transient
        return error.retryable and not exhausted and self._clock() + wait < deadline

    async def _pause(
        self, seconds: float, tokens: int, mine: _WakeUp | None, sender: Sender | None
    ) -> Permit | None:
        """Wait before the next try. Returns its permit, unless the request keeps its place."""
        if self._wake_up is not mine:
            return None
        if mine is None and sender is not None:
            return await sender.again(seconds, tokens)
        await asyncio.sleep(seconds)
        return None

    async def _with_permit(
        self, send: Callable[[C], Awaitable[R]], call: C, tokens: int, granted: Permit | None
    ) -> R:
        permit, places = granted or await self._limiter.acquire(tokens, retry=True), self._places
        begun = places.begin()
        try:
            with sending_under(permit):
                result = await send(call)
            places.answered(begun, tokens)
            self._note_answer(result, begun)
        except BaseException as error:
            _note_failure(places, begun, error)
            raise
        finally:
            if permit is not granted:
                self._limiter.release(permit)
        return result

    def _backoff(self, error: HubgateError, tries: int, sent: float, *, first: bool) -> float:
        """Seconds until the next try of what was sent then. Pauses others, too, if the server may refuse them."""
        pause = min(self._first_pause * 2.0 ** (tries - 1), self._longest_pause) * (1 + self._chance()) / 2
        if error.retry_after is not None:
            pause = min(error.retry_after, MAX_RETRY_AFTER)
        if error.retry_after or error.cause is Cause.OVERLOADED:
            self._limiter.refused(pause, sent=sent, first=first)
        return pause

    def _note_answer(self, result: object, sent: float) -> None:
        self._answered_at = now = self._clock()
        if self._wake_up is not None and not self._wake_up.elsewhere:
            self._end_wake_up(self._wake_up)
        if self._limiter.refusal.tests:
            self._limiter.refusal.accepted(now, sent=sent)
            self._limiter.serve()
        quota = getattr(result, "quota", None)
        if quota is not None:
            self._limiter.throttle(quota.seconds, quota.remaining)


def _note_failure(places: ConcurrencyLimit, begun: float, error: BaseException) -> None:
    if isinstance(error, HubgateError) and error.cause in _TOO_MUCH_LOAD:
        places.refused(begun)
    else:
        places.abandoned()


class RetryStep:
    """A pipeline step that retries calls about texts."""

    def __init__(self, handler: Handler, retrier: Retrier | Balancer) -> None:
        self._handler = handler
        self._retrier = retrier

    def __call__(self, call: Call) -> Coroutine[Any, Any, Result]:
        tokens = estimate_tokens(sum(utf8_sizes(call.texts)), texts=len(call.texts))
        deadline = math.inf if call.context.deadline is None else call.context.deadline
        return self._retrier.run(self._handler, call, tokens, deadline)


@dataclass(slots=True, eq=False)
class _WakeUp:
    error: HubgateError
    """A copy of the server's error: the traceback of the original holds this object."""
    elsewhere: bool = False
    """Whether another gateway wakes it."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def still_asleep(self) -> HubgateError:
        error = error_for_caller(self.error, shared=True)
        error.message = "The model's server is waking up and did not answer before the call's deadline."
        error.args = (error.message,)
        return error


_Plan: TypeAlias = tuple[float, _WakeUp | None]
"""Seconds until the next try, and the wake-up that the call has to end."""


def _asleep() -> UpstreamError:
    return UpstreamError(
        "The model's server is waking up.",
        remedy="Try again in a few minutes; to keep it awake, set its minimum replicas to 1.",
        cause=Cause.WAKING,
        retryable=True,
    )


def _held(call: C, seconds: float) -> C:
    """The call, with the server allowed to hold it while it wakes up."""
    return replace(call, context=replace(call.context, hold=max(1.0, min(seconds, _MAX_HOLD))))
