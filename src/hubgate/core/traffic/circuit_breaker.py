"""A circuit breaker: requests to a server that keeps failing are paused for a while."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass

from hubgate.core.errors import error_for_caller
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.notices import Notice
from hubgate.domain.calls import Call, Result
from hubgate.domain.errors import (
    Cause,
    HubgateError,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from hubgate.domain.ports import Clock, Handler

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
_SHARED_CAUSES = {str(cause) for cause in _SERVER_FAILURES}
_MAYBE_CALLERS_INPUT = frozenset({Cause.CONNECTION_LOST, Cause.UPSTREAM_TIMEOUT, Cause.UPSTREAM_FAILED})
"""A server may crash, take too long or fail on what one caller sends, and work for all others."""
_MAYBE_NETWORK = frozenset(
    {
        Cause.NAME_NOT_RESOLVED,
        Cause.CONNECTION_REFUSED,
        Cause.CONNECTION_LOST,
        Cause.TLS_FAILED,
        Cause.UPSTREAM_TIMEOUT,
    }
)
"""The way from one gateway to the server may be broken, and that of others not."""
_NOBODY = "-"
_CLOSED = "closed"
_CLOSED_SECONDS = 10.0
"""For which others can read that the server works again."""
_EXTENDED = 0.5
"""Seconds by which the pause must grow to be worth a notice."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerNotices:
    """By which the breakers of one endpoint at several gateways act together."""

    state: Notice
    """That calls are paused, why, and for how long; or that the server works again."""
    test: Notice
    """That a gateway is testing the server."""


class CircuitBreaker:
    """Opens after several failures in a row. Then one call at a time may test whether the server works again.

    While all failures are one caller's, and may be due to that caller's input, it opens for that caller alone.

    Among gateways, it opens when that of another one opens, unless the reason may be the other's network and a call
    has succeeded here since the last pause would have begun. One call of all gateways is the test.

    Args:
        failures: in a row, after which it opens.
        pause: seconds until the first test; each failed test doubles them.
        longest_pause: seconds.
        notices: shared with other gateways.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        pause: float = 5.0,
        longest_pause: float = 60.0,
        notices: BreakerNotices | None = None,
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
        self._notices = notices
        self._known_until: float | None = None
        """Until when all gateways know that it is open, if they do."""
        self._succeeded_at = -math.inf
        """When a call succeeded last, where that matters."""
        if notices is not None:
            notices.state.on_change = self._follow
            self._follow()

    @property
    def cause(self) -> Cause | None:
        """Why the breaker is open, if it is."""
        return self._last.cause if self._last and self._failures >= self._max_failures else None

    def check(self, caller: str) -> Awaitable[None] | None:
        """Let a call pass, or not. What is returned must be awaited first: it may raise the same error.

        Raises:
            HubgateError: a copy of the server's last failure, with the time to retry.
        """
        if (
            self._last is None
            or self._failures < self._max_failures
            or self._suspect not in {_NOBODY, caller}
        ):
            return None
        now = self._clock()
        if now >= self._open_until:
            self._open_until = now + self._pause  # the next test, if this one gives no result
            self._testing = True
            return None if self._notices is None or self._known_until is None else self._claim_test()
        raise self._rejection(self._last, self._open_until - now)

    def succeeded(self) -> None:
        """Note that a call succeeded."""
        if self._notices is not None:
            self._succeeded_at = self._clock()
            if self._known_until is not None:
                self._notices.state.post(_CLOSED, _CLOSED_SECONDS)
                self._notices.test.remove()
        if self._last is not None:
            self._close()

    def failed(self, error: UpstreamError, caller: str) -> None:
        """Note that a caller's call failed."""
        if error.cause in _SERVER_FAILURES:
            self._record(error, caller)

    def _close(self) -> None:
        self._failures, self._pause, self._last, self._testing = 0, self._first_pause, None, False
        self._known_until = None

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
            self._announce()

    def _announce(self) -> None:
        """Let other gateways know that it is open, if it is so for all callers."""
        known_until = -math.inf if self._known_until is None else self._known_until
        if self._notices is None or self._suspect != _NOBODY or self._open_until < known_until + _EXTENDED:
            return
        self._known_until = self._open_until
        status = self._last.status if isinstance(self._last, UpstreamRefused) else 0
        self._notices.state.post(f"{self.cause} {self._pause:g} {status}", self._pause)

    def _follow(self) -> None:
        """Do as another gateway has done."""
        posted = self._notices.state.of_others if self._notices else None
        if posted is None:
            return
        text, seconds = posted
        if text == _CLOSED:
            if self._known_until is not None:
                self._close()
            return
        cause, pause, status, *_ = [*text.split(), "", "", ""]
        now = self._clock()
        if cause not in _SHARED_CAUSES or not status:
            return  # a newer version of hubgate has written it
        if cause in _MAYBE_NETWORK and self._succeeded_at > now - self._first_pause:
            return
        if self._known_until is None:
            _log.warning("requests to a model's server are paused, as another gateway does: %s", cause)
        self._last = _failure_elsewhere(Cause(cause), int(status))
        self._failures, self._suspect, self._pause = self._max_failures, _NOBODY, float(pause)
        self._open_until = self._known_until = now + seconds

    async def _claim_test(self) -> None:
        """Raises: HubgateError: another gateway is testing the server."""
        assert self._notices is not None  # noqa: S101 - asked before
        seconds = await self._notices.test.claim(self._pause)
        if seconds and self._last is not None:
            self._testing, self._open_until = False, self._clock() + min(seconds, self._pause)
            raise self._rejection(self._last, self._open_until - self._clock())


def _failure_elsewhere(cause: Cause, status: int) -> UpstreamError:
    message = f"The model's server failed requests of another gateway ({cause})."
    remedy = "The log of that gateway has the details."
    if status:
        return UpstreamRefused(message, status=status, cause=cause, remedy=remedy)
    return UpstreamUnreachable(message, cause=cause, remedy=remedy)


class BreakerGate:
    """Above the queue: rejects calls at once, so that nobody waits for a server that fails."""

    def __init__(self, handler: Handler, breaker: CircuitBreaker | Balancer) -> None:
        self._handler = handler
        self._breaker = breaker

    async def __call__(self, call: Call) -> Result:
        if agreement := self._breaker.check(call.context.caller):
            await agreement
        return await self._handler(call)


class BreakerMonitor:
    """Below the queue, where one call is one request: learns whether the server works."""

    def __init__(self, handler: Handler, breaker: CircuitBreaker | Balancer) -> None:
        self._handler = handler
        self._breaker = breaker

    async def __call__(self, call: Call) -> Result:
        try:
            result = await self._handler(call)
        except UpstreamError as error:
            self._breaker.failed(error, call.context.caller)
            raise
        self._breaker.succeeded()
        return result
