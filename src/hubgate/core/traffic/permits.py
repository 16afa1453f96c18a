"""The right to send one request now, the numbers that limit it, and which permit the request of a task has."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from hubgate.core.traffic.rate_limiter import RateLimiter  # noqa: TC004 - it imports this module

WINDOW = 60.05
"""A minute, and the difference of two clocks over it."""
MAX_STALL = 60.0
"""Seconds for which a silent server may still read a request."""


class LimitNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a rate limit: see `RateLimiter`."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    max_concurrent_texts: int | None = None
    burst: int = 1


class LoggedRequest(msgspec.Struct, eq=False, gc=False):
    """A request in the log of a rate limiter."""

    expires: float
    """When it stops counting."""
    tokens: int = 0
    send_by: float = -math.inf
    sent: bool = False


def former_requests(spent: Iterable[tuple[float, int]]) -> Iterator[LoggedRequest]:
    """What a former process, or a former limiter of this process, has sent: see `Reservation.spent`."""
    for expires, requests in spent:
        yield from (LoggedRequest(expires, sent=True) for _ in range(requests))


class Sender(Protocol):
    """What sends the request of a permit."""

    async def again(self, seconds: float, tokens: int) -> Permit:
        """Give back the permit and what else the request takes, and get all again for its next try.

        Args:
            seconds: until then, at least.
            tokens: of the request.
        """


class Permit(msgspec.Struct, eq=False):
    """The right to send one request now. Until it is filled it reserves all the room there is."""

    limiter: RateLimiter
    logged: LoggedRequest
    texts: int = 0
    """Of those that may be in flight."""
    in_flight: bool = False
    """Whether it holds one of the requests that may be in flight."""
    prove: Callable[[object], Awaitable[None]] | None = None
    """Awaited with the connection before the request is sent on it; raises if it must not be."""
    connection: object = None
    """The one that its request must be sent on; `None` for any."""
    sender: Sender | None = None
    """`None` if the request keeps its place until it has succeeded or failed."""

    @property
    def tokens(self) -> int:
        return self.logged.tokens

    def try_send(self) -> bool:
        """Mark the request as sent, if it may be sent under this permit now.

        It may not if the permit has lapsed, or if a request was sent under it already: see `renew`.
        """
        limiter = self.limiter
        if limiter.log is None:
            return True
        logged, now = self.logged, limiter.clock()
        if logged.sent or now > logged.send_by:
            return False
        logged.sent, logged.expires = True, now + MAX_STALL + WINDOW
        limiter.unconfirmed[logged] = now
        return True

    async def renew(self) -> None:
        """Wait for a new permit for a request that could not be sent. It keeps its place, and takes turns with new requests."""
        tokens = self.tokens
        if not self.logged.sent:
            self.limiter.unlog(self.logged)
        self.logged = (await self.limiter.acquire(tokens, retry=True)).logged

    def reply_started(self) -> None:
        """Note that the reply to the last request under this permit has begun."""
        limiter = self.limiter
        if limiter.log is None:
            return
        now, logged = limiter.clock(), self.logged
        limiter.unconfirmed.pop(logged, None)
        logged.expires = min(logged.expires, now + WINDOW)
        if now >= limiter.confirm_at:
            limiter.confirm(now)
        limiter.serve()


_CURRENT_PERMIT: ContextVar[Permit | None] = ContextVar("permit", default=None)
"""The permit of this task's request; `None` where no rate limit applies, as in a registration."""
current_permit = _CURRENT_PERMIT.get


class sending_under(msgspec.Struct):  # noqa: N801 - used like a function
    """Send what is sent in this context under the permit."""

    permit: Permit
    _before: Token[Permit | None] | None = None

    def __enter__(self) -> None:
        self._before = _CURRENT_PERMIT.set(self.permit)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _CURRENT_PERMIT.reset(self._before)
