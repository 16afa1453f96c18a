"""Rate limits of several gateways together: all take slots in time from one server.

`R` requests a minute are allowed. A request under slot `S` leaves within [S, S + `_LATE`] (checked when its connection is
there, just before its bytes leave) and arrives within `_ARRIVAL` after that. `WINDOW` is a minute, 50 ms by which two
clocks may disagree over it, and these two.

Proof. The server gives slots that are at least `WINDOW` / R apart. What arrives within any 60 seconds [t, t + 60) has
slots in (t - late - arrival, t + 60). That is shorter than `WINDOW`, so there are at most R of them. Nothing else is
assumed: not that replies come, that a gateway lives, or that the upstream reads at once what has arrived. With a burst
of b, a slot may be used up to b - 1 steps after its time, and steps are `WINDOW` / (R - b + 1): R - b + 1 slots and
b - 1 that were late.

Other numbers (`Slots.set_numbers`). The server uses those of the newest configuration that it heard of, so a gateway
that was cut off from the configuration gets no slots under older ones. Each slot is at least one step before the next,
by the numbers in force when it was given. In a burst, slots are given late. When numbers change, the server leaves out
as much time as slots of the last minute were late. Take the slots that are used within 60 seconds, the first of them
late by d. If the numbers change before the last one, at least d is left out, so the rest lies within `WINDOW`, and there
are at most as many as there are of the smallest step: no more than the largest R in force.
A gateway alone has its share of the limit that it knows. All shares together are at most the largest limit known.

Clocks. A gateway asks at its t0 and hears at its t1 that the server's time was T. So the server's T + d is between
t0 + d and t1 + d of the gateway: it sends not before t1 + d, and not after t0 + d + late. A gateway that was stopped
finds that its slots have lapsed, and asks again.

The server loses its memory (restart, failover), or its clock is set. No slot is further ahead than the horizon, two
seconds or a few steps, so the next one is given that far ahead: by then, those from before are over.

The server is away. See `contact`. A gateway alone sends at its share of the rate, the first time one of its steps after
it went alone; for the silent gateway the server leaves out as many slots. Each gateway that changes sides may add one
request, so two slots for each gateway are left out for a minute. The limit can still be exceeded as `contact` says,
and when a gateway starts while another one is alone, because shares are then smaller than that one knows.

The price: 60.8 seconds for R slots, 98.7 % of the rate, however long replies take.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from weakref import WeakSet

from hubgate.core.traffic.contact import Contact, Mode, ServerClock
from hubgate.domain.cluster_ports import Permits, SlotAnswer, SlotQuestion
from hubgate.domain.errors import StoreFailed
from hubgate.domain.ports import Clock

_LATE = 0.25
"""Seconds after its time for which a slot may be used."""
_ARRIVAL = 0.5
"""Seconds within which a request arrives."""
WINDOW = 60.05 + _LATE + _ARRIVAL
_AHEAD = 0.1
"""Seconds that a block of slots may span: others wait for those that are not used."""
_PACE_SECONDS = 0.2
"""A question is for as many slots as were used in this time: the last of them can still be used."""
_REFILL_SECONDS = 0.05
"""The next question is asked when the slots that are left will last for less."""
_EARLY = 0.001
"""Timers may fire early by this."""
_LATE_TIMER = 0.02
"""How late a timer may be and still not slow the rate."""
_BURST_SHARE = 20
"""A burst is at most this fraction of a minute's requests, because steps are longer with a larger one."""
_BEAT_SECONDS = 0.5
_RETRY_SECONDS = 0.05
_LATER = 0.01
"""Added to moments at which there is something to ask, not to send."""

_log = logging.getLogger(__name__)


