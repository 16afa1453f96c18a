"""A server of shared limits in virtual time: what the functions of `hubgate.store.schema.functions` do, in Python.

Tests compare their answers. It can be slow, lose replies, be away, restart without its memory, and have its clock set.
Times are integers of microseconds.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, TypeVar

from virtual_time import now

from hubgate.domain.cluster_ports import PostedNotice
from hubgate.domain.errors import StoreFailed
from hubgate.store.cluster.slot_values import beat_answer, exhausted, microseconds, seconds, slot_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hubgate.domain.cluster_ports import BeatAnswer, LeaseQuestion, SlotAnswer, SlotQuestion
    from hubgate.domain.records import Exhausted, Key

R = TypeVar("R")

PATIENCE = 0.5
_SECOND = 1_000_000
_DEAD, _SILENT = 30 * _SECOND, 3 * _SECOND
_FORGOTTEN = 600 * _SECOND
_CAREFUL, _LONGEST_PAUSE, _LATE = 62 * _SECOND, 310 * _SECOND, 20_000
_LAPSED, _TURN = 5 * _SECOND, 2 * _SECOND


@dataclass
class _Limit:
    """A row of `rate_limits`."""

    free: int | None = None
    epoch: int = 0
    since: int = 0
    changed: int = 0
    gateways: int = 1
    heard: int = 0
    pause: int = 0
    slow: int = 0
    slow_step: int = 0
    version: int = 0
    rate: int | None = None
    burst: int = 0
    confirmed: int = 0
    horizon: int = 0
    late: int = 0
    late_at: int = 0


@dataclass
class _Lease:
    """A row of `rate_limit_leases`."""

    has: int
    wants: bool
    at: int
    number: int


@dataclass
class _Total:
    """A row of `rate_limit_totals`."""

    most: int
    version: int
    confirmed: int


@dataclass
class LimitServer:
    """The server. Its time is that of the loop and `offset`."""

    chance: Random = field(default_factory=lambda: Random(1))
    latency: float = 0.0
    """The longest way of a message, one way."""
    lost_replies: float = 0.0
    """The share of replies that do not arrive."""
    stalls: Sequence[tuple[float, float]] = ()
    """When it stands still; it then answers what it received."""
    offset: float = 1_750_000_000.0
    epoch: int = 0
    """Another one after each restart."""
    questions: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Lose the memory."""
        self.epoch += 1
        self._known_epoch, self._since = 0, 0
        self._heard: dict[str, int] = {}
        self._limits: dict[str, _Limit] = defaultdict(_Limit)
        self.leases: dict[str, dict[str, _Lease]] = defaultdict(dict)
        self._totals: dict[str, _Total] = {}
        self._notices: dict[str, tuple[int, str, str]] = {}
        self.minutes: dict[str, dict[int, list[int]]] = defaultdict(dict)
        """Of each key: requests and tokens of a second."""

    def connection(
        self,
        is_cut: Callable[[], bool] = lambda: False,
        arrives: Callable[[], float | None] = lambda: None,
    ) -> LimitConnection:
        """A gateway's connection. While it is cut there are no replies; `arrives` is when a message does nevertheless."""
        return LimitConnection(self, is_cut, arrives)

    @property
    def time(self) -> int:
        return int((now() + self.offset) * _SECOND)

    def beat(self, gateway: str, sent_at: float | None) -> list[int]:
        here = self.time
        if self._known_epoch != self.epoch:
            self._known_epoch, self._since = self.epoch, here
        if abs(here - microseconds(sent_at or 0.0)) < _SECOND:
            self._heard[gateway] = here
            self._heard = {name: at for name, at in self._heard.items() if at > here - 2 * _DEAD}
        return [here, self._heard_within(_DEAD, here)]

    def leave(self, gateway: str) -> None:
        self._heard.pop(gateway, None)

    def take(self, asked: SlotQuestion) -> list[int]:
        here, limit = self.time, self._limits[asked.key]
        rate, burst = self._numbers(limit, asked, here)
        heard = max(1, self._heard_within(_SILENT, here))
        gateways = max(heard, self._heard_within(_DEAD, here))
        most = max(gateways, asked.known_gateways, limit.gateways)
        window = microseconds(asked.window)
        horizon = math.ceil(max(2 * _SECOND, (most + 1) * window / max(1, rate - burst + 1 - 2 * most)))
        widest = max(horizon, limit.horizon)
        was_used = limit.free is not None
        free = self._first_free(limit, here, horizon, widest)
        if free is None or asked.unsure:  # what was given before is over after the horizon
            free = here + widest
            limit.since = limit.changed = here
        if here - limit.since < _DEAD:
            gateways = most
        if (was_used and (heard, gateways) != (limit.heard, limit.gateways)) or asked.was_alone:
            limit.changed = here
        changed = limit.rate is not None and (rate, burst) != (limit.rate, limit.burst)
        if changed and limit.late > 0 and here - limit.late_at < _CAREFUL:
            free, limit.late = max(free, here) + limit.late, 0
        if free <= here + 2 * horizon:
            widest = horizon
        per_window = rate - burst + 1
        if here - limit.changed < _CAREFUL:
            per_window = max(1, per_window - 2 * gateways)
        step = math.ceil(window / per_window * gateways / heard)
        step = self._slowed(limit, asked, here, step)
        first = max(free, here - max(_LATE, (burst - 1) * step))
        if limit.pause < here + _LONGEST_PAUSE:
            first = max(first, limit.pause)
        granted = 0
        if asked.wanted > 0 and first <= here + horizon:
            granted = max(1, min(asked.wanted, (here + _SECOND // 10 - first) // step + 1))
            free = first + granted * step
            if here - first > _LATE:
                late = limit.late if here - limit.late_at < _CAREFUL else 0
                limit.late, limit.late_at = max(late, here - first), here
        limit.free, limit.epoch, limit.horizon = free, self.epoch, widest
        limit.rate, limit.burst, limit.heard, limit.gateways = rate, burst, heard, gateways
        return [here, first, granted, step, horizon, gateways]

    def lease(self, asked: LeaseQuestion) -> int:
        here, leases = self.time, self.leases[asked.key]
        former = leases.get(asked.gateway)
        if former is not None and former.number > asked.number:
            return -1
        most = self._total(asked, here)
        age = here - self._since if self._known_epoch == self.epoch else 0
        gateways = max(1, self._heard_within(_DEAD, here))
        if age < _DEAD or asked.was_away:
            gateways = max(gateways, asked.known_gateways)
        # Those that are silent may use their part by themselves.
        silent = max(0, gateways - max(1, self._heard_within(_SILENT, here)))
        others = {name: one for name, one in leases.items() if name != asked.gateway}
        for name, one in others.items():
            if abs(here - one.at) > _LAPSED:
                del leases[name]
        others = {name: one for name, one in others.items() if name in leases}
        taken = silent * (most // gateways) + sum(one.has for one in others.values())
        granted = 0
        if asked.wants:
            busy = sorted([asked.gateway, *(name for name, one in others.items() if one.wants)])
            turn = here // _TURN if most < len(busy) else 0  # each has one in turn
            place = (busy.index(asked.gateway) + turn) % len(busy)
            fair = most // len(busy) + (place < most % len(busy))
            granted = max(0, min(fair, most - taken))
            if age < _LAPSED and gateways > 1:  # others may hold what it forgot
                granted = min(granted, asked.holds)
        if asked.wants or asked.holds > 0:
            leases[asked.gateway] = _Lease(max(granted, asked.holds), asked.wants, here, asked.number)
        else:
            leases.pop(asked.gateway, None)
        return granted

    def read_notices(self) -> list[PostedNotice]:
        held = {name: self._left(name) for name in self._notices}
        return [
            PostedNotice(
                name=name, owner=self._notices[name][1], text=self._notices[name][2], seconds=seconds(left)
            )
            for name, left in held.items()
            if left
        ]

    def post(self, notice: PostedNotice, *, replace: bool) -> float:
        left = self._left(notice.name)
        if left and not replace and self._notices[notice.name][1] != notice.owner:
            return seconds(left)
        self._notices[notice.name] = self.time + microseconds(notice.seconds), notice.owner, notice.text
        return 0.0

    def remove(self, name: str, owner: str) -> None:
        if name in self._notices and self._notices[name][1] == owner:
            del self._notices[name]

    def admit(self, key: str, requests: int, tokens: int) -> list[int]:
        here = self.time
        second = here // _SECOND
        counts = self.minutes[key]
        for at in list(counts):
            if not second - 60 <= at <= second + 1:
                del counts[at]
        for what, kind, most in ((2, 1, tokens), (1, 0, requests)):
            excess = sum(each[kind] for each in counts.values()) - most
            for at in sorted(counts):
                if most == 0 or excess < 0:
                    break
                excess -= counts[at][kind]
                if excess < 0:
                    return [what, (at + 61) * _SECOND - here]
        if requests:
            counts.setdefault(second, [0, 0])[0] += 1
        return [0, 0]

    def spend(self, key: str, tokens: int) -> None:
        self.minutes[key].setdefault(self.time // _SECOND, [0, 0])[1] += tokens

    def _heard_within(self, span: int, here: int) -> int:
        return sum(here - span <= at <= here + _SECOND for at in self._heard.values())

    @staticmethod
    def _numbers(limit: _Limit, asked: SlotQuestion, here: int) -> tuple[int, int]:
        """Slots per window, and the burst: those of the newest configuration, unless it is long forgotten."""
        is_known = limit.rate is not None and abs(here - limit.confirmed) < _FORGOTTEN
        if is_known and asked.version <= limit.version:
            if asked.version == limit.version:
                limit.confirmed = here
            return limit.rate or 0, limit.burst
        limit.confirmed, limit.version = here, asked.version
        return asked.per_window, asked.burst

    def _first_free(self, limit: _Limit, here: int, horizon: int, widest: int) -> int | None:
        """`None` if nobody knows which slots were given."""
        is_known = self._known_epoch == self.epoch
        if limit.free is None:
            return 0 if is_known and here - self._since > horizon else None  # never used: nothing was lost
        latest = here + 2 * widest + (_LONGEST_PAUSE if limit.slow > here else 0)
        return limit.free if limit.epoch == self.epoch and limit.free <= latest else None

    @staticmethod
    def _slowed(limit: _Limit, asked: SlotQuestion, here: int, step: int) -> int:
        if asked.pause > 0:
            limit.pause = max(limit.pause, here + microseconds(asked.pause))
        if asked.slow_seconds > 0:
            limit.slow, limit.slow_step = (
                here + microseconds(asked.slow_seconds),
                microseconds(asked.slow_step),
            )
        return max(step, limit.slow_step) if here < limit.slow < here + _LONGEST_PAUSE else step

    def _total(self, asked: LeaseQuestion, here: int) -> int:
        """The limit of the newest configuration, unless it is long forgotten."""
        total = self._totals.get(asked.key)
        if total and asked.version <= total.version and abs(here - total.confirmed) < _FORGOTTEN:
            if asked.version == total.version and abs(here - total.confirmed) > 60 * _SECOND:
                total.confirmed = here
            return total.most
        self._totals[asked.key] = _Total(asked.limit, asked.version, here)
        return asked.limit

    def _left(self, name: str) -> int:
        """For how long a notice holds; one that holds longer is from before the clock was set."""
        left = self._notices[name][0] - self.time if name in self._notices else 0
        return left if 0 < left <= 600 * _SECOND else 0


class LimitConnection:
    """A gateway's connection: `Permits`, `LeaseServer`, `NoticeBoard` and `KeyMinutes` of `hubgate.domain.cluster_ports`."""

    def __init__(
        self, server: LimitServer, is_cut: Callable[[], bool], arrives: Callable[[], float | None]
    ) -> None:
        self._server = server
        self._is_cut = is_cut
        self._arrives = arrives

    async def take(self, question: SlotQuestion) -> SlotAnswer:
        return slot_answer(await self._exchange(lambda: self._server.take(question)))

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        return beat_answer(await self._exchange(lambda: self._server.beat(gateway, sent_at)))

    async def leave(self, gateway: str) -> None:
        await self._exchange(lambda: self._server.leave(gateway))

    async def lease(self, asked: LeaseQuestion) -> int:
        return await self._exchange(lambda: self._server.lease(asked))

    async def read(self) -> Sequence[PostedNotice]:
        return await self._exchange(self._server.read_notices)

    async def post(self, notice: PostedNotice, *, replace: bool = True) -> float:
        return await self._exchange(lambda: self._server.post(notice, replace=replace))

    async def remove(self, name: str, owner: str) -> None:
        await self._exchange(lambda: self._server.remove(name, owner))

    async def admit(self, key: Key) -> Exhausted | None:
        limits = key.requests_per_minute or 0, key.tokens_per_minute or 0
        return exhausted(await self._exchange(lambda: self._server.admit(key.id, *limits)))

    async def spend(self, key_id: str, tokens: int) -> None:
        await self._exchange(lambda: self._server.spend(key_id, tokens))

    async def forget(self, key_id: str) -> None:
        await self._exchange(lambda: self._server.minutes.pop(key_id, None))

    async def _exchange(self, execute: Callable[[], R]) -> R:
        """A message that was sent arrives, even if nobody waits for the reply any more."""
        server = self._server

        def answer() -> R:
            server.questions += 1
            return execute()

        if self._is_cut():
            if (at := self._arrives()) is not None:
                asyncio.get_running_loop().call_at(at, answer)
            await asyncio.sleep(PATIENCE)
            raise StoreFailed("The server did not answer in time.")
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[R] = loop.create_future()
        is_lost = server.chance.random() < server.lost_replies

        def receive(answered: R) -> None:
            if not is_lost and not reply.done():
                reply.set_result(answered)

        def arrive() -> None:
            for start, end in server.stalls:
                if start <= now() < end:
                    loop.call_at(end, arrive)
                    return
            answered = answer()
            loop.call_later(server.chance.random() * server.latency, receive, answered)

        loop.call_later(server.chance.random() * server.latency, arrive)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reply
        except TimeoutError:
            raise StoreFailed("The server did not answer in time.") from None
