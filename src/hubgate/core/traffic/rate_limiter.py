"""The rate limit: how often, and how much at once, an upstream may be asked.

The promise is about the server: no 60 seconds there hold more requests than allowed, also across a restart or crash
of the gateway. A request counts from the grant of its permit until a window (a minute and 50 ms, because two clocks
may disagree) after some moment `e` that is never before the server has read it. That is enough. Take the requests that
the server reads within any 60 seconds [t, t + 60), and of them the one granted last, at `g`. Every other one was
granted before, and still counts at `g`: its `e` is not before t, so it counts beyond t + 60, and t + 60 > g. So all of
them are among those that count at `g`, and these are never more than the rate limit.

What `e` is, for a request that left at `l` (at most `_LEAD` after its grant: if connecting takes longer, the permit
has lapsed, and another one is taken before anything is sent):

- The reply has begun: e is that moment. A server reads before it answers.
- The server has begun to reply to any other request at `h`, at least `margin` after l: e is h + margin. A server that
  answers is running, and reads what waits for it within the margin. So an abandoned request and a slow reply cost
  little, and a server that stands still (stopped, swapped out, cut off) costs no promise: what waits in its sockets
  counts until it runs again.
- Neither, because the server is silent: e is l + `_SILENCE`. A server that stands still for longer may find more
  than the rate limit when it goes on. Nobody can tell such a server from a dead one, which must be tried again.

Across a restart: permits are granted only from a reserve that has been written down (`core.traffic.reservations`), with the
moment until which they count at the latest: `PERMIT_SECONDS` after they could last be granted. A new process begins with
all that its predecessor wrote down in its log, so the argument above holds for the two together, as long as the
server runs while the gateway restarts, and the system's clock is not set forward meanwhile.

The price: over the first minute exactly the rate limit is admitted (3,000 a minute: one each 20 ms, the last at
59.98 s); every further round of 3,000 begins one round trip and 50 ms later than a minute after, or, where replies
take long, about two margins later.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hubgate.core.traffic.reservations import Reserve
from hubgate.domain.ports import Clock

MARGIN = 1.0
"""Seconds from leaving here until a running server has read a request."""
_WINDOW = 60.05
"""A minute, and by how much two clocks may disagree on one."""
_LEAD = 0.5
"""Seconds from the grant of a permit until its request must have left."""
_SILENCE = 60.0
"""Seconds for which a server that says nothing is believed to read a request later."""
PERMIT_SECONDS = _LEAD + MARGIN + _WINDOW
"""Seconds after its grant for which a permit counts, at a server that runs."""
_EARLY = 0.001
"""Timers of event loops may fire early by their resolution."""
_LATE = 0.02
"""Lateness of a timer that is made up for; after a longer standstill permits are spaced anew."""
_UNLIMITED = 1 << 62
_MOST = 1 << 40
"""More than one request ever carries."""


@dataclass(slots=True, eq=False)
class LoggedRequest:
    """One request, as the log of a rate limit counts it."""

    expires: float
    """When it stops to count."""
    tokens: int = 0
    """Of this minute's."""
    leave_by: float = -math.inf
    left: bool = False


@dataclass(slots=True, eq=False)
class Permit:
    """The right to send one request now. Until it is loaded it reserves all the room there is."""

    limiter: RateLimiter
    counted: LoggedRequest
    texts: int = 0
    """Of those that may be in flight at once."""
    place: bool = False
    """Whether it holds one of the requests that may be in flight at once."""

    @property
    def tokens(self) -> int:
        """Of this minute's."""
        return self.counted.tokens

    def leave(self) -> bool:
        """See `RateLimiter.leave`."""
        return self.limiter.leave(self)

    async def renew(self) -> None:
        """See `RateLimiter.renew`."""
        await self.limiter.renew(self)

    def answered(self) -> None:
        """See `RateLimiter.answered`."""
        self.limiter.answered(self)


_current: ContextVar[Permit | None] = ContextVar("permit", default=None)


def current_permit() -> Permit | None:
    """The permit under which this task sends; `None` where no rate limit counts, as in a registration."""
    return _current.get()


@contextmanager
def sending_under(permit: Permit) -> Iterator[None]:
    """What is sent inside leaves under this permit."""
    before = _current.set(permit)
    try:
        yield
    finally:
        _current.reset(before)