class SharedLimits:
    """The rate limits that this gateway shares with others.

    Args:
        permits: the server.
        server_name: for messages.
        gateway: a name that no other gateway has.
        shares: whether the gateway goes on alone however long the server is away; see `Contact`.
        clock: seconds that never go back.
    """

    def __init__(
        self, permits: Permits, server_name: str, gateway: str, *, shares: bool, clock: Clock
    ) -> None:
        self.permits = permits
        self.contact = Contact(clock, shares=shares)
        self.clock = clock
        self.clock_changes = 0
        """How often the server's clock was set."""
        self.before_return: Callable[[], Awaitable[None]] = _nothing
        """Awaited before the server counts this gateway as one that is not alone."""
        self.version = 0
        """Of the configuration that this gateway knows."""
        self._server_name = server_name
        self._gateway = gateway
        self._server_clock = ServerClock()
        self._open: WeakSet[Slots] = WeakSet()
        self._mode = Mode.SHARED
        self._beating: asyncio.Task[None] | None = None

    @property
    def alone(self) -> bool:
        """Whether this gateway goes on by itself, or waits to."""
        return self.contact.mode is not Mode.SHARED

    def slots(self, key: str, requests_per_minute: int, burst: int = 1) -> Slots:
        """The slots of one rate limit, which `key` names for all gateways."""
        slots = Slots(self, key, requests_per_minute, burst)
        self._open.add(slots)
        return slots

    def follow(self, version: int) -> None:
        """Note which version of the configuration this gateway knows, and report the numbers that are new in it."""
        if version != self.version:
            self.version = version
            for slots in list(self._open):
                slots.report()

    async def start(self) -> None:
        """Make contact, and keep it."""
        await self._beat()
        self._beating = asyncio.get_running_loop().create_task(self._keep_contact())

    async def close(self) -> None:
        """Leave the other gateways the whole rate. No request may follow."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        for slots in list(self._open):
            slots.close()
        try:
            await self.permits.leave(self._gateway)
        except StoreFailed as error:
            _log.info("could not leave the share of this gateway to the others: %s", error)

    def compare_clocks(self, asked: float, time: float) -> None:
        """Note the server's time in the answer to a question that was asked then."""
        if not self._server_clock.heard(asked, self.clock(), time):
            self.clock_changes += 1
            _log.warning("the clock of %s was set; sending pauses for a moment", self._server_name)

    def failed(self, error: StoreFailed) -> None:
        """Note that the server did not answer."""
        if self.contact.mode is Mode.SHARED:
            _log.warning("requests under shared rate limits wait: %s", error)
        self.contact.failed()
        self._follow_mode()

    async def _keep_contact(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            await self._beat()

    async def _beat(self) -> None:
        """Say that this gateway asks the server for its slots, if it does; otherwise ask for the time."""
        asked, sent_at = self.clock(), None
        if self.contact.mode is Mode.SHARED:
            sent_at = self._server_clock.earliest(asked)
            self.contact.beat_sent()
        try:
            answer = await self.permits.beat(self._gateway, sent_at)
        except StoreFailed as error:
            self.failed(error)
            return
        self.compare_clocks(asked, answer.now)
        self.contact.heard(max(1, answer.gateways))
        self._follow_mode()
        if sent_at is None:
            await self.before_return()
            await self._beat()

    def _follow_mode(self) -> None:
        """Log a change of the mode, and let those who wait look again."""
        before, self._mode = self._mode, self.contact.mode
        if before is self._mode:
            return
        if self._mode is Mode.ALONE:
            _log.warning(
                "%s is away: this gateway goes on alone, at 1/%d of each rate limit",
                self._server_name,
                self.contact.gateways,
            )
        elif self._mode is Mode.SHARED:
            _log.info("rate limits are shared through %s again", self._server_name)
        for slots in list(self._open):
            slots.changed()


class Slots:
    """The slots of one rate limit that this gateway has, and its question for more. One question is open at a time."""

    def __init__(self, shared: SharedLimits, key: str, requests_per_minute: int, burst: int) -> None:
        self._shared = shared
        self._clock = shared.clock
        self._key = key
        self._rate, self._burst = requests_per_minute, _burst(requests_per_minute, burst)
        self._new_after: int | None = None
        """The version of the configuration before these numbers, until the server knows them."""
        self._stock: deque[tuple[float, float]] = deque()
        """Each from when and until when it may be used."""
        self._block = 1
        """Slots that the last question was for."""
        self._used = 0
        self._used_since = -math.inf
        """How many slots were used since the last question was answered, and when that was."""
        self._step = WINDOW / requests_per_minute
        self._most = 1
        self._ask_at = -math.inf
        self._free_at = -math.inf
        """When the first slot was free that this gateway did not get."""
        self._clock_changes = shared.clock_changes
        self._asking: asyncio.Task[None] | None = None
        self._paused_until = self._slow_until = -math.inf
        """What the upstream wants, until the server knows it."""
        self._slow_step = 0.0
        self._alone_next: float | None = None
        self._was_alone = False
        self.on_change: Callable[[], None] = _ignore
        """Called when `due` may have changed."""

    def due(self, now: float) -> float:
        """When the next slot begins; `math.inf` if that is not known. Asks for slots if there is none."""
        if self._shared.contact.mode is not Mode.SHARED:
            return self._alone_due(now)
        self._alone_next = None
        while self._stock and self._stock[0][1] < now:
            self._stock.popleft()
        if self._stock:
            return self._stock[0][0]
        if now < self._ask_at:
            return self._ask_at + _LATER
        self._ask(now)
        return math.inf

    def take(self, now: float) -> float:
        """Use the slot that is due; returns until when."""
        if self._shared.contact.mode is not Mode.SHARED and self._alone_next is not None:
            slot = max(self._alone_next, now - _LATE_TIMER)
            self._alone_next, self._was_alone = slot + self._alone_step(), True
            return slot + _LATE
        _, until = self._stock.popleft()
        self._used += 1
        left = len(self._stock)
        if self._block > 1 and 2 * left < self._block and left < self._will_use(_REFILL_SECONDS, now):
            self._ask(now)
        return until

    def give_back(self, until: float) -> None:
        """Return a slot under which nothing was sent."""
        self._stock.appendleft((-math.inf, until))

    def set_numbers(self, requests_per_minute: int, burst: int) -> None:
        """Ask for slots under other numbers from now on. Slots that are here stay."""
        burst = _burst(requests_per_minute, burst)
        if (requests_per_minute, burst) == (self._rate, self._burst):
            return
        self._rate, self._burst, self._ask_at = requests_per_minute, burst, -math.inf
        self._new_after = self._shared.version
        if self._alone_next is not None:
            self._alone_next = min(self._alone_next, self._clock() + self._alone_step())
        self.on_change()

    def throttle(self, seconds: float, remaining: int) -> None:
        """Let all gateways together send at most `remaining` more requests in the next `seconds`."""
        until = self._clock() + seconds
        if remaining <= 0:
            self._paused_until = max(self._paused_until, until)
        else:
            self._slow_until, self._slow_step = until, seconds / remaining
        self.report()

    def estimate_wait(self, slots: int, now: float) -> float:
        """Seconds until the last of this number of further slots, at least."""
        if slots <= len(self._stock):
            return max(0.0, self._stock[slots - 1][0] - now)
        more = slots - len(self._stock)
        last = self._stock[-1][0] + self._step if self._stock else max(now, self._free_at)
        return max(0.0, last - now) + (more - 1) * self._step

    def changed(self) -> None:
        """Look again: the server is there, or away."""
        self.report()
        self.on_change()

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _alone_due(self, now: float) -> float:
        contact = self._shared.contact
        self._stock.clear()
        if contact.mode is Mode.WAITING:
            at = contact.alone_at
            return at + _LATER if now < at and contact.gateways else math.inf
        step = self._alone_step()
        if self._alone_next is None:
            self._alone_next = max(contact.alone_at, now - step) + step
        return self._alone_next

    def _alone_step(self) -> float:
        gateways = max(1, self._shared.contact.gateways)
        per_window = self._rate - self._burst + 1 - 2 * gateways
        return gateways * WINDOW / per_window if per_window > 0 else math.inf

    def _will_use(self, seconds: float, now: float) -> float:
        """How many slots will be used in this time if it goes on as since the last answer."""
        elapsed = now - self._used_since
        return self._used * seconds / elapsed if elapsed else math.inf

    def _ask(self, now: float) -> None:
        """Ask for slots, unless a question is open."""
        if self._asking is None:
            most = min(self._block * 2, self._most)
            self._block = max(1, math.floor(min(self._will_use(_PACE_SECONDS, now), most)))
            self._start(self._block)

    def report(self) -> None:
        """Report what the server does not know yet: now, or after an open question, or when the server is back."""
        if self._asking is None and self._shared.contact.mode is Mode.SHARED and self._news():
            self._start(0)

    def _news(self) -> bool:
        now = self._clock()
        if self._new_after is not None and self._new_after < self._shared.version:
            return True
        return now < self._paused_until or now < self._slow_until

    def _start(self, wanted: int) -> None:
        # In a context of its own: it does not belong to the caller that happens to start it.
        loop = asyncio.get_running_loop()
        self._asking = loop.create_task(self._question(wanted), context=contextvars.Context())

    async def _question(self, wanted: int) -> None:
        asked, changes, version = self._clock(), self._shared.clock_changes, self._shared.version
        paused_until, slow_until = self._paused_until, self._slow_until
        question = SlotQuestion(
            key=self._key,
            wanted=wanted,
            per_window=self._rate,
            burst=self._burst,
            version=version,
            window=WINDOW,
            known_gateways=self._shared.contact.gateways,
            unsure=self._clock_changes != changes,
            was_alone=self._was_alone,
            pause=max(0.0, paused_until - asked),
            slow_seconds=max(0.0, slow_until - asked),
            slow_step=self._slow_step,
        )
        try:
            answer = await self._shared.permits.take(question)
        except StoreFailed as error:
            self._asking = None
            self._shared.failed(error)
        else:
            self._asking, self._was_alone = None, False
            if self._new_after is not None and self._new_after < version:
                self._new_after = None
            if self._paused_until == paused_until:
                self._paused_until = -math.inf
            if self._slow_until == slow_until:
                self._slow_until = -math.inf
            self._shared.compare_clocks(asked, answer.now)
            if self._shared.clock_changes == changes:
                self._clock_changes = changes
                self._receive(answer, asked, wanted)
        self.report()
        self.on_change()

    def _receive(self, answer: SlotAnswer, asked: float, wanted: int) -> None:
        heard, ahead = self._clock(), answer.first - answer.now
        for number in range(answer.granted):
            slot = max(ahead + number * answer.step, -_LATE_TIMER)
            self._stock.append((heard + slot + _EARLY, asked + slot + _LATE))
        if not wanted:
            return
        self._step = answer.step
        turn = answer.step * answer.gateways
        self._most = max(1, math.floor(_AHEAD / turn))
        self._used, self._used_since = 0, heard
        self._free_at = heard + ahead
        if not answer.granted:
            self._ask_at = heard + max(_RETRY_SECONDS, ahead - answer.horizon)


def _burst(requests_per_minute: int, burst: int) -> int:
    return max(1, min(burst, requests_per_minute // _BURST_SHARE))


def _ignore() -> None:
    pass


async def _nothing() -> None:
    pass
