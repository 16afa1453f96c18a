"""What gateways share about a server: real breakers, retriers and rate limiters of three, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_upstream import ScriptedUpstream, embed, refused
from servers.limit_server import LimitServer
from virtual_time import now, run

from hubgate.core.traffic.circuit_breaker import BreakerGate, BreakerMonitor, BreakerNotices, CircuitBreaker
from hubgate.core.traffic.notices import SharedNotices
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.domain.cluster_ports import PostedNotice
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hubgate.domain.calls import Call, Result

KNOWN = 0.6
"""Seconds after which all gateways know a notice."""


def waking() -> UpstreamRefused:
    return UpstreamRefused("It sleeps.", status=503, cause=Cause.WAKING, retryable=True)


def failed(cause: Cause = Cause.UPSTREAM_FAILED) -> HubgateError:
    return UpstreamUnreachable("It failed.", cause=cause, retryable=False)


class Gateway:
    """A gateway with one endpoint, whose server is `upstream`."""

    def __init__(self, name: str, board: LimitServer, upstream: ScriptedUpstream) -> None:
        self.cut = False
        connection = board.connection(lambda: self.cut)
        self.shared = SharedNotices(connection, name, now)
        self.upstream = upstream
        self.limiter = RateLimiter(None, pauses=self.shared.notice("pause"), clock=now)
        self.retrier = Retrier(
            self.limiter, waking=self.shared.notice("waking"), clock=now, chance=lambda: 1.0
        )
        notices = BreakerNotices(self.shared.notice("open"), self.shared.notice("test"))
        self.breaker = CircuitBreaker(failures=3, pause=5.0, notices=notices, clock=now)
        monitor = BreakerMonitor(RetryStep(self._send, self.retrier), self.breaker)
        self.answer = BreakerGate(monitor, self.breaker)

    async def fails(self, times: int = 1) -> HubgateError:
        for _ in range(times):
            with pytest.raises(HubgateError) as raised:
                await self.answer(embed("a"))
        return raised.value

    async def _send(self, call: Call) -> Result:
        permit = await self.limiter.acquire(retry=True)
        try:
            return await self.upstream(call)
        finally:
            self.limiter.release(permit)


async def gateways(
    board: LimitServer, fault: Callable[[Sequence[str]], Exception | None], *, seconds: float = 0.0
) -> list[Gateway]:
    opened = [Gateway(name, board, ScriptedUpstream(seconds=seconds, fault=fault)) for name in "abc"]
    for each in opened:
        await each.shared.start()
    return opened


def sent(opened: Sequence[Gateway], since: float = 0.0) -> int:
    return sum(at >= since for each in opened for at in each.upstream.times)


async def close(opened: Sequence[Gateway]) -> None:
    for each in opened:
        await each.shared.close()


def test_one_gateway_wakes_a_sleeping_server_and_the_others_wait() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(latency=0.01), lambda _: waking() if now() < 40 else None)
        calls = [asyncio.create_task(each.answer(embed("a"))) for each in opened]
        await asyncio.sleep(KNOWN)
        assert sent(opened) == 3  # none of them could know
        later = [asyncio.create_task(each.answer(embed("b"))) for each in opened]
        await asyncio.sleep(38)
        assert [len(each.upstream.times) > 1 for each in opened].count(True) == 1
        assert all(each.retrier.waking for each in opened)
        await asyncio.gather(*calls, *later)
        assert now() <= 40 + 5 + KNOWN
        await asyncio.sleep(KNOWN)
        assert not any(each.retrier.waking for each in opened)
        await close(opened)

    run(main())


def test_gateway_that_knows_that_another_one_wakes_the_server_sends_nothing() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: waking() if now() < 20 else None)
        first = asyncio.create_task(opened[0].answer(embed("a")))
        await asyncio.sleep(1)
        rest = [asyncio.create_task(each.answer(embed("b"))) for each in opened[1:]]
        await asyncio.sleep(18)
        assert sent(opened[1:]) == 0
        await asyncio.gather(first, *rest)
        assert sent(opened[1:]) == 2
        await close(opened)

    run(main())


def test_next_gateway_wakes_the_server_when_the_first_is_killed() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: waking() if now() < 60 else None)
        first = asyncio.create_task(opened[0].answer(embed("a")))
        await asyncio.sleep(KNOWN)
        rest = [asyncio.create_task(each.answer(embed("b"))) for each in opened[1:]]
        await asyncio.sleep(20)
        assert sent(opened[1:]) == 0  # the first renews its notice
        opened[0].cut = True
        first.cancel()
        await asyncio.sleep(17 + KNOWN)
        assert all(each.upstream.times for each in opened[1:])
        assert [len(each.upstream.times) > 1 for each in opened[1:]].count(True) == 1
        await asyncio.gather(*rest)
        await close(opened)

    run(main())


def test_calls_that_wait_for_another_gateway_end_at_their_deadline() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: waking())
        first = asyncio.create_task(opened[0].answer(embed("a")))
        await asyncio.sleep(1)
        with pytest.raises(HubgateError, match="waking up") as raised:
            await opened[1].answer(embed("b", deadline=now() + 10))
        assert raised.value.cause is Cause.WAKING
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await close(opened)

    run(main())


def test_breaker_that_opens_at_one_gateway_opens_at_all_and_one_call_is_the_test() -> None:
    broken = True

    async def main() -> None:
        nonlocal broken
        opened = await gateways(LimitServer(latency=0.01), lambda _: failed() if broken else None)
        await opened[0].fails(3)
        await asyncio.sleep(KNOWN)
        for each in opened[1:]:
            raised = await each.fails()
            assert raised.cause is Cause.UPSTREAM_FAILED
            assert "are paused" in raised.message
            assert 0 < (raised.retry_after or 0) <= 5
        assert sent(opened) == 3
        await asyncio.sleep(5)
        since = now()
        await asyncio.gather(*(each.fails(3) for each in opened))
        assert sent(opened, since) == 1
        await asyncio.sleep(9)  # the test has failed: the pause is twice as long
        await asyncio.gather(*(each.fails() for each in opened))
        assert sent(opened, since) == 1
        await asyncio.sleep(1.5)
        broken = False
        await opened[2].answer(embed("a"))
        await asyncio.sleep(KNOWN)
        for each in opened:
            assert each.breaker.cause is None
            await each.answer(embed("a"))
        await close(opened)

    run(main())


def test_failures_that_one_callers_input_may_cause_stay_local() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda texts: failed() if texts[0] == "bad" else None)
        for _ in range(3):
            with pytest.raises(HubgateError):
                await opened[0].answer(embed("bad", caller="one"))
        with pytest.raises(HubgateError, match="paused"):
            await opened[0].answer(embed("good", caller="one"))
        await asyncio.sleep(KNOWN)
        await asyncio.gather(*(each.answer(embed("good", caller="other")) for each in opened))
        await opened[1].answer(embed("good", caller="one"))
        await close(opened)

    run(main())


@pytest.mark.parametrize(("cause", "opens"), [(Cause.CONNECTION_REFUSED, False), (Cause.OUT_OF_CREDIT, True)])
def test_broken_network_of_one_gateway_does_not_stop_one_whose_calls_succeed(
    cause: Cause, opens: bool
) -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: None)
        opened[0].upstream.fault = lambda _: failed(cause)
        await opened[1].answer(embed("a"))
        await opened[0].fails(3)
        await asyncio.sleep(KNOWN)
        assert [each.breaker.cause is not None for each in opened] == [True, opens, True]
        await close(opened)

    run(main())


def test_pause_that_the_server_wants_holds_at_all_gateways_without_a_rate_limit() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: None)
        opened[0].limiter.throttle(30.0)
        opened[0].limiter.throttle(5.0)  # shorter: changes nothing
        await asyncio.sleep(KNOWN)
        await asyncio.gather(*(each.answer(embed("a")) for each in opened))
        assert sent(opened, 29.9) == 3
        await close(opened)

    run(main())


def test_refusal_of_a_call_pauses_all_gateways_until_each_has_tested_it() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: None)
        opened[0].limiter.refused(30.0, sent=now(), first=True)
        await asyncio.sleep(KNOWN)
        begun = now()
        assert all(each.limiter.refusal.until > begun for each in opened)
        await asyncio.gather(*(each.answer(embed("a")) for each in opened))
        await asyncio.gather(*(each.answer(embed("b")) for each in opened))
        assert now() - begun < 1.0
        await close(opened)

    run(main())


def test_gateways_that_cannot_reach_the_board_learn_alone() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: failed())
        await opened[0].fails(3)
        await asyncio.sleep(KNOWN)
        for each in opened:
            each.cut = True
        await asyncio.sleep(5)
        for each in opened:  # what they know has ended; each tests for itself
            assert "are paused" not in (await each.fails()).message
        assert sent(opened) == 6
        await close(opened)

    run(main())


def test_notice_that_is_known_when_an_endpoint_is_opened_holds_for_it() -> None:
    async def main() -> None:
        opened = await gateways(LimitServer(), lambda _: refused(402, Cause.OUT_OF_CREDIT))
        await opened[0].fails(3)
        await asyncio.sleep(KNOWN)
        notices = BreakerNotices(opened[1].shared.notice("open"), opened[1].shared.notice("test"))
        breaker = CircuitBreaker(notices=notices, clock=now)
        assert breaker.cause is Cause.OUT_OF_CREDIT
        await close(opened)

    run(main())


@given(
    claims=st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 1.0, 6.0]), st.sampled_from("abc"), st.floats(0.1, 20)),
        max_size=40,
    ),
    seed=st.integers(0, 1000),
)
def test_no_two_owners_hold_a_claim_at_once(claims: list[tuple[float, str, float]], seed: int) -> None:
    """Also if replies are lost: then nobody else gets it for as long."""

    async def main() -> None:
        server = LimitServer(Random(seed), latency=0.05)
        board = server.connection()
        holder, until = "", 0.0
        for pause, owner, seconds in claims:
            await asyncio.sleep(pause)
            asked = now()
            left = await board.post(PostedNotice(name="test", owner=owner, seconds=seconds), replace=False)
            if left:
                assert holder != owner
                assert left <= until - asked + 0.001
            else:
                assert holder == owner or now() >= until - 0.11
                holder, until = owner, now() + seconds

    run(main())