class RateLimiter:
    """What one upstream allows, shared by all who ask it with the same token.

    Permits are spaced evenly over a log of the last minute. Who waits is served in order of asking; each queue waits
    for one permit at a time, so several queues share fairly.

    Args:
        requests_per_minute: `None` for an upstream without such a limit.
        tokens_per_minute: as estimated by those who ask.
        max_concurrent_requests: requests in flight at once.
        max_concurrent_texts: texts in flight at once, for servers that count those (text-embeddings-inference).
        burst: permits that may leave together after a pause.
        reserve: where permits are written down before they are granted; without one, a restart forgets them.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        *,
        tokens_per_minute: int | None = None,
        max_concurrent_requests: int | None = None,
        max_concurrent_texts: int | None = None,
        burst: int = 1,
        reserve: Reserve | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._requests = requests_per_minute or _UNLIMITED
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._saved_up = (burst - 1) * self._interval
        self._tokens = self._tokens_left = tokens_per_minute or _UNLIMITED
        self._places_left = max_concurrent_requests or _UNLIMITED
        self._texts_left = max_concurrent_texts or _UNLIMITED
        self._reserve = reserve
        self._clock = clock
        self._slot = -math.inf
        """When the next permit is due if none is saved up."""
        self._log: deque[LoggedRequest] | None = None
        if requests_per_minute or tokens_per_minute:
            self._log = deque(_inherited(reserve))
        self._unheard: deque[tuple[float, LoggedRequest]] = deque()
        """Requests of which the server may not know yet, and when they left."""
        self._shut_until = -math.inf
        self._slowed_until = -math.inf
        self._slowed_interval = 0.0
        self._newcomers: dict[asyncio.Future[Permit], int] = {}
        self._returners: dict[asyncio.Future[Permit], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, tokens: int = 1, *, again: bool = False) -> Permit:
        """Wait for a permit with room for at least one text of so many tokens.

        `again` is for a further try of a request that holds its place already: it takes no second one, and goes
        before newcomers, who may be waiting for the very place it holds.
        """
        tokens = min(tokens, self._tokens)
        if permit := self._at_once(tokens, again=again):
            return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        line = self._returners if again else self._newcomers
        line[future] = tokens
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if line.pop(future, None) is None and not future.cancelled():
                self.give_back(future.result())  # granted in the moment of leaving
            self._serve()
            raise

    def take_now(self, tokens: int = 1) -> Permit | None:
        """A permit, if one can be had without waiting."""
        return self._at_once(min(tokens, self._tokens), again=False)

    def load(self, permit: Permit, *, texts: int, tokens: int) -> None:
        """Say what the request carries; the rest of the room is free again."""
        self._texts_left += permit.texts - texts
        self._tokens_left += permit.tokens - tokens
        permit.texts, permit.counted.tokens = texts, tokens
        self._serve()

    def leave(self, permit: Permit) -> bool:
        """Whether a request may leave under this permit, now; then it has left.

        It may not if it comes too late, or if another one has left under it: see `renew`.
        """
        if self._log is None:
            return True
        counted, now = permit.counted, self._clock()
        if counted.left or now > counted.leave_by:
            return False
        counted.left, counted.expires = True, now + _SILENCE + _WINDOW
        self._unheard.append((now, counted))
        return True

    async def renew(self, permit: Permit) -> None:
        """Wait until a request that may not leave yet can be let leave; it keeps its place and goes before newcomers."""
        tokens = permit.tokens
        if not permit.counted.left:
            self._forget(permit.counted)
        permit.counted = (await self.take(tokens, again=True)).counted

    def answered(self, permit: Permit) -> None:
        """The reply to the last request under this permit has begun."""
        if self._log is None:
            return
        now = self._clock()
        permit.counted.expires = min(permit.counted.expires, now + _WINDOW)
        while self._unheard and self._unheard[0][0] <= now - MARGIN:
            _, counted = self._unheard.popleft()
            counted.expires = min(counted.expires, now + MARGIN + _WINDOW)
        self._serve()

    def done(self, permit: Permit) -> None:
        """Nothing more is to come: the reply is complete, or the request has failed or been given up."""
        counted = permit.counted
        if not counted.left:
            counted.expires = min(counted.expires, self._clock() + _WINDOW)
        if self._log is None:
            self._tokens_left += counted.tokens
        self._leave_place(permit)

    def give_back(self, permit: Permit) -> None:
        """Nothing was sent."""
        self._forget(permit.counted)
        self._leave_place(permit)

    def slow_down(self, seconds: float, remaining: int = 0) -> None:
        """Heed the upstream: at most `remaining` more requests within the next `seconds`."""
        until = self._clock() + seconds
        if remaining <= 0:
            self._shut_until = max(self._shut_until, until)
        else:
            self._slowed_until, self._slowed_interval = until, seconds / remaining
        self._serve()

    def spent(self) -> int:
        """Requests that count at this moment: within the minute, or not answered yet. 0 where none are counted."""
        self._expire(self._clock())
        return len(self._log or ())

    def wait_estimate(self, requests: int = 1) -> float:
        """Seconds until the last of so many further permits can be had, at the earliest."""
        now = self._clock()
        self._expire(now)
        requests += len(self._newcomers) + len(self._returners)
        if requests <= 0:
            return 0.0
        first = max(now, self._shut_until, self._slot - self._saved_up)
        due = max(self._slot, first) - self._saved_up
        last = max(first, due + self._spaced(requests - 1, first, due))
        full = len(self._log or ()) + requests - self._requests
        if self._log and full > 0:
            expires = self._log[min(full, len(self._log)) - 1].expires
            last = max(last, min(expires, now + _WINDOW))  # the server may answer at any moment
        return last - now

    def _at_once(self, tokens: int, *, again: bool) -> Permit | None:
        now = self._clock()
        if self._returners or self._newcomers or self._due(now, tokens, again=again) > now + _EARLY:
            return None
        return self._grant(now, now, tokens, again=again)

    def _due(self, now: float, tokens: int, *, again: bool) -> float:
        """When a permit can be had: a time, maybe past, or infinity while it needs something else to happen first."""
        if not again and (self._places_left <= 0 or self._texts_left <= 0):
            return math.inf
        self._expire(now)
        due = max(self._shut_until, self._slot - self._saved_up)
        missing = tokens - self._tokens_left
        if self._log and len(self._log) >= self._requests:
            due = max(due, self._log[len(self._log) - self._requests].expires)
        for counted in self._log or () if missing > 0 else ():
            due = max(due, counted.expires)  # it goes no sooner than those before it
            missing -= counted.tokens
            if missing <= 0:
                break
        if due <= now + _EARLY and self._reserve is not None and not self._reserve.ready(self._serve):
            return math.inf
        return due

    def _grant(self, now: float, since: float, tokens: int, *, again: bool) -> Permit:
        """Take the slot that was due `since`: a timer that fires late must not slow the rate."""
        interval = self._pace(now)
        self._slot = max(self._slot, since, now - _LATE) + interval
        counted = LoggedRequest(
            expires=now + _LEAD + _SILENCE + _WINDOW,
            tokens=tokens if again else min(self._tokens_left, _MOST),
            leave_by=now + _LEAD,
        )
        permit = Permit(self, counted)
        self._tokens_left -= permit.tokens
        if not again:
            permit.place, permit.texts = True, min(self._texts_left, _MOST)
            self._places_left -= 1
            self._texts_left -= permit.texts
        if self._log is not None:
            self._log.append(counted)
        if self._reserve is not None:
            self._reserve.spend()
        return permit

    def _serve(self, *, on_time: bool = False) -> None:
        """Grant what is due, and set the timer for what is next. `on_time`: nothing but time was waited for."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while line := self._returners or self._newcomers:
            future, tokens = next(iter(line.items()))
            again = line is self._returners
            now = self._clock()
            due = self._due(now, tokens, again=again)
            if due > now + _EARLY:
                if due < math.inf:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(due - now, lambda: self._serve(on_time=True))
                return
            del line[future]
            if not future.done():
                future.set_result(self._grant(now, due if on_time else now, tokens, again=again))

    def _forget(self, counted: LoggedRequest) -> None:
        """Nothing left under it, and nothing will."""
        self._tokens_left += counted.tokens
        if self._log:
            if self._log[-1] is counted:
                self._slot -= self._interval
            self._log.remove(counted)

    def _leave_place(self, permit: Permit) -> None:
        self._places_left += permit.place
        self._texts_left += permit.texts
        permit.place, permit.texts = False, 0
        self._serve()

    def _spaced(self, steps: int, first: float, due: float) -> float:
        """Seconds that so many permits take after one that is granted at `first` and was due then."""
        pace = self._pace(first)
        slowed = min(steps, math.ceil((self._slowed_until - due) / pace)) if pace > self._interval else 0
        return slowed * pace + (steps - slowed) * self._interval

    def _pace(self, now: float) -> float:
        return max(self._interval, self._slowed_interval) if now < self._slowed_until else self._interval

    def _expire(self, now: float) -> None:
        while self._log and self._log[0].expires <= now:
            self._tokens_left += self._log.popleft().tokens
        while self._unheard and self._unheard[0][1].expires <= now:
            self._unheard.popleft()


def _inherited(reserve: Reserve | None) -> Iterator[LoggedRequest]:
    """What a former rate limit, or a former process, has sent."""
    for expires, requests in reserve.spent() if reserve else ():
        yield from (LoggedRequest(expires, left=True) for _ in range(requests))
