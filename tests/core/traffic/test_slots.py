"""Rate limits that gateways share: the real script, rate limiters and contact of several gateways, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from servers.limit_server import LimitServer
from slow_server import max_per_minute
from virtual_time import now, run

from hubgate.core.traffic.permits import LimitNumbers, Permit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.slots import SharedLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ARRIVAL_SECONDS = 0.5


@dataclass
class Gateway:
    """A gateway with callers that always wait."""

    name: str
    server: LimitServer
    rate: int
    chance: Random
    arrivals: list[float]
    burst: int = 1
    shares: bool = True
    callers: int = 2
    connecting: Sequence[float] = (0.0,)
    """Seconds from a permit until its request can leave; one of them."""
    cuts: Sequence[tuple[float, float]] = ()
    held_up: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """From when to when what it sends while it is cut off is held up, and when that arrives."""
    sent: int = 0
    limiter: RateLimiter = field(init=False)
    shared: SharedLimits = field(init=False)

    async def start(self) -> None:
        permits = self.server.connection(self._is_cut, self._arrives)
        self.shared = SharedLimits(permits, "the server", self.name, shares=self.shares, clock=now)
        slots = self.shared.slots("key", self.rate, self.burst)
        self.limiter = RateLimiter(None, slots=slots, clock=now)
        await self.shared.start()

    async def send(self, permit: Permit) -> None:
        await asyncio.sleep(self.chance.choice(self.connecting))
        while not permit.try_send():
            await permit.renew()
        self.arrivals.append(now() + self.chance.choice([0.0, 1.0]) * MAX_ARRIVAL_SECONDS)
        self.sent += 1

    async def call(self) -> None:
        while True:
            permit = await self.limiter.acquire()
            try:
                self.limiter.fill(permit, texts=1, tokens=1)
                await self.send(permit)
                await asyncio.sleep(self.chance.random() * 0.1)
                permit.reply_started()
            finally:
                self.limiter.release(permit)

    async def live(self, since: float, until: float, *, killed: bool = False) -> None:
        """Send calls for a time, then stop or be killed."""
        await asyncio.sleep(since - now())
        await self.start()
        calls = [asyncio.create_task(self.call()) for _ in range(self.callers)]
        await asyncio.sleep(until - now())
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if killed:
            self.cuts = [(0.0, float("inf"))]
        await self.shared.close()

    def _is_cut(self) -> bool:
        return any(start <= now() < end for start, end in self.cuts)

    def _arrives(self) -> float | None:
        start, end, arrival = self.held_up
        return arrival if start <= now() < end else None


def gateways(
    server: LimitServer, rate: int, count: int, *, chance: Random | None = None, **kind: object
) -> list[Gateway]:
    arrivals: list[float] = []
    chance = chance or Random(1)
    return [
        Gateway(f"gateway {number}", server, rate, chance, arrivals, **kind)  # type: ignore[arg-type]
        for number in range(count)
    ]


def used_in(living: Sequence[Gateway], start: float, end: float) -> float:
    """The share of the limit that was used between two moments."""
    sent = sum(start <= at < end for at in living[0].arrivals)
    return sent / (end - start) * 60 / living[0].rate


async def all_live(living: Sequence[Gateway], seconds: float) -> None:
    await asyncio.gather(*(each.live(0.0, seconds) for each in living))


@pytest.mark.parametrize(("rate", "callers"), [(60, 2), (300, 6)])
def test_three_gateways_use_98_percent_of_the_limit_in_equal_shares(rate: int, callers: int) -> None:
    living = gateways(LimitServer(latency=0.002), rate, 3, callers=callers)
    run(all_live(living, 190.0))
    assert max_per_minute(living[0].arrivals) <= rate
    assert used_in(living, 70, 190) >= 0.98
    assert max(each.sent for each in living) - min(each.sent for each in living) <= 3


def test_high_rates_need_one_question_for_ten_permits() -> None:
    server = LimitServer(latency=0.001)
    living = gateways(server, 60_000, 3, callers=60)
    run(all_live(living, 6.0))
    assert sum(each.sent for each in living) > 3_800
    assert server.questions * 10 <= sum(each.sent for each in living)


def test_lone_call_at_an_idle_gateway_does_not_wait() -> None:
    async def main() -> float:
        (gateway,) = gateways(LimitServer(), 60, 1)
        await gateway.start()
        await asyncio.sleep(10)
        before = now()
        gateway.limiter.release(await gateway.limiter.acquire())
        await gateway.shared.close()
        return now() - before

    assert run(main()) <= 0.01


def test_steady_calls_share_questions_and_do_not_wait() -> None:
    async def main() -> list[float]:
        server = LimitServer(latency=0.001)
        (gateway,) = gateways(server, 60_000, 1)
        await gateway.start()
        waited = []
        for _ in range(200):
            before = now()
            gateway.limiter.release(await gateway.limiter.acquire())
            waited.append(now() - before)
            await asyncio.sleep(0.05)
        beats = 20
        assert server.questions - beats <= len(waited) / 3
        await gateway.shared.close()
        return waited

    assert sum(wait > 0.001 for wait in run(main())) <= 20


def test_new_server_waits_until_slots_of_the_former_one_are_over() -> None:
    living = gateways(server := LimitServer(), 60, 3)

    async def main() -> None:
        asyncio.get_running_loop().call_at(80.0, server.restart)
        await all_live(living, 200.0)

    run(main())
    assert max_per_minute(living[0].arrivals) <= 60
    assert not any(83.6 < at < 84.4 for at in living[0].arrivals)
    assert used_in(living, 84, 140) >= 0.85


@pytest.mark.parametrize("rate", [60, 600])
@pytest.mark.parametrize("shares", [True, False])
def test_gateways_go_on_alone_while_the_server_is_away(rate: int, shares: bool) -> None:
    server = LimitServer(stalls=[(90.0, 180.0)])
    living = gateways(server, rate, 3, callers=6, shares=shares)
    run(all_live(living, 260.0))
    assert max_per_minute(living[0].arrivals) <= rate
    first = min(at for at in living[0].arrivals if at > 92)
    assert first <= 90 + 0.5 + 4.5 + 4 * 60 / rate + MAX_ARRIVAL_SECONDS
    assert used_in(living, 100, 118) >= 0.8
    assert (used_in(living, 125, 179) >= 0.8) == shares
    assert used_in(living, 185, 250) >= 0.85


@pytest.mark.parametrize("rate", [60, 600])
def test_gateway_that_is_cut_off_keeps_its_share_for_half_a_minute(rate: int) -> None:
    living = gateways(LimitServer(), rate, 3, callers=6)
    living[0].cuts = [(100.0, 125.0)]
    run(all_live(living, 200.0))
    assert max_per_minute(living[0].arrivals) <= rate
    assert used_in(living, 110, 124) >= 0.75


def test_gateway_that_is_cut_off_longer_exceeds_the_limit_by_its_share_or_waits() -> None:
    def most(*, shares: bool) -> int:
        living = gateways(LimitServer(), 300, 3, callers=6, shares=shares)
        living[0].cuts = [(70.0, 300.0)]
        run(all_live(living, 260.0))
        return max_per_minute(living[0].arrivals)

    assert most(shares=False) <= 300
    assert 300 < most(shares=True) <= 400


def test_beat_that_was_held_up_gives_no_share_of_a_gateway_that_is_alone_to_others() -> None:
    """It would show that gateway alive, and its share would be spent twice for three seconds."""
    living = gateways(LimitServer(), 600, 2, callers=8)
    living[0].cuts, living[0].held_up = [(70.0, 97.0)], (70.0, 71.0, 85.0)
    run(all_live(living, 140.0))
    assert max_per_minute(living[0].arrivals) <= 600
    assert used_in(living, 78, 96) >= 0.9


def test_killed_gateway_that_is_restarted_under_its_name_has_its_share_at_once() -> None:
    living = gateways(LimitServer(), 300, 2, callers=6)
    again = Gateway("gateway 0", living[0].server, 300, Random(2), living[0].arrivals, callers=6)

    async def main() -> None:
        await asyncio.gather(
            living[0].live(0.0, 70.0, killed=True), again.live(72.0, 160.0), living[1].live(0.0, 160.0)
        )

    run(main())
    assert max_per_minute(living[0].arrivals) <= 300
    assert used_in(living, 73, 100) >= 0.95
    assert again.sent >= 0.9 * (160 - 72) * 300 / 60 / 2


def test_killed_gateway_costs_its_share_for_half_a_minute() -> None:
    living = gateways(LimitServer(), 300, 3, callers=6)

    async def main() -> None:
        await asyncio.gather(
            living[0].live(0.0, 70.0, killed=True), *(each.live(0.0, 240.0) for each in living[1:])
        )

    run(main())
    assert max_per_minute(living[0].arrivals) <= 300
    assert used_in(living, 72, 102) >= 0.6
    assert used_in(living, 105, 160) >= 0.95
    assert used_in(living, 170, 230) >= 0.98


@pytest.mark.parametrize("seconds", [-1000.0, -1.5, 1.5, 1000.0])
def test_server_clock_that_is_set_costs_two_seconds(seconds: float) -> None:
    living = gateways(server := LimitServer(), 60, 3)

    async def main() -> None:
        for at in range(80, 90, 3):
            asyncio.get_running_loop().call_at(
                at, setattr, server, "offset", server.offset + seconds * (at % 2)
            )
        await all_live(living, 180.0)

    run(main())
    assert max_per_minute(living[0].arrivals) <= 60
    assert used_in(living, 100, 160) >= 0.8


def configure(gateways: Sequence[Gateway], version: int, rate: int, burst: int = 1) -> None:
    """Let gateways hear of other numbers in a new version of the configuration."""
    for each in gateways:
        each.limiter.set_numbers(LimitNumbers(requests_per_minute=rate, burst=burst))
        each.shared.follow(version)


@pytest.mark.parametrize("known", [3, 2], ids=["all know it", "one does not"])
@pytest.mark.parametrize("bursts", [(1, 1), (40, 1), (40, 40)])
@pytest.mark.parametrize("rates", [(300, 120), (120, 300), (300, 299), (5, 600)])
def test_changed_limit_admits_no_more_than_the_larger_of_both(
    rates: tuple[int, int], bursts: tuple[int, int], known: int
) -> None:
    """The limit is changed to and fro every 2 s, while the server is there and while it is away."""
    server = LimitServer(stalls=[(130.0, 170.0)])
    living = gateways(server, rates[0], 3, callers=6, burst=bursts[0])
    chance = Random(1)

    async def change() -> None:
        await asyncio.sleep(70)
        for number in range(60):
            which = (number + 1) % 2
            configure(living[:known], number + 1, rates[which], bursts[which])
            await asyncio.sleep(chance.choice([0.1, 2.0, 4.0]))

    async def main() -> None:
        await asyncio.gather(all_live(living, 200.0), change())

    run(main())
    assert max_per_minute(living[0].arrivals) <= max(rates)
    if min(rates) > 100:
        assert used_in(living, 75, 125) * rates[0] >= 0.7 * min(rates)


def test_gateway_that_does_not_know_of_a_lowered_limit_gets_no_slots_under_the_former_one() -> None:
    """Nor if it is the only one with calls."""
    living = gateways(LimitServer(), 600, 3, callers=6)
    for each in living[:2]:
        each.callers = 0

    async def main() -> None:
        asyncio.get_running_loop().call_at(70.0, configure, living[:2], 1, 120)
        asyncio.get_running_loop().call_at(200.0, configure, living, 2, 300)
        await all_live(living, 270.0)

    run(main())
    arrivals = living[0].arrivals
    assert 100 <= sum(132 <= at < 192 for at in arrivals) <= 120
    assert 270 <= sum(205 <= at < 265 for at in arrivals) <= 300


def test_burst_counts_after_the_burst_was_changed() -> None:
    (living,) = gateways(LimitServer(), 600, 1, burst=30, callers=30)

    async def main() -> None:
        await living.start()
        living.limiter.release(await living.limiter.acquire())
        await asyncio.sleep(150)
        calls = [asyncio.create_task(living.call()) for _ in range(40)]
        await asyncio.sleep(0.1)
        assert living.sent >= 30
        configure([living], 1, 600, 1)
        await asyncio.sleep(80)
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await living.shared.close()

    run(main())
    assert 550 <= max_per_minute(living.arrivals) <= 600


def test_slot_that_is_not_used_in_time_lapses() -> None:
    (living,) = gateways(LimitServer(), 60, 1, callers=30, connecting=[0.0, 0.0, 0.0, 0.0, 4.0])
    run(living.live(0.0, 600.0))
    assert max_per_minute(living.arrivals) <= 60


def test_pause_that_the_upstream_wants_holds_for_all_gateways() -> None:
    living = gateways(LimitServer(), 600, 2)

    async def main() -> None:
        asyncio.get_running_loop().call_at(10.0, lambda: living[0].limiter.throttle(20.0))
        asyncio.get_running_loop().call_at(40.0, lambda: living[1].limiter.throttle(10.0, 5))
        await all_live(living, 60.0)

    run(main())
    arrivals = living[0].arrivals
    assert not any(11.0 < at < 30.0 for at in arrivals)
    assert 4 <= sum(41.0 <= at < 50.0 for at in arrivals) <= 6
    assert sum(52.0 <= at < 60.0 for at in arrivals) > 60


def test_burst_leaves_at_once_after_a_pause_and_stays_within_the_limit() -> None:
    living = gateways(LimitServer(), 60, 2, burst=60, callers=4)
    run(all_live(living, 150.0))
    assert max_per_minute(living[0].arrivals) <= 60
    assert used_in(living, 30, 150) >= 0.93


spans = st.lists(st.tuples(st.floats(5, 100), st.floats(0.1, 25)), max_size=2)


@dataclass(frozen=True)
class World:
    """What happens to three gateways at most, and to their server."""

    seed: int
    rate: int
    burst: int
    count: int
    latency: float
    lost: float
    stalls: Sequence[tuple[float, float]]
    cuts: Sequence[tuple[float, float]]
    """Of the first gateway: when, and for how long."""
    restarts: Sequence[float]
    steps: Sequence[tuple[float, float]]
    """Of the server's clock."""
    killed: float | None
    """When the last gateway is."""
    shares: bool


