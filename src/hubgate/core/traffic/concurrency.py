"""How many requests may be in flight at a server: a limit that follows its throughput and its refusals.

The right limit is the smallest one at which the server is busy. With fewer, it idles; with more, requests wait there, in
the order of arrival, in place of here, in fair order and sharing requests. By Little's law the throughput is the limit
divided by the latency. So a limit is tried: if raising it by half raises the latency by nearly half, requests only wait,
and it is taken back; if the latency holds, it is kept. It is lowered the same way, if that costs no throughput.

Where calls share requests, a higher limit may bring nothing until there are places for nearly all calls: those that
come first take the further places alone, and the others wait as before. So such a limit is kept if the latency holds,
because then nothing waits at the server. A lower one is kept only if requests take less time there.

Only requests during which all places were taken say anything about a limit. Where none waits, nothing changes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from hubgate.domain.ports import Clock

MOST = 8192
"""A bound where nobody sets one, so that no server gets more than a process can open sockets."""
RESERVED_PART = 8
"""One place in eight may be kept for callers that have none, so a limit is reached when all others are taken."""
_STEP = 2.0
"""By how much a trial raises or lowers the limit."""
_MIN_GAIN = 0.1
"""Share of a raise that must arrive as throughput."""
_MAX_LOSS = 0.05
"""Share of a reduction that may be lost in throughput."""
_FLAT = 0.25
"""Up to this share of the step, a change of the latency is none: nothing waits at the server."""
_TIE = 0.05
"""Share of a raise that may then be lost in throughput, and that a reduction must gain."""
_BACKOFF = 0.8
"""What a refusal leaves of the limit."""
_MEMORY = 60.0
"""Seconds for which a limit that was refused is not tried again."""
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 30.0
"""Seconds between trials that change nothing; each wait is twice as long as the one before."""
_UNUSED_SECONDS = 10.0
"""After these, a limit that was not reached is lowered to what is used."""
_MIN_SAMPLES, _MAX_SAMPLES = 8, 32
"""Answers for a verdict: as few if the difference is clear, as many (or a quarter of the limit) if it is not."""
_MIN_ROUNDS, _MAX_ROUNDS = 2, 4
"""The same where calls share requests, for each place: the first free place takes all that waits, and the next ones take
single calls, so only the requests of all places together show the throughput."""
_CLEAR = 2.0
"""Standard errors."""
_SHIFT = math.log(_STEP)
"""A change of the latency, as a logarithm, after which another limit may be better."""


class Places(Protocol):
    """The places of requests at one server or at several: how many there are, and how many are taken."""

    in_flight: int
    on_raise: Callable[[], None] | None
    """Called when there are more places, which the queue would not notice otherwise."""

    @property
    def limit(self) -> int: ...


class ConcurrencyLimit:
    """Adapts the limit of requests in flight at one server.

    Whoever sends requests keeps `in_flight` and does not let it exceed `limit`. Each try of a request is noted by
    `begin`, and by one of `answered`, `refused` and `abandoned`.

    Args:
        start: the limit at first, and the least that little use lowers it to.
        bound: what the limit never exceeds; see `bound`.
        per_token: whether a request's work is its tokens. Latencies of requests of different sizes can then be compared.
        clock: seconds that never go back.
    """

    def __init__(
        self, start: int, *, bound: int = MOST, per_token: bool = False, clock: Clock = time.monotonic
    ) -> None:
        self.in_flight = 0
        self.on_raise: Callable[[], None] | None = None
        self._start = start
        self._bound = max(1, bound)
        self._per_token = per_token
        self._clock = clock
        self._unanswered = 0
        self.limit = max(1, min(start, self._bound))
        """That of `_level`. Queues read it for each request, where a property would cost a call."""
        self._level = _Level(self.limit, -math.inf)
        self._before: _Level | None = None
        """The level before the one that is on trial."""
        self._usual: _Level | None = None
        """What to compare with, to notice that the server has changed."""
        self._raises = True
        """Whether the next trial is of a higher limit."""
        self._settled = False
        """Whether neither a higher nor a lower limit was better."""
        self._wait = _FIRST_WAIT
        self._next_trial = -math.inf
        self._refused: int | None = None
        """The limit at which the server refused a request."""
        self._refused_at = -math.inf
        self._worked = 1
        """Requests that the server worked on at once and refused none. Each refusal that counts takes a fifth of it."""
        self._last_refusal = -math.inf

    @property
    def bound(self) -> int:
        """What the limit never exceeds. It may be set at any time; requests in flight beyond it are not ended."""
        return self._bound

    @bound.setter
    def bound(self, bound: int) -> None:
        self._bound = max(1, bound)
        level, before = self._level, self._before
        # The limit before a trial may be taken again.
        if level.limit > self._bound or (before is not None and before.limit > self._bound):
            self._search(min(level.limit, self._bound), self._clock())

    def begin(self) -> float:
        """Note that a request is sent, which counts in `in_flight`. Returns when, for the other methods."""
        now = self._clock()
        self._unanswered += 1
        level, in_flight = self._level, self.in_flight
        level.peak = max(level.peak, in_flight)
        if in_flight >= level.full:
            level.full_at = now
            if level.full_since is None:
                level.full_since = now
        return now

    def answered(self, begun: float, tokens: int) -> None:
        """Note that the server accepted a request: its reply is complete, or its stream has begun."""
        if self._unanswered > self._worked and begun > self._last_refusal:
            self._worked = self._unanswered
        self._unanswered -= 1
        level, now = self._level, self._clock()
        level.answered = True
        if level.full_at < begun and self.in_flight < level.full:
            if now > level.started + _UNUSED_SECONDS:
                self._follow_use(now)
            return
        if level.full_since is None:
            return
        if begun > level.full_since:
            seconds = max(now - begun, 1e-6)
            level.add(seconds, tokens if self._per_token else None)
        # Streams that have begun keep their places: the server has answered everything, and no place is free.
        is_idle = not self._unanswered and self.in_flight > 1
        if is_idle and not self._raises:
            self._fail(now)  # fewer would not be faster
        if self._before is not None:
            self._judge(self._before, now, is_idle=is_idle)
        if self._level is level and self._before is None:
            needed = self._enough(level) if self._settled else self._few(level)
            if is_idle or level.count >= needed:
                self._try_another(now)

    def refused(self, begun: float) -> None:
        """Note that the server refused a request because of its load, or did not answer in time.

        A request that was alone says nothing about how many the server bears. Fewer than have worked may be refused
        for another reason, such as a rate limit: the limit stays above these, unless the refusals go on.
        """
        self._unanswered -= 1
        level, before, now = self._level, self._before, self._clock()
        self._last_refusal = now
        if begun < level.started or self.in_flight < 2:
            return  # the limit was changed since, or it is not the reason
        if before is not None and before.limit < level.limit:
            self._refused, self._refused_at = level.limit, now
            self._search(before.limit, now)
        elif level.answered:  # a server that refuses everything is not full, but down
            limit = max(1, int(level.limit * _BACKOFF), min(level.limit, self._worked))
            self._worked = int(self._worked * _BACKOFF)
            self._refused, self._refused_at = level.limit, now
            self._search(limit, now)

    def abandoned(self) -> None:
        """Note that a request ended in a way that says nothing about the server's load."""
        self._unanswered -= 1

    def _try_another(self, now: float) -> None:
        """Put another limit on trial, or go on measuring this one."""
        level = self._level
        self._notice_change(level)
        higher, lower = self._higher(now), max(1, int(level.limit / _STEP))
        limit = higher if self._raises else lower
        if self._settled and now < self._next_trial:
            limit = level.limit
        elif limit == level.limit:
            self._fail(now)
        else:
            self._before = level
        self._usual = self._usual or level
        self._set_level(limit, now)

    def _notice_change(self, level: _Level) -> None:
        """Search again if requests take longer or shorter than usual: downwards, or upwards."""
        usual = self._usual
        if not self._settled or usual is None or not usual.count or not level.count:
            return
        shift = level.mean - usual.mean
        if abs(shift) > max(_SHIFT, 3 * math.hypot(level.error, usual.error)):
            self._settled, self._raises, self._usual = False, shift < 0, level
            self._wait = _FIRST_WAIT

    def _higher(self, now: float) -> int:
        limit = self._level.limit
        higher = math.ceil(limit * _STEP)
        if self._refused is not None:
            gap = self._refused - limit
            if gap <= max(1, limit // 8) and now < self._refused_at + _MEMORY:
                return min(limit, self._bound)
            higher = min(higher, limit + max(1, gap // 2))
        return min(higher, self._bound)

    def _judge(self, before: _Level, now: float, *, is_idle: bool) -> None:
        """Keep the limit that is on trial, or go back to the one before."""
        level = self._level
        if level.count < self._few(level) or before.count < self._few(before):
            if is_idle or level.count >= self._enough(level):
                self._keep()
            return
        step = math.log(level.limit / before.limit)
        gain = step - (level.mean - before.mean)
        waits = (level.latency - before.latency) / step > _FLAT
        margin = gain - step * ((_MIN_GAIN if step > 0 else _MAX_LOSS) if waits else -_TIE)
        is_clear = abs(margin) > _CLEAR * math.hypot(level.error, before.error)
        if not is_clear and not is_idle and level.count < self._enough(level):
            return
        if margin >= 0:
            self._keep()
        else:
            self._before, self._usual = None, before
            self._fail(now)
            self._set_level(before.limit, now)

    def _few(self, level: _Level) -> int:
        """Answers for a verdict if the difference is clear."""
        return max(_MIN_SAMPLES, _MIN_ROUNDS * level.limit if self._per_token else 0)

    def _enough(self, level: _Level) -> int:
        """Answers for a verdict if it is not."""
        return max(_MAX_SAMPLES, _MAX_ROUNDS * level.limit if self._per_token else level.limit // 4)

    def _keep(self) -> None:
        if self._refused is not None and self._level.limit >= self._refused:
            self._refused = None
        self._before, self._usual, self._settled, self._wait = None, None, False, _FIRST_WAIT

    def _fail(self, now: float) -> None:
        """After a higher limit, try a lower one; after that, wait and try a higher one again."""
        if self._raises and not self._settled:
            self._raises = False
            return
        self._raises = self._settled = True
        self._next_trial = now + self._wait
        self._wait = min(self._wait * 2, _LONGEST_WAIT)

    def _follow_use(self, now: float) -> None:
        """Lower a limit that is not used: whether the server could still do as much is not known."""
        level, before = self._level, self._before
        limit = level.limit
        if level.peak < level.full:
            limit = max(level.peak, min(self._start, limit))
        if before is not None:
            self._before, self._usual = None, before
            self._fail(now)
            limit = max(limit, before.limit) if before.limit > level.limit else limit
        self._set_level(limit, now)

    def _search(self, limit: int, now: float) -> None:
        """Take this limit without a trial, and search from there, with a pause."""
        self._before, self._usual = None, None
        self._raises = self._settled = True
        self._wait, self._next_trial = _FIRST_WAIT, now + _FIRST_WAIT
        self._set_level(limit, now)

    def _set_level(self, limit: int, now: float) -> None:
        raised = limit > self._level.limit
        self.limit, self._level = limit, _Level(limit, now)
        if raised and self.on_raise is not None:
            self.on_raise()


class _Level:
    """A limit, and what requests took there.

    `mean` is a logarithm: of the seconds of a request (their geometric mean, because few take very long), or of the
    seconds for a token. The latter is all seconds by all tokens, as Little's law wants it: where calls share requests,
    some are full and some carry one text, and a mean over requests would compare their number, not the throughput.
    """

    __slots__ = ("_sums", "answered", "count", "full", "full_at", "full_since", "limit", "peak", "started")

    def __init__(self, limit: int, started: float) -> None:
        self.limit = limit
        self.full = limit - limit // RESERVED_PART
        """With this number of requests in flight, calls wait for a place."""
        self.started = started
        self.peak = 0
        """Of requests in flight."""
        self.full_since: float | None = None
        """When it was full first. What is sent later meets a server with as many requests."""
        self.full_at = -math.inf
        """When a request was last sent that left it full."""
        self.answered = False
        self.count = 0
        self._sums: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
        """Of seconds, tokens, and their squares and products; or of the logarithms and their squares."""

    def add(self, seconds: float, tokens: int | None) -> None:
        """Note what a request took, and its tokens if they are its work."""
        self.count += 1
        value = math.log(seconds) if tokens is None else seconds
        x, y, xx, yy, xy = self._sums
        of = tokens or 0
        self._sums = (x + value, y + of, xx + value * value, yy + of * of, xy + value * of)

    @property
    def mean(self) -> float:
        x, y, *_ = self._sums
        if y:
            return math.log(x / y)
        return x / max(1, self.count)

    @property
    def latency(self) -> float:
        """As a logarithm, of the seconds of a request."""
        x, y, *_ = self._sums
        return math.log(x / self.count) if y else x / max(1, self.count)

    @property
    def error(self) -> float:
        """The standard error of the mean; of the logarithm of a ratio, by the delta method."""
        x, y, xx, yy, xy = self._sums
        n = max(1, self.count)
        squares = n * n * (xx / (x * x) + yy / (y * y) - 2 * xy / (x * y)) if y else xx - x * x / n
        return math.sqrt(max(0.0, squares) / max(1, n - 1) / n)
