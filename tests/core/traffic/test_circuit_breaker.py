"""The circuit breaker, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from scripted_upstream import ScriptedUpstream, embed, refused
from virtual_time import now, run

from hubgate.core.traffic.circuit_breaker import BreakerGate, BreakerMonitor, CircuitBreaker
from hubgate.domain.calls import Vectors
from hubgate.domain.errors import Cause, HubgateError, UpstreamUnreachable


def down() -> UpstreamUnreachable:
    return UpstreamUnreachable("Nothing listens.", cause=Cause.CONNECTION_REFUSED, remedy="Start it.")


class Line:
    """A server that may fail, and what stands before it."""

    def __init__(self, error: HubgateError | None) -> None:
        self.error = error
        self.server = ScriptedUpstream(seconds=0.0, fault=lambda texts: self.error)
        self.breaker = CircuitBreaker(failures=3, pause=5.0, longest_pause=15.0, clock=now)
        self.answer = BreakerGate(BreakerMonitor(self.server, self.breaker), self.breaker)

    async def fails(self, times: int = 1) -> HubgateError:
        for _ in range(times):
            with pytest.raises(HubgateError) as raised:
                await self.answer(embed("a"))
        return raised.value


def test_after_some_failures_in_a_row_the_server_is_asked_no_more() -> None:
    async def main() -> None:
        line = Line(down())
        await line.fails(3)
        told = await line.fails(10)
        assert len(line.server.times) == 3
        assert line.breaker.cause is Cause.CONNECTION_REFUSED
        assert told.cause is Cause.CONNECTION_REFUSED
        assert "are paused" in told.message
        assert told.remedy == "Start it."
        assert told.retryable
        assert told.retry_after == pytest.approx(5.0)

    run(main())


def test_when_it_has_rested_one_call_tries_and_a_success_closes_it() -> None:
    async def main() -> None:
        line = Line(down())
        await line.fails(3)
        await asyncio.sleep(5.0)
        line.error = None
        assert isinstance(await line.answer(embed("a")), Vectors)
        assert line.breaker.cause is None
        assert isinstance(await line.answer(embed("a")), Vectors)

    run(main())


def test_a_trial_that_fails_doubles_the_rest_up_to_the_longest() -> None:
    async def main() -> list[float]:
        line = Line(down())
        await line.fails(3)
        for _ in range(60):
            await asyncio.sleep(1.0)
            await line.fails()
        return line.server.times[3:]

    assert run(main()) == pytest.approx([5, 15, 30, 45, 60])


def test_requests_that_fail_together_do_not_each_double_the_rest() -> None:
    async def main() -> list[float]:
        line = Line(down())
        await asyncio.gather(*(line.answer(embed("a")) for _ in range(10)), return_exceptions=True)
        for _ in range(16):
            await asyncio.sleep(1.0)
            await line.fails()
        return line.server.times[10:]

    assert run(main()) == pytest.approx([5, 15])


def test_failures_that_a_caller_brings_about_do_not_count() -> None:
    async def main() -> None:
        line = Line(refused())
        await line.fails(20)
        assert len(line.server.times) == 20
        assert line.breaker.cause is None

    run(main())


def test_a_success_in_between_starts_the_count_anew() -> None:
    async def main() -> None:
        line = Line(down())
        await line.fails(2)
        line.error = None
        await line.answer(embed("a"))
        line.error = down()
        await line.fails(2)
        assert line.breaker.cause is None

    run(main())


def test_nobody_is_told_what_the_server_said_to_another() -> None:
    async def main() -> None:
        error = refused(500, Cause.UPSTREAM_FAILED, message="a secret text")
        line = Line(error)
        await line.fails(3)
        told = await line.fails()
        assert "secret" not in f"{told} {vars(told)}"

    run(main())


def test_one_caller_whose_requests_fail_shuts_nobody_else_out() -> None:
    async def main() -> None:
        line = Line(None)
        line.server.fault = lambda texts: refused(500, Cause.UPSTREAM_FAILED) if "poison" in texts else None
        for _ in range(5):
            with pytest.raises(HubgateError):
                await line.answer(embed("poison", caller="nasty"))
        assert len(line.server.times) == 3, "and is itself sent away"
        assert isinstance(await line.answer(embed("a", caller="good")), Vectors)
        assert line.breaker.cause is None

    run(main())


@pytest.mark.parametrize(
    ("error", "asked"), [(refused(500, Cause.UPSTREAM_FAILED), 4), (down(), 3)], ids=["fails", "is down"]
)
def test_it_opens_for_all_when_another_fails_too_or_no_caller_can_be_the_reason(
    error: HubgateError, asked: int
) -> None:
    async def main() -> None:
        line = Line(error)
        for caller in ("one", "one", "one", "two", "two", "three"):
            with pytest.raises(HubgateError):
                await line.answer(embed("a", caller=caller))
        assert len(line.server.times) == asked

    run(main())
