"""The allowance: how often, and how much at once, an upstream may be asked.

The promise is about what the server sees: no 60 seconds there hold more requests than allowed. A request leaves here
at `g`, arrives at `a`, and its reply is back at `r`, with g ≤ a ≤ r; only `g` and `r` can be seen here. So a permit
counts from `g` until a window after `e = min(r, g + margin)`. Take the requests that arrive within some 60 seconds
[t, t + 60), and of them the one granted last, at `g*`. Every other one was granted before, and still counts at `g*`:
its `e` is not before its arrival, hence e + 60 ≥ t + 60 > g*. So all of them are among those that count at `g*`, and
these are never more than the allowance. That holds for every request that arrives within `margin`, and for later ones
as long as a reply is not awaited for longer.

The price: over the first minute exactly the allowance is admitted (3,000 a minute: one each 20 ms, the last at
59.98 s); every further round of 3,000 begins one round trip (at most `margin`) and 50 ms later than a minute after.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubgate.domain.ports import Clock

_WINDOW = 60.05
"""A minute, and by how much two clocks may disagree on one."""
_EARLY = 0.001
"""Timers of event loops may fire early by their resolution."""
_LATE = 0.02
"""Lateness of a timer that is made up for; after a longer standstill permits are spaced anew."""
_UNLIMITED = 1 << 62
_MOST = 1 << 40
"""More than one request ever carries."""


@dataclass(slots=True, eq=False)
class Permit:
    """The right to send one request now. Until it is loaded it reserves all the room there is."""

    expires: float
    """When it stops to count."""
    tokens: int
    """Of this minute's."""
    texts: int = 0
    """Of those that may be in flight at once."""
    place: bool = False
    """Whether it holds one of the requests that may be in flight at once."""


class Allowance:
    """What one upstream allows, shared by all who ask it with the same token.

    Permits are spaced evenly over a log of the last minute. Who waits is served in order of asking; each queue waits
    for one permit at a time, so several queues share fairly.

    Args:
        requests_per_minute: `None` for an upstream without such a limit.
        tokens_per_minute: as estimated by those who ask.
        max_concurrent_requests: requests in flight at once.
        max_concurrent_texts: texts in flight at once, for servers that count those (text-embeddings-inference).
        burst: permits that may leave together after a pause.
        margin: seconds that a request is on its way at most; see the module's proof.
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
        margin: float = 1.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._requests = requests_per_minute or _UNLIMITED
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._saved_up = (burst - 1) * self._interval
        self._tokens = self._tokens_left = tokens_per_minute or _UNLIMITED
        self._places_left = max_concurrent_requests or _UNLIMITED
        self._texts_left = max_concurrent_texts or _UNLIMITED
        self._margin = margin
        self._clock = clock
        self._slot = -math.inf
        """When the next permit is due if none is saved up."""
        self._log: deque[Permit] | None = deque() if requests_per_minute or tokens_per_minute else None
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
        permit.texts, permit.tokens = texts, tokens
        self._serve()

    def done(self, permit: Permit) -> None:
        """The reply is here, or the request has failed."""
        permit.expires = min(permit.expires, self._clock() + _WINDOW)
        if self._log is None:
            self._tokens_left += permit.tokens
        self._leave_place(permit)

    def give_back(self, permit: Permit) -> None:
        """Nothing was sent."""
        self._tokens_left += permit.tokens
        if self._log:
            if self._log[-1] is permit:
                self._slot -= self._interval
            self._log.remove(permit)
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
            last = max(last, self._log[min(full, len(self._log)) - 1].expires)
        return last - now

    def _at_once(self, tokens: int, *, again: bool) -> Permit | None:
        now = self._clock()
        if self._returners or self._newcomers or self._due(now, tokens, again=again) > now + _EARLY:
            return None
        return self._grant(now, now, tokens, again=again)

    def _due(self, now: float, tokens: int, *, again: bool) -> float:
        """When a permit can be had: a time, maybe past, or infinity while it needs a reply to come first."""
        if not again and (self._places_left <= 0 or self._texts_left <= 0):
            return math.inf
        self._expire(now)
        due = max(self._shut_until, self._slot - self._saved_up)
        missing = tokens - self._tokens_left
        if self._log and len(self._log) >= self._requests:
            due = max(due, self._log[len(self._log) - self._requests].expires)
        for permit in self._log or () if missing > 0 else ():
            due = max(due, permit.expires)  # it goes no sooner than those before it
            missing -= permit.tokens
            if missing <= 0:
                break
        return due

    def _grant(self, now: float, since: float, tokens: int, *, again: bool) -> Permit:
        """Take the slot that was due `since`: a timer that fires late must not slow the rate."""
        interval = self._pace(now)
        self._slot = max(self._slot, since, now - _LATE) + interval
        permit = Permit(now + self._margin + _WINDOW, tokens if again else min(self._tokens_left, _MOST))
        self._tokens_left -= permit.tokens
        if not again:
            permit.place, permit.texts = True, min(self._texts_left, _MOST)
            self._places_left -= 1
            self._texts_left -= permit.texts
        if self._log is not None:
            self._log.append(permit)
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
