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
    """A server that may fail, behind a circuit breaker."""

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


def test_opens_after_consecutive_failures() -> None:
    async def main() -> None:
        line = Line(down())
        await line.fails(3)
        raised = await line.fails(10)
        assert len(line.server.times) == 3
        assert line.breaker.cause is Cause.CONNECTION_REFUSED
        assert raised.cause is Cause.CONNECTION_REFUSED
        assert "are paused" in raised.message
        assert raised.remedy == "Start it."
        assert raised.retryable
        assert raised.retry_after == pytest.approx(5.0)

    run(main())


def test_successful_trial_call_closes_the_breaker() -> None:
    async def main() -> None:
        line = Line(down())
        await line.fails(3)
        await asyncio.sleep(5.0)
        line.error = None
        assert isinstance(await line.answer(embed("a")), Vectors)
        assert line.breaker.cause is None
        assert isinstance(await line.answer(embed("a")), Vectors)

    run(main())


def test_failed_trial_doubles_the_pause_up_to_the_maximum() -> None:
    async def main() -> list[float]:
        line = Line(down())
        await line.fails(3)
        for _ in range(60):
            await asyncio.sleep(1.0)
            await line.fails()
        return line.server.times[3:]

    assert run(main()) == pytest.approx([5, 15, 30, 45, 60])


def test_concurrent_failures_do_not_each_double_the_pause() -> None:
    async def main() -> list[float]:
        line = Line(down())
        await asyncio.gather(*(line.answer(embed("a")) for _ in range(10)), return_exceptions=True)
        for _ in range(16):
            await asyncio.sleep(1.0)
            await line.fails()
        return line.server.times[10:]

    assert run(main()) == pytest.approx([5, 15])


def test_client_errors_do_not_open_the_breaker() -> None:
    async def main() -> None:
        line = Line(refused())
        await line.fails(20)
        assert len(line.server.times) == 20
        assert line.breaker.cause is None

    run(main())


def test_success_resets_failure_count() -> None:
    async def main() -> None:
        line = Line(down())
        await line.fails(2)
        line.error = None
        await line.answer(embed("a"))
        line.error = down()
        await line.fails(2)
        assert line.breaker.cause is None

    run(main())


def test_breaker_error_does_not_quote_server_messages_for_other_callers() -> None:
    async def main() -> None:
        error = refused(500, Cause.UPSTREAM_FAILED, message="a secret text")
        line = Line(error)
        await line.fails(3)
        raised = await line.fails()
        assert "secret" not in f"{raised} {vars(raised)}"

    run(main())


def test_failures_of_one_caller_do_not_block_others() -> None:
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
def test_opens_for_all_when_two_callers_fail_or_server_is_unreachable(
    error: HubgateError, asked: int
) -> None:
    async def main() -> None:
        line = Line(error)
        for caller in ("one", "one", "one", "two", "two", "three"):
            with pytest.raises(HubgateError):
                await line.answer(embed("a", caller=caller))
        assert len(line.server.times) == asked

    run(main())
