"""The rate limit of an upstream: how many requests a minute, and how many at once.

The guarantee is about the server: no 60 seconds there hold more requests than allowed, also across a restart or crash
of hubgate. A request counts from the grant of its permit until a window (a minute and 50 ms, because two clocks may
disagree) after some moment `e` that is never before the server has read it.

Proof. Take the requests that the server reads within any 60 seconds [t, t + 60), and the one of them that was granted
last, at `g`. Every other one was granted before and still counts at `g`: its `e` is not before t, so it counts beyond
t + 60, and t + 60 > g. So all of them are among those that count at `g`, and these never exceed the limit.

The limit may be another one at each grant (`set_numbers`): at `g`, the requests that count do not exceed the limit at
`g`. So no 60 seconds hold more than the largest limit in force within them. The same holds for tokens.

`e` for a request that was sent at `s` (at most `_MAX_LEAD` after its grant: if connecting takes longer the permit has
lapsed, and another one is acquired before anything is sent):

- Its reply has begun: e is that moment. A server reads before it replies.
- A reply to any other request has begun at `r`, at least `MARGIN` after s: e is r + margin. A server that replies is
  running, and reads what waits for it within the margin. So an abandoned request and a slow reply cost little, and a
  server that stalls (stopped, swapped out, cut off) breaks no promise: what waits in its sockets counts until it runs
  again.
- Neither, because the server is silent: e is s + `MAX_STALL`. A server that stalls for longer may find more than the
  limit when it resumes. It cannot be distinguished from a dead server, which must be retried.

Across a restart: permits are granted only from a reservation that is on disk (`core.traffic.reservations`), with the
time until which they count at the latest: `PERMIT_SECONDS` after they could last be granted. A new process starts with
everything its predecessor wrote down in its log, so the proof holds for the two together, as long as the server runs
while hubgate restarts and the system's clock is not set forward.

The price: in the first minute exactly the limit is admitted (3,000 a minute: one each 20 ms, the last at 59.98 s).
Every further round of 3,000 begins one round trip and 50 ms later than a minute after, or about two margins later if
replies take long.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from hubgate.core.traffic.leases import Lease
from hubgate.core.traffic.notices import Notice
from hubgate.core.traffic.pauses import REFUSAL, RefusalPause
from hubgate.core.traffic.permits import (
    MAX_STALL,
    WINDOW,
    LimitNumbers,
    LoggedRequest,
    Permit,
    former_requests,
)
from hubgate.core.traffic.reservations import Reservation
from hubgate.core.traffic.slots import Slots
from hubgate.domain.ports import Clock

MARGIN = 1.0
"""Seconds within which a running server reads a request that was sent."""
_MAX_LEAD = 0.5
"""Seconds from the grant of a permit until its request must be sent."""
_LONGEST = _MAX_LEAD + MAX_STALL + WINDOW
"""Seconds after its grant for which a permit counts at most."""
PERMIT_SECONDS = _MAX_LEAD + MARGIN + WINDOW
"""Seconds after its grant for which a permit counts at a running server."""
_EARLY = 0.001
"""Timers of event loops may fire early by their resolution."""
_LATE = 0.02
"""How late a timer may be and still not slow the rate. After a longer standstill permits are spaced from now."""
_SHARED_PAUSE = 1.0  # seconds of a pause that is worth a notice to other gateways
_UNLIMITED = 1 << 62
_FEW = 32
"""Requests that are forgotten at once where only memory depends on it. After a pause, all would take long."""
_MAX_PER_REQUEST = 1 << 40
"""More texts or tokens than one request ever carries."""
_Need: TypeAlias = tuple[int, int]
"""The tokens and texts of a request. No texts: a further try of a request that keeps its place."""


class RateLimiter:
    """The limits of one upstream, shared by all endpoints that call it with the same token.

    Permits are spaced evenly, and a log of the last minute enforces the limit. They are granted first come, first
    served; each queue waits for one permit at a time, so several queues share fairly.

    Args:
        requests_per_minute: `None` for an upstream without such a limit.
        tokens_per_minute: as estimated by the callers.
        gateways: how many gateways divide `tokens_per_minute` equally among them.
        max_concurrent_requests: requests in flight.
        max_concurrent_texts: texts in flight, for servers that count those (text-embeddings-inference).
        burst: permits that may be granted together after a pause.
        reservation: where permits are written down before they are granted; without one, a restart forgets them.
        slots: of the gateways that share this limit; permits come from there, in place of `requests_per_minute`.
        request_lease: of the gateways that share `max_concurrent_requests`, in place of that.
        text_lease: the same for `max_concurrent_texts`.
        pauses: by which gateways know that the upstream wants a pause.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        *,
        tokens_per_minute: int | None = None,
        gateways: Callable[[], int] = lambda: 1,
        max_concurrent_requests: int | None = None,
        max_concurrent_texts: int | None = None,
        burst: int = 1,
        reservation: Reservation | None = None,
        slots: Slots | None = None,
        request_lease: Lease | None = None,
        text_lease: Lease | None = None,
        pauses: Notice | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._requests = requests_per_minute or _UNLIMITED
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._burst_seconds = (burst - 1) * self._interval
        self._tokens_per_minute, self._gateways = tokens_per_minute, gateways
        self._tokens = self._tokens_left = self._token_share()
        self._max_in_flight = self._requests_left = max_concurrent_requests or _UNLIMITED
        self._max_texts = self._texts_left = max_concurrent_texts or _UNLIMITED
        self._reservation = reservation
        self._slots, self.clock = slots, clock
        self._next_slot = -math.inf
        """When the next permit is due without a burst."""
        self.log: deque[LoggedRequest] | None = None
        """The requests that count, in the order of their grants; `None` without a limit per minute."""
        if requests_per_minute or tokens_per_minute or slots:
            self.log = deque(former_requests(reservation.spent() if reservation else ()))
        self.unconfirmed: dict[LoggedRequest, float] = {}
        """Requests that the server may not have read yet, and when they were sent."""
        self.confirm_at = -math.inf
        """No reply before then confirms any of them but its own request."""
        self._paused_until = self._throttled_until = -math.inf
        self._throttled_interval = 0.0
        self.refusal = RefusalPause()
        self._was_retry = False
        """Whether the last permit was a retry's."""
        self._waiting: dict[asyncio.Future[Permit], _Need] = {}
        self._waiting_retries: dict[asyncio.Future[Permit], _Need] = {}
        self._timer: asyncio.TimerHandle | None = None
        if slots is not None:
            slots.on_change = self.serve
        self.request_lease: Lease | None = None
        self.text_lease: Lease | None = None
        self._leases: tuple[Lease, ...] = ()
        self._use_leases(request_lease, text_lease)
        self._pauses = pauses
        if pauses is not None:
            pauses.on_change = self._follow_pause
            self._follow_pause()

    def set_numbers(
        self, numbers: LimitNumbers, *, request_lease: Lease | None = None, text_lease: Lease | None = None
    ) -> None:
        """Go on with other numbers. All requests so far count as before, and what waits keeps its place.

        A limiter without any limit per minute does not get one, because it has no log.
        """
        if self._slots is not None and numbers.requests_per_minute:
            self._slots.set_numbers(numbers.requests_per_minute, numbers.burst)
        elif numbers.requests_per_minute and self.log is not None:
            interval = 60 / numbers.requests_per_minute
            self._next_slot += interval - self._interval
            self._requests, self._interval = numbers.requests_per_minute, interval
            self._burst_seconds = (numbers.burst - 1) * interval
            if self._reservation is not None:
                self._reservation.set_rate(numbers.requests_per_minute)
        if self.log is not None:
            self._tokens_per_minute = numbers.tokens_per_minute
            self._follow_token_share()
        self._use_leases(request_lease, text_lease)
        if request_lease is None:
            self._set_max_in_flight(numbers.max_concurrent_requests or _UNLIMITED)
        if text_lease is None:
            self._set_max_texts(numbers.max_concurrent_texts or _UNLIMITED)
        self.serve()

    @property
    def counts_tokens(self) -> bool:
        return self._tokens_per_minute is not None

    async def acquire(self, tokens: int = 1, *, texts: int = 1, retry: bool = False) -> Permit:
        """Wait for a permit with room for at least `texts` of `tokens`.

        `retry` is for a further try of a request that already counts as in flight: it does not count again. Retries
        and new requests take turns, unless the latter wait for a place that a retry has.
        """
        need, now = (min(tokens, self._tokens), 0 if retry else texts), self.clock()
        if self._is_due(now, need):
            return self._grant_room(now, now, need)
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        line = self._waiting_retries if retry else self._waiting
        line[future] = need
        self.serve()
        try:
            return await future
        except asyncio.CancelledError:
            if line.pop(future, None) is None and not future.cancelled():
                self.cancel(future.result())  # granted while it was cancelled
            self.serve()
            raise

    def try_acquire(self, tokens: int = 1, texts: int = 1) -> Permit | None:
        """A permit, if there is one without waiting."""
        now, need = self.clock(), (min(tokens, self._tokens), texts)
        return self._grant_room(now, now, need) if self._is_due(now, need) else None

    def try_take(self, *, texts: int, tokens: int) -> Permit | None:
        """The same, filled."""
        now = self.clock()
        if not self._is_due(now, (min(tokens, self._tokens), 1)):
            return None
        return self._grant(now, now, texts=texts, tokens=tokens, in_flight=True)

    def fill(self, permit: Permit, *, texts: int, tokens: int) -> None:
        """Set what the request carries. The rest of the room is free again."""
        self._texts_left += permit.texts - texts
        self._tokens_left += permit.tokens - tokens
        permit.texts, permit.logged.tokens = texts, tokens
        if self._waiting or self._waiting_retries:
            self.serve()

    def release(self, permit: Permit) -> None:
        """End a request: the reply is complete, or the request failed or was cancelled."""
        logged = permit.logged
        if self.log is None:
            self._tokens_left += logged.tokens
        elif not logged.sent:
            logged.expires = min(logged.expires, self.clock() + WINDOW)
        self._requests_left += permit.in_flight
        self._texts_left += permit.texts
        permit.in_flight, permit.texts = False, 0
        if self._waiting or self._waiting_retries:
            self.serve()

    def cancel(self, permit: Permit) -> None:
        """Give back a permit under which nothing was sent."""
        self.unlog(permit.logged)
        self.release(permit)

    def unlog(self, logged: LoggedRequest) -> None:
        """Do not count a request that was not sent."""
        self._tokens_left += logged.tokens
        logged.tokens = 0
        if self.log:
            if self.log[-1] is logged:
                self._next_slot -= self._interval
            self.log.remove(logged)
        if self._slots is not None:
            self._slots.give_back(logged.send_by)

    def confirm(self, now: float) -> None:
        """Note that a server that replies now has read what was sent to it `MARGIN` before."""
        confirmed, self.confirm_at = [], now + MARGIN
        for logged, sent in self.unconfirmed.items():
            if sent > now - MARGIN:
                self.confirm_at = sent + MARGIN
                break
            logged.expires = min(logged.expires, now + MARGIN + WINDOW)
            confirmed.append(logged)
        for logged in confirmed:
            del self.unconfirmed[logged]

    def throttle(self, seconds: float, remaining: int = 0) -> None:
        """Send at most `remaining` more requests in the next `seconds`, as the upstream requires."""
        until = self.clock() + seconds
        if remaining <= 0:
            if (
                self._pauses is not None
                and self._slots is None
                and until >= self._paused_until + _SHARED_PAUSE
                and seconds >= _SHARED_PAUSE
            ):
                self._pauses.post("", seconds)
            self._paused_until = max(self._paused_until, until)
        else:
            self._throttled_until, self._throttled_interval = until, seconds / remaining
        if self._slots is not None:
            self._slots.throttle(seconds, remaining)
        self.serve()

    def refused(self, seconds: float, *, sent: float, first: bool) -> None:
        """Pause as `RefusalPause` says, because a request that was sent then is refused."""
        now, until = self.clock(), self.refusal.until
        self.refusal.refused(now, seconds, sent=sent, first=first)
        if first and self._pauses is not None and now + seconds >= max(now, until) + _SHARED_PAUSE:
            self._pauses.post(REFUSAL, seconds)
        self.serve()

    def _use_leases(self, requests: Lease | None, texts: Lease | None) -> None:
        """Let leases limit what is in flight, in place of those before."""
        for former in self._leases:
            if former is not requests and former is not texts:
                former.detach()
        self.request_lease, self.text_lease = requests, texts
        self._leases = tuple(lease for lease in (requests, texts) if lease is not None)
        if requests is not None:
            requests.held = lambda: self._max_in_flight - self._requests_left
            requests.on_change = lambda: self._set_max_in_flight(requests.limit)
            requests.on_change()
        if texts is not None:
            texts.held = lambda: self._max_texts - self._texts_left
            texts.on_change = lambda: self._set_max_texts(texts.limit)
            texts.on_change()

    def _set_max_in_flight(self, limit: int) -> None:
        """What is in flight may exceed it for a while."""
        self._requests_left += limit - self._max_in_flight
        self._max_in_flight = limit
        self.serve()

    def _set_max_texts(self, limit: int) -> None:
        self._texts_left += limit - self._max_texts
        self._max_texts = limit
        self.serve()

    def _follow_pause(self) -> None:
        """Pause as another gateway does."""
        posted = self._pauses.of_others if self._pauses else None
        if posted is None:
            return
        text, seconds = posted
        if text == REFUSAL:
            self.refusal.begin(self.clock(), seconds)
        else:
            self._paused_until = max(self._paused_until, self.clock() + seconds)
        self.serve()

    def _resumes(self, now: float) -> float:
        """When a pause lets a request pass."""
        if now < self.refusal.until:
            return max(self._paused_until, self.refusal.due(now))
        return self._paused_until

    def used(self) -> int:
        """Requests that count now: within the minute, or not answered yet. 0 without a limit."""
        self._expire(self.clock())
        return len(self.log or ())

    def estimate_wait(self, requests: int = 1) -> float:
        """Seconds until the last of `requests` further permits is granted, at the earliest."""
        now = self.clock()
        requests += len(self._waiting) + len(self._waiting_retries)
        if requests <= 0:
            return 0.0
        paused = max(self._paused_until, self.refusal.estimate(now))
        if self._slots is not None:
            return max(paused - now, self._slots.estimate_wait(requests, now))
        first = max(now, paused, self._next_slot - self._burst_seconds)
        due = max(self._next_slot, first) - self._burst_seconds
        last = max(first, due + self._spacing(requests - 1, first, due))
        full = len(self.log or ()) + requests - self._requests
        if self.log and full > 0:
            expires = self.log[min(full, len(self.log)) - 1].expires
            last = max(last, min(expires, now + WINDOW))  # the server may reply at any moment
        return last - now

    def _is_due(self, now: float, need: _Need) -> bool:
        """Whether a permit can be granted now, to one who has not waited."""
        if self._waiting_retries or self._waiting:
            return False
        return self._due(now, need) <= now + _EARLY

    def _has_place(self, texts: int) -> bool:  # the limit of texts may be less than a request has
        return self._requests_left > 0 and self._texts_left >= min(texts, max(1, self._max_texts))

    def _due(self, now: float, need: _Need) -> float:
        """When a permit can be granted: a time, maybe past, or infinity while it depends on something other than time."""
        tokens, texts = need
        if texts and not self._has_place(texts):
            for lease in self._leases:
                lease.need()
            return math.inf
        log = self.log
        if self._tokens_per_minute:
            self._expire(now)
        elif log and log[0].expires <= now:
            self._expire(now, _FEW)
        due = max(self._resumes(now), self._next_slot - self._burst_seconds)
        if log and len(log) >= self._requests:
            due = max(due, self._full_until(log, now))
        if log and tokens > self._tokens_left:
            due = max(due, self._room_at(log, tokens))
        if due <= now + _EARLY:
            if self._reservation is not None and now >= self._reservation.usable_until:
                self._reservation.request(self.serve)
                return math.inf
            if self._slots is not None:
                due = max(due, self._slots.due(now))
        return due

    def _full_until(self, log: deque[LoggedRequest], now: float) -> float:
        """When there may be room for a request. Entries leave the log in order, several if the limit was lowered."""
        if len(log) > self._requests:
            self._expire(now)
        excess = len(log) - self._requests
        return max(log[0].expires, log[excess].expires) if excess >= 0 else -math.inf

    def _room_at(self, log: Iterable[LoggedRequest], tokens: int) -> float:
        """When there is room for this number of tokens. Entries leave the log in order."""
        missing, at = tokens - self._tokens_left, -math.inf
        for logged in log:
            at = max(at, logged.expires)
            missing -= logged.tokens
            if missing <= 0:
                break
        return at

    def _grant_room(self, now: float, since: float, need: _Need) -> Permit:
        """Grant a permit for `tokens` to a retry, and one that reserves all the room there is to a new request."""
        tokens, texts = need
        if not texts:
            return self._grant(now, since, texts=0, tokens=tokens, in_flight=False)
        texts = min(self._texts_left, _MAX_PER_REQUEST)
        tokens = min(self._tokens_left, _MAX_PER_REQUEST)
        return self._grant(now, since, texts=texts, tokens=tokens, in_flight=True)

    def _grant(self, now: float, since: float, *, texts: int, tokens: int, in_flight: bool) -> Permit:
        """Use the slot that was due `since`: a timer that fires late must not slow the rate."""
        interval = self._interval if now >= self._throttled_until else self._pace(now)
        self._next_slot = max(self._next_slot, since, now - _LATE) + interval
        if now < self.refusal.until:
            self.refusal.granted(now)
        send_by = now + _MAX_LEAD if self._slots is None else self._slots.take(now)
        logged = LoggedRequest(now + _LONGEST, tokens, send_by)
        self._tokens_left -= tokens
        if in_flight:
            self._requests_left -= 1
            self._texts_left -= texts
            for lease in self._leases:
                lease.used()
        if self.log is not None:
            self.log.append(logged)
        if self._reservation is not None:
            self._reservation.spend()
        return Permit(self, logged, texts, in_flight)

    def serve(self, *, on_time: bool = False) -> None:
        """Grant what is due, and set the timer for what is next. `on_time`: a timer fired."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while (self._waiting or self._waiting_retries) and (line := self._next_line()):
            future, (tokens, texts) = next(iter(line.items()))
            now, need = self.clock(), (min(tokens, self._tokens), texts)
            due = self._due(now, need)
            if due > now + _EARLY:
                if due < math.inf:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(due - now, lambda: self.serve(on_time=True))
                return
            del line[future]
            self._was_retry = line is self._waiting_retries
            if not future.done():
                future.set_result(self._grant_room(now, due if on_time else now, need))

    def _next_line(self) -> dict[asyncio.Future[Permit], _Need]:
        """Retries and new requests in turn, so that calls which always fail do not hold up all others."""
        if self._waiting_retries and self._waiting and self._was_retry:
            _, texts = next(iter(self._waiting.values()))
            return self._waiting if self._has_place(texts) else self._waiting_retries
        return self._waiting_retries or self._waiting

    def _spacing(self, steps: int, first: float, due: float) -> float:
        """Seconds for `steps` permits after one that is granted at `first` and was due at `due`."""
        pace = self._pace(first)
        throttled = (
            min(steps, math.ceil((self._throttled_until - due) / pace)) if pace > self._interval else 0
        )
        return throttled * pace + (steps - throttled) * self._interval

    def _pace(self, now: float) -> float:
        return (
            max(self._interval, self._throttled_interval) if now < self._throttled_until else self._interval
        )

    def _token_share(self) -> int:
        if not self._tokens_per_minute:
            return _UNLIMITED
        return max(1, self._tokens_per_minute // max(1, self._gateways()))

    def _follow_token_share(self) -> None:
        share = self._token_share()
        self._tokens_left += share - self._tokens
        self._tokens = share

    def _expire(self, now: float, most: int = _UNLIMITED) -> None:
        """Forget requests that do not count any more, at most this number of them."""
        if self._tokens_per_minute:
            self._follow_token_share()
        log = self.log
        while log and log[0].expires <= now and most > 0:
            logged = log.popleft()
            self._tokens_left += logged.tokens
            self.unconfirmed.pop(logged, None)
            most -= 1
