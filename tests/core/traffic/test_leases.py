"""Requests in flight that gateways share by leases: the real script and rate limiters of several, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import examples
from scripted_upstream import ScriptedUpstream, embed
from servers.limit_server import LimitServer
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchQueue
from hubgate.core.traffic.leases import SharedLeases
from hubgate.core.traffic.permits import LimitNumbers
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.errors import Cause, UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Sequence


class Upstream:
    """Counts what is in flight there from all gateways."""

    def __init__(self) -> None:
        self.in_flight = self.most = 0


class Gateway:
    def __init__(
        self, name: str, server: LimitServer, upstream: Upstream, limit: int, *, texts: bool = False
    ) -> None:
        self.name, self.upstream, self.sent = name, upstream, 0
        self.cuts: Sequence[tuple[float, float]] = ()
        connection = server.connection(lambda: any(start <= now() < end for start, end in self.cuts))
        self.limits = SharedLimits(connection, "the server", name, shares=True, clock=now)
        self.leases = SharedLeases(connection, self.limits, name)
        lease = self.leases.lease("limit", limit)
        self.limiter = RateLimiter(
            None,
            request_lease=None if texts else lease,
            text_lease=lease if texts else None,
            clock=now,
        )

    async def start(self) -> None:
        await self.limits.start()
        self.leases.start()

    async def close(self) -> None:
        await self.leases.close()
        await self.limits.close()

    async def call(self, seconds: float = 0.1, texts: int = 1) -> None:
        permit = await self.limiter.acquire()
        try:
            texts = min(texts, permit.texts)
            self.limiter.fill(permit, texts=texts, tokens=1)
            self.upstream.in_flight += texts
            self.upstream.most = max(self.upstream.most, self.upstream.in_flight)
            await asyncio.sleep(seconds)
            self.sent += 1
        finally:
            self.upstream.in_flight -= texts
            self.limiter.release(permit)

    async def calls(self, callers: int, since: float, until: float, seconds: float = 0.1) -> None:
        """Callers that always wait, for a time."""

        async def caller() -> None:
            while now() < until:
                await self.call(seconds)

        await asyncio.sleep(since - now())
        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        _, pending = await asyncio.wait(tasks, timeout=until - now() + 1)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def gateways(server: LimitServer, limit: int, count: int = 3, *, texts: bool = False) -> list[Gateway]:
    upstream = Upstream()
    opened = [Gateway(name, server, upstream, limit, texts=texts) for name in "abc"[:count]]
    for each in opened:
        await each.start()
    await asyncio.sleep(6)  # the server is new for 5 s
    return opened


async def close(opened: Sequence[Gateway]) -> None:
    for each in opened:
        await each.close()
    await asyncio.sleep(2)  # questions in flight end


def test_gateway_that_uses_a_limit_alone_has_all_of_it_and_others_get_equal_parts() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(latency=0.002), 12)
        upstream = opened[0].upstream
        await opened[0].calls(20, now(), now() + 5)
        assert upstream.most == 12
        assert opened[0].sent >= 0.9 * 12 * 5 / 0.1
        before, start = [each.sent for each in opened], now()
        await asyncio.gather(*(each.calls(20, start, start + 20) for each in opened))
        assert upstream.most == 12
        sent = [each.sent - former for each, former in zip(opened, before, strict=True)]
        assert sum(sent) >= 0.95 * 12 * 20 / 0.1
        assert max(sent) - min(sent) <= 0.1 * max(sent)
        await close(opened)

    run(main())


def test_limit_below_the_number_of_gateways_goes_round() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), 1)
        start = now()
        await asyncio.gather(*(each.calls(4, start, start + 60) for each in opened))
        assert opened[0].upstream.most == 1
        assert min(each.sent for each in opened) >= 60
        assert sum(each.sent for each in opened) >= 0.6 * 60 / 0.1
        await close(opened)

    run(main())


def test_texts_in_flight_are_shared_too() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), 90, texts=True)
        await asyncio.gather(*(each.call(0.5, 32) for each in opened for _ in range(10)))
        assert 60 <= opened[0].upstream.most <= 90
        await close(opened)

    run(main())


def test_only_the_first_call_after_a_while_waits_for_an_answer() -> None:
    async def main() -> None:
        opened = await gateways(server := LimitServer(latency=0.02), 8)
        waits = []
        for pause in (0.0, 0.05, 3.0, 30.0, 0.05):
            await asyncio.sleep(pause)
            asked, before = now(), server.questions
            await opened[0].call(0.0)
            waits.append((now() - asked > 0, server.questions > before))
        assert [waited for waited, _ in waits] == [True, False, False, True, False]
        await asyncio.sleep(20)
        assert not server.leases["limit"]
        await close(opened)

    run(main())


def test_changed_limit_holds_for_all_also_for_a_gateway_that_does_not_know_it() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(latency=0.002), 12)
        start, upstream = now(), opened[0].upstream
        busy = [each.calls(20, start, start + 64) for each in opened]

        async def change() -> None:
            for number in range(15):
                await asyncio.sleep(2)
                assert upstream.most <= 12
                limit = 6 if number % 2 == 0 else 12
                for each in opened[:2]:  # the third does not know
                    lease = each.limiter.request_lease
                    assert lease is not None
                    lease.set_total(limit)
                    each.limiter.set_numbers(LimitNumbers(), request_lease=lease)
                    each.limits.follow(number + 1)
                await asyncio.sleep(2)
                assert upstream.most <= 12
                upstream.most = 0
                await asyncio.sleep(0.2)
                assert upstream.most == limit

        await asyncio.gather(change(), *busy)
        for each in opened:
            each.limiter.set_numbers(LimitNumbers())
        await asyncio.gather(*(each.calls(20, now(), now() + 1) for each in opened))
        assert opened[0].upstream.most == 60
        await close(opened)

    run(main())


def test_gateways_go_on_with_their_part_while_the_server_is_away() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(stalls=[(20.0, 60.0)]), 9)
        busy = [each.calls(9, 7, 90) for each in opened[:2]]
        other = opened[2].calls(9, 10, 90)
        sent: list[int] = []
        for at in (30.0, 58.0):
            asyncio.get_running_loop().call_at(at, lambda: sent.append(sum(each.sent for each in opened)))
        await asyncio.gather(*busy, other)
        assert opened[0].upstream.most <= 9
        assert sent[1] - sent[0] >= 0.95 * 28 * 9 / 0.1
        await close(opened)

    run(main())


def test_killed_gateway_costs_its_part_for_half_a_minute() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), 12)
        opened[0].cuts = [(20.0, 1000.0)]
        lives = [opened[0].calls(8, 7, 20), *(each.calls(12, 7, 80) for each in opened[1:])]
        sent: list[int] = []
        for at in (26.0, 40.0, 60.0, 70.0):
            asyncio.get_running_loop().call_at(at, lambda: sent.append(sum(each.sent for each in opened)))
        await asyncio.gather(*lives)
        assert opened[0].upstream.most <= 12
        assert 0.6 <= (sent[1] - sent[0]) / (14 * 12 / 0.1) <= 0.7
        assert (sent[3] - sent[2]) / (10 * 12 / 0.1) >= 0.95
        await close(opened)

    run(main())


@settings(max_examples=examples(15))
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([1, 2, 5, 16]),
    count=st.integers(1, 3),
    latency=st.sampled_from([0.0, 0.01, 0.2, 0.4]),
    lost=st.sampled_from([0.0, 0.1]),
    stalls=st.lists(st.tuples(st.floats(6, 60), st.floats(0.1, 20)), max_size=2),
    cut=st.none() | st.floats(6, 60),
    restart=st.none() | st.floats(6, 60),
)
@example(  # both come back after half a minute, one before the other
    seed=53,
    limit=1,
    count=2,
    latency=0.0,
    lost=0.1,
    stalls=[(42.0, 18.0), (53.0, 20.0)],
    cut=None,
    restart=None,
)
def test_gateways_together_never_exceed_the_limit(
    *,
    seed: int,
    limit: int,
    count: int,
    latency: float,
    lost: float,
    stalls: list[tuple[float, float]],
    cut: float | None,
    restart: float | None,
) -> None:
    """Server and network stall, replies are lost and overtaken, a gateway is killed, memory is lost."""
    chance = Random(seed)
    server = LimitServer(chance, latency, lost, [(start, start + length) for start, length in stalls])

    async def main() -> None:
        opened = await gateways(server, limit, count)
        if restart is not None:
            asyncio.get_running_loop().call_at(restart, server.restart)
        lives = []
        for each in opened:
            end = 80.0
            if cut is not None and each is opened[-1]:
                each.cuts, end = [(cut, 1000.0)], cut
            for _ in range(3):
                start = chance.uniform(6, max(6.0, end - 1))
                lives.append(each.calls(5, start, min(end, start + chance.uniform(1, 30)), 0.3))
        await asyncio.gather(*lives)
        assert opened[0].upstream.most <= limit
        await close(opened)

    run(main())


@pytest.mark.parametrize("texts", [False, True])
def test_lease_that_shrinks_below_what_is_in_flight_grants_nothing_more(texts: bool) -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), 4, 2, texts=texts)
        long = [asyncio.create_task(opened[0].call(20.0)) for _ in range(4)]
        await asyncio.sleep(1)
        other = asyncio.create_task(opened[1].call(1.0))
        await asyncio.sleep(10)
        assert opened[0].upstream.most == 4
        assert not other.done()
        await asyncio.gather(*long, other)
        await close(opened)

    run(main())


def test_refused_call_leaves_its_part_to_other_gateways_while_it_waits() -> None:
    def refused(texts: Sequence[str]) -> Exception | None:
        words = "Too many tokens."
        refusal = UpstreamRefused(words, status=429, cause=Cause.OVERLOADED, retryable=True, retry_after=200)
        return refusal if texts[0] == "bad" else None

    async def main() -> None:
        opened, queues = await gateways(LimitServer(), 1, 2), []
        server = ScriptedUpstream(seconds=0.01, fault=refused)
        for each in opened:
            steps = RetryStep(server, Retrier(each.limiter, clock=now))
            queues.append(BatchQueue(steps, limiter=each.limiter, clock=now))
        bad = asyncio.create_task(queues[0](embed("bad")))
        await asyncio.sleep(1)
        for _ in range(5):
            begun = now()
            await queues[1](embed("good"))
            assert now() < begun + 15  # for as long the first gateway keeps what it has used
        assert not bad.done()
        bad.cancel()
        await asyncio.gather(bad, return_exceptions=True)
        assert server.busiest == 1
        await close(opened)

    run(main())