worlds = st.builds(
    World,
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([1, 2, 5, 12, 30]),
    burst=st.sampled_from([1, 1, 40]),
    count=st.integers(1, 3),
    latency=st.sampled_from([0.0, 0.01, 0.2, 0.4]),
    lost=st.sampled_from([0.0, 0.0, 0.1]),
    stalls=spans,
    cuts=spans,
    restarts=st.lists(st.floats(0, 120), max_size=2),
    steps=st.lists(
        st.tuples(st.floats(10, 120), st.sampled_from([-100.0, -1.0, 0.5, 2.5, 40.0])), max_size=2
    ),
    killed=st.none() | st.floats(10, 100),
    shares=st.booleans(),
)


@settings(max_examples=examples(20))
@given(world=worlds)
def test_gateways_together_never_exceed_the_limit_in_60_seconds(world: World) -> None:
    """Server and network stall, replies are lost, a gateway is cut off or killed, memory is lost, clocks are set."""
    chance = Random(world.seed)
    stalls = [(start, start + length) for start, length in world.stalls]
    server = LimitServer(chance, world.latency, world.lost, stalls)
    living = gateways(
        *(server, world.rate, world.count),
        chance=chance,
        burst=world.burst,
        shares=world.shares,
        callers=6,
        connecting=(0.0, 0.0, 0.0, 0.2, 3.0),
    )
    living[0].cuts = [(start, start + length) for start, length in world.cuts]

    def step(seconds: float) -> None:
        server.offset += seconds

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for at in world.restarts:
            loop.call_at(at, server.restart)
        for at, seconds in world.steps:
            loop.call_at(at, step, seconds)
        lives = [each.live(0.0, 150.0) for each in living[:-1]]
        last = living[-1].live(0.0, world.killed or 150.0, killed=world.killed is not None)
        await asyncio.gather(*lives, last)

    run(main())
    assert max_per_minute(living[0].arrivals) <= world.rate
