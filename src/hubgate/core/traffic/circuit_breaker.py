"""A circuit breaker: requests to a server that fails again and again are paused for a while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hubgate.core.errors import error_for_caller
from hubgate.domain.calls import Call, GenerationCall, Result
from hubgate.domain.errors import Cause, HubgateError, UpstreamError
from hubgate.domain.ports import Clock, Handler

C = TypeVar("C", bound="Call | GenerationCall")
R = TypeVar("R")

_SERVERS_FAULT = frozenset(
    {
        Cause.NAME_NOT_RESOLVED,
        Cause.CONNECTION_REFUSED,
        Cause.CONNECTION_LOST,
        Cause.TLS_FAILED,
        Cause.UPSTREAM_TIMEOUT,
        Cause.UPSTREAM_FAILED,
        Cause.TOKEN_MISSING,
        Cause.WRONG_TOKEN,
        Cause.TOKEN_LACKS_SCOPE,
        Cause.OUT_OF_CREDIT,
        Cause.PAUSED,
        Cause.NOT_AN_API,
    }
)
"""Not refused for what was asked. Waking and overload are waited for elsewhere."""
_PERHAPS_A_CALLERS = frozenset({Cause.CONNECTION_LOST, Cause.UPSTREAM_TIMEOUT, Cause.UPSTREAM_FAILED})
"""A server may crash, take too long or fail over what one caller sends, and be well for all others."""
_NOBODY = "-"


class CircuitBreaker:
    """Opens after some failures in a row; then one call at a time may try whether the server is well again.

    While all of them are one caller's, and may be that caller's doing, it opens for that caller alone.

    Args:
        failures: in a row, after which it opens.
        rest: seconds until the first trial; each that fails doubles them.
        longest_rest: seconds.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        rest: float = 5.0,
        longest_rest: float = 60.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._most = failures
        self._first_rest = rest
        self._longest_rest = longest_rest
        self._clock = clock
        self._failures = 0
        self._rest = rest
        self._last: HubgateError | None = None
        self._suspect = _NOBODY
        """The one caller whose doing all the failures may be."""
        self._open_until = 0.0
        self._on_trial = False
        """Whether a trial is under way. Others that fail meanwhile were sent before it opened."""

    @property
    def cause(self) -> Cause | None:
        """Why calls are refused now, if they are."""
        return self._last.cause if self._last and self._failures >= self._most else None

    def check(self, caller: str) -> None:
        """Let a call pass, or not.

        Raises:
            HubgateError: the one that the server failed with last, and when to ask again.
        """
        if self._last is None or self._failures < self._most or self._suspect not in {_NOBODY, caller}:
            return
        now = self._clock()
        if now >= self._open_until:
            self._open_until = now + self._rest  # if the trial comes to nothing, the next one is then
            self._on_trial = True
            return
        raise self._refusal(self._last, self._open_until - now)

    async def watch(self, ask: Callable[[C], Awaitable[R]], call: C) -> R:
        """Ask, and note how it went.

        Raises:
            HubgateError: what asking raises.
        """
        try:
            result = await ask(call)
        except UpstreamError as error:
            if error.cause in _SERVERS_FAULT:
                self._note(error, call.context.caller)
            raise
        self._failures, self._rest, self._last, self._on_trial = 0, self._first_rest, None, False
        return result

    def _refusal(self, last: HubgateError, seconds: float) -> HubgateError:
        error = error_for_caller(last, strangers=True)
        error.message = (
            f"Requests to the model's server are paused: the last {self._failures} failed ({error.cause})."
        )
        error.args = (error.message,)
        error.retryable, error.retry_after = True, seconds
        return error

    def _note(self, error: HubgateError, caller: str) -> None:
        suspected = self._failures == 0 or self._suspect == caller
        self._suspect = caller if suspected and error.cause in _PERHAPS_A_CALLERS else _NOBODY
        self._failures += 1
        self._last = error_for_caller(
            error, strangers=True
        )  # its traceback would hold on to the whole request
        if self._failures >= self._most:
            if self._on_trial:
                self._rest, self._on_trial = min(self._rest * 2, self._longest_rest), False
            self._open_until = self._clock() + self._rest


class BreakerGate:
    """Stands above the queue, so that nobody waits for a turn at a server that is not well."""

    def __init__(self, answer: Handler, breaker: CircuitBreaker) -> None:
        self._answer = answer
        self._breaker = breaker

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        self._breaker.check(call.context.caller)
        return await self._answer(call)


class BreakerMonitor:
    """Stands below the queue, where a request is a request."""

    def __init__(self, answer: Handler, breaker: CircuitBreaker) -> None:
        self._answer = answer
        self._breaker = breaker

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        return await self._breaker.watch(self._answer, call)
