"""Requests that are refused with 429 and that several calls share, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import embed, vector
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchQueue
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.domain.calls import Call, Result


class Engine:
    """Refuses requests with certain texts, or all for a time, or those beyond a rate; answers others at once."""

    def __init__(self, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        self.bad: Callable[[str], bool] = lambda text: text.startswith("bad")
        self.full_until = 0.0
        self.per_second: int | None = None
        self.asked: list[list[str]] = []
        self.times: list[float] = []
        self.answered: dict[float, int] = {}
        """How many texts, and when."""

    async def __call__(self, call: Call) -> Result:
        self.asked.append(list(call.texts))
        self.times.append(now())
        if any(map(self.bad, call.texts)) or now() < self.full_until or self._is_over():
            raise UpstreamRefused(
                "Slow down.", status=429, cause=Cause.OVERLOADED, retryable=True, retry_after=self.retry_after
            )
        self.answered[now()] = len(call.texts)
        await asyncio.sleep(0.005)
        return Vectors(items=[vector(text) for text in call.texts], encoding=Encoding.F32)

    def _is_over(self) -> bool:
        if self.per_second is None:
            return False
        return sum(int(at) == int(now()) for at in self.answered) >= self.per_second

    def queue(self, *, places: int | None = None, patient: bool = True) -> BatchQueue:
        limiter = RateLimiter(None, max_concurrent_requests=places, clock=now)
        retrier = Retrier(limiter, patient=patient, clock=now, chance=lambda: 1.0)
        step = RetryStep(self, retrier)
        return BatchQueue(step, limiter=limiter, patient=patient, clock=now, chance=lambda: 1.0)


async def seconds(queue: BatchQueue, text: str, deadline: float = 45.0) -> float:
    """How long a call takes, also one that fails."""
    begun = now()
    with contextlib.suppress(HubgateError):
        await queue(embed(text, caller=f"key of {text}", deadline=begun + deadline))
    return now() - begun


@pytest.mark.parametrize("bad", [{13}, {0}, {31}, {0, 1, 2}, {3, 4, 29}, {8, 15, 16}, {0, 8, 16}, {29, 30}])
@pytest.mark.parametrize("retry_after", [None, 7.0, 40.0])
@pytest.mark.parametrize("places", [None, 1])
def test_text_that_is_always_refused_holds_up_only_its_own_call(
    bad: set[int], retry_after: float | None, places: int | None
) -> None:
    async def main() -> None:
        engine = Engine(retry_after)
        queue = engine.queue(places=places)
        texts = [f"bad {number}" if number in bad else f"{number}" for number in range(32)]
        waits = await asyncio.gather(*(seconds(queue, text) for text in texts))
        for number, wait in enumerate(waits):
            assert (wait > 4.0) if number in bad else (wait < 1.0)
        assert len(engine.asked[0]) == 32
        assert (queue.queued_calls, queue.in_flight) == (0, 0)

    run(main())


@pytest.mark.parametrize("bad", [1, 3])
@pytest.mark.parametrize("retry_after", [None, 1.0, 7.0, 60.0])
def test_callers_that_share_requests_with_refused_ones_for_long_wait_less_than_a_second(
    bad: int, retry_after: float | None
) -> None:
    async def main() -> float:
        queue, longest = Engine(retry_after).queue(), 0.0

        async def refused(number: int) -> None:
            while now() < 100:
                await seconds(queue, f"bad {number}")
                await asyncio.sleep(0.2)  # so that it meets the others again

        async def good(number: int) -> None:
            nonlocal longest
            while now() < 100:
                longest = max(longest, await seconds(queue, f"{number}"))
                await asyncio.sleep(0.2)

        tasks = [asyncio.create_task(refused(number)) for number in range(bad)]
        await asyncio.gather(*(good(number) for number in range(16)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await queue.close()
        return longest

    assert run(main()) < (1.0 if bad == 1 else 2.0)  # three may take turns as tests of the pause


def test_server_that_refuses_everybody_gets_the_request_whole_in_the_end() -> None:
    engine = Engine(retry_after=10.0)
    engine.full_until = 15.0

    async def main() -> None:
        queue = engine.queue()
        waits = await asyncio.gather(*(seconds(queue, f"{number}") for number in range(32)))
        assert max(waits) < 25.0

    run(main())
    assert len(engine.asked[-1]) == 32
    assert len(engine.asked) <= 8


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_server_that_limits_the_rate_gets_full_requests(retry_after: float | None) -> None:
    """64 callers that always wait, and one request a second. Without its word, more searches are in vain."""
    engine = Engine(retry_after)
    engine.per_second = 1

    async def main() -> None:
        queue = engine.queue()

        async def caller(number: int) -> None:
            while now() < 300:
                await seconds(queue, f"{number}")

        await asyncio.gather(*(caller(number) for number in range(64)))

    run(main())
    assert sum(engine.answered.values()) > (0.5 if retry_after is None else 0.75) * 32 * 300


def test_calls_with_a_fallback_fail_together() -> None:
    """They need not wait for a search."""

    async def main() -> None:
        engine = Engine(7.0)
        queue = engine.queue(patient=False)
        assert await asyncio.gather(*(seconds(queue, text) for text in ("bad", "good"))) == [0.0, 0.0]
        assert engine.asked == [["bad", "good"]]

    run(main())


def test_call_whose_next_try_would_be_too_late_fails_when_it_is_found() -> None:
    async def main() -> None:
        engine = Engine(50.0)
        queue = engine.queue()
        waits = await asyncio.gather(*(seconds(queue, text) for text in ("bad", "good", "other")))
        assert max(waits) < 1.0

    run(main())


def test_search_ends_when_all_callers_leave() -> None:
    async def main() -> None:
        engine = Engine(7.0)
        queue = engine.queue(places=1)
        calls = [asyncio.create_task(seconds(queue, f"bad {number}")) for number in range(4)]
        await asyncio.sleep(2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (queue.queued_calls, queue.in_flight) == (0, 0)
        assert await seconds(queue, "good") < 7.0
        await queue.close()

    run(main())
