"""One of several servers of a model: whether it takes calls, and whether it still runs the registered model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakSet

from hubgate.core.errors import error_for_caller
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.notices import Notice
from hubgate.core.traffic.permits import sending_under
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier
from hubgate.domain.errors import Cause, EndpointChanged, HubgateError
from hubgate.domain.ports import Clock

_log = logging.getLogger(__name__)

INPUT_ERRORS = frozenset(
    {Cause.INVALID_REQUEST, Cause.INPUT_REFUSED, Cause.INPUT_TOO_LONG, Cause.BODY_TOO_LARGE}
)
"""Every replica would refuse the call."""
_MAYBE_INPUT = frozenset(
    {
        Cause.UPSTREAM_FAILED,
        Cause.UPSTREAM_TIMEOUT,
        Cause.OVERLOADED,
        Cause.UNREADABLE_REPLY,
        Cause.TOKEN_LEVEL_REPLY,
        Cause.WRONG_COUNT,
        Cause.NOT_A_NUMBER,
    }
)
"""One call may be the reason, so only several failures in a row take a replica out of service."""
_MAX_FAILURES = 3
RECHECK_SECONDS = 30.0
"""Between two tests of what runs at a server whose replies raise doubts, so that callers cannot cause one for each call."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


class Replica:
    """One of several servers of a model.

    Args:
        name: its host, for messages.
        limiter: its rate limit.
        places: how many requests may be in flight there.
        prove: asks the server whether it still runs the registered model. Raises `EndpointChanged` if it does not.
        waking: by which gateways know that one of them wakes it.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        limiter: RateLimiter,
        prove: Callable[[], Awaitable[None]],
        *,
        places: ConcurrencyLimit,
        waking: Notice | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.limiter = limiter
        self.waking = waking
        self.retrier: Retrier | None = None
        self.places = places
        self.requests = 0
        """Sent so far, without retries and proofs."""
        self.error: HubgateError | None = None
        """Why it takes no calls; `None` while it does."""
        self.retry_at = -math.inf
        """When it is tried again, if it takes no calls."""
        self.testing = False
        self.suspect = False
        """Whether it returned a vector of another size, so that it must be tested."""
        self._suspect_again_at = -math.inf
        self._prove = prove
        self._clock = clock
        self._pause = _FIRST_PAUSE
        self._failures = 0
        self._proven: WeakSet[Any] = WeakSet()
        """The connections on which the registered model was found."""

    @property
    def in_flight(self) -> int:
        return self.places.in_flight

    @property
    def ready(self) -> bool:
        """Whether it takes calls."""
        return self.error is None

    @property
    def changed(self) -> bool:
        """Whether it runs another model."""
        return isinstance(self.error, EndpointChanged)

    async def prove(self, connection: object = None) -> None:
        """Prove that it runs the registered model, on a connection that was not proven yet, or on any.

        Raises:
            EndpointChanged: it runs another one.
            HubgateError: it does not answer.
        """
        if connection is not None and connection in self._proven:
            return
        permit = await self.limiter.acquire(retry=True)
        permit.connection = connection
        try:
            with sending_under(permit):
                await self._prove()
        finally:
            self.limiter.release(permit)
        if connection is not None:
            self._proven.add(connection)

    def check_unchanged(self) -> None:
        """Raises: EndpointChanged: it is known to run another model."""
        if isinstance(self.error, EndpointChanged):
            raise error_for_caller(self.error, shared=False)

    def succeeded(self) -> None:
        """Take calls again."""
        if not self.ready:
            _log.info("replica %s takes calls again", self.name)
        self._failures, self._pause, self.error = 0, _FIRST_PAUSE, None

    def failed(self, error: HubgateError, *, in_test: bool = False) -> None:
        """Count a failure. It takes no more calls if the server is the reason."""
        if error.cause in INPUT_ERRORS:
            return
        now = self._clock()
        if error.cause is Cause.DIMENSIONS_CHANGED:  # due to one text or to another model: a test shows which
            if now >= self._suspect_again_at:
                self.suspect, self._suspect_again_at = True, now + RECHECK_SECONDS
            return
        self._failures += 1
        if self.ready and not in_test and error.cause in _MAYBE_INPUT and self._failures < _MAX_FAILURES:
            return
        if self.ready:
            _log.warning("replica %s takes no calls: %s", self.name, error)
            self._pause, self.retry_at = _FIRST_PAUSE, now + _FIRST_PAUSE
        elif now >= self.retry_at:  # this was the test; other failures are of calls that were in flight
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self.retry_at = now + self._pause
        self.error = error_for_caller(error, shared=not isinstance(error, EndpointChanged))
