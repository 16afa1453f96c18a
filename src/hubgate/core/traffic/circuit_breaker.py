"""A circuit breaker: requests to a server that keeps failing are paused for a while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hubgate.core.errors import error_for_caller
from hubgate.core.traffic.balancer import Balancer
from hubgate.domain.calls import Call, GenerationCall, Result
from hubgate.domain.errors import Cause, HubgateError, UpstreamError
from hubgate.domain.ports import Clock, Handler

C = TypeVar("C", bound="Call | GenerationCall")
R = TypeVar("R")

_SERVER_FAILURES = frozenset(
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
"""Independent of what was requested. Waking and overload are the retrier's."""
_MAYBE_CALLERS_INPUT = frozenset({Cause.CONNECTION_LOST, Cause.UPSTREAM_TIMEOUT, Cause.UPSTREAM_FAILED})
"""A server may crash, take too long or fail on what one caller sends, and work for all others."""
_NOBODY = "-"


class CircuitBreaker:
    """Opens after several failures in a row. Then one call at a time may test whether the server works again.

    While all failures are one caller's, and may be due to that caller's input, it opens for that caller alone.

    Args:
        failures: in a row, after which it opens.
        pause: seconds until the first test; each failed test doubles them.
        longest_pause: seconds.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        pause: float = 5.0,
        longest_pause: float = 60.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._max_failures = failures
        self._first_pause = pause
        self._longest_pause = longest_pause
        self._clock = clock
        self._failures = 0
        self._pause = pause
        self._last: HubgateError | None = None
        self._suspect = _NOBODY
        """The only caller with failures, if its input may be the reason."""
        self._open_until = 0.0
        self._testing = False
        """Whether a test is under way. Other calls that fail meanwhile were sent before it opened."""

    @property
    def cause(self) -> Cause | None:
        """Why the breaker is open, if it is."""
        return self._last.cause if self._last and self._failures >= self._max_failures else None

    def check(self, caller: str) -> None:
        """Let a call pass, or not.

        Raises:
            HubgateError: a copy of the server's last failure, with the time to retry.
        """
        if (
            self._last is None
            or self._failures < self._max_failures
            or self._suspect not in {_NOBODY, caller}
        ):
            return
        now = self._clock()
        if now >= self._open_until:
            self._open_until = now + self._pause  # the next test, if this one gives no result
            self._testing = True
            return
        raise self._rejection(self._last, self._open_until - now)

    async def watch(self, send: Callable[[C], Awaitable[R]], call: C) -> R:
        """Send a call, and learn from its outcome.

        Raises:
            HubgateError: what `send` raises.
        """
        try:
            result = await send(call)
        except UpstreamError as error:
            if error.cause in _SERVER_FAILURES:
                self._record(error, call.context.caller)
            raise
        self._failures, self._pause, self._last, self._testing = 0, self._first_pause, None, False
        return result

    def _rejection(self, last: HubgateError, seconds: float) -> HubgateError:
        error = error_for_caller(last, shared=True)
        error.message = (
            f"Requests to the model's server are paused: the last {self._failures} failed ({error.cause})."
        )
        error.args = (error.message,)
        error.retryable, error.retry_after = True, seconds
        return error

    def _record(self, error: HubgateError, caller: str) -> None:
        suspected = self._failures == 0 or self._suspect == caller
        self._suspect = caller if suspected and error.cause in _MAYBE_CALLERS_INPUT else _NOBODY
        self._failures += 1
        self._last = error_for_caller(error, shared=True)  # the original's traceback holds the whole request
        if self._failures >= self._max_failures:
            if self._testing:
                self._pause, self._testing = min(self._pause * 2, self._longest_pause), False
            self._open_until = self._clock() + self._pause


class BreakerGate:
    """Above the queue: rejects calls at once, so that nobody waits for a server that fails."""

    def __init__(self, handler: Handler, breaker: CircuitBreaker | Balancer) -> None:
        self._handler = handler
        self._breaker = breaker

    async def __call__(self, call: Call) -> Result:
        self._breaker.check(call.context.caller)
        return await self._handler(call)


class BreakerMonitor:
    """Below the queue, where one call is one request: learns whether the server works."""

    def __init__(self, handler: Handler, breaker: CircuitBreaker | Balancer) -> None:
        self._handler = handler
        self._breaker = breaker

    async def __call__(self, call: Call) -> Result:
        return await self._breaker.watch(self._handler, call)
