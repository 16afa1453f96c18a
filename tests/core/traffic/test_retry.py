"""Retries, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import ScriptedUpstream, embed, refused
from slow_server import max_per_minute
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.domain.calls import Encoding, Quota, Vectors
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused, UpstreamUnreachable

if TYPE_CHECKING:
    from hubgate.domain.calls import Call, Result
    from hubgate.domain.ports import Handler


def failing(*errors: Exception | None) -> ScriptedUpstream:
    """A server that fails with one error per request, and then answers."""
    left = list(errors)
    return ScriptedUpstream(seconds=0.0, fault=lambda texts: left.pop(0) if left else None)


def retried(server: Handler, limiter: RateLimiter | None = None, tries: int = 6) -> RetryStep:
    limiter = limiter or RateLimiter(None, clock=now)
    return RetryStep(server, Retrier(limiter, tries=tries, clock=now, chance=lambda: 1.0))


def lost() -> HubgateError:
    return UpstreamUnreachable("The connection broke.")


def overloaded(retry_after: float | None = None) -> HubgateError:
    return UpstreamRefused(
        "Overloaded.", status=429, cause=Cause.OVERLOADED, retryable=True, retry_after=retry_after
    )


def test_pauses_double_up_to_the_maximum() -> None:
    server = failing(*(lost() for _ in range(5)))
    assert isinstance(run(retried(server)(embed("a"))), Vectors)
    assert server.times == pytest.approx([0, 1, 3, 7, 12, 17])


def test_jitter_shortens_pauses_by_up_to_half() -> None:
    server = failing(lost(), lost())

    async def main() -> None:
        retries = Retrier(RateLimiter(None, clock=now), clock=now, chance=lambda: 0.0)
        await RetryStep(server, retries)(embed("a"))

    run(main())
    assert server.times == pytest.approx([0, 0.5, 1.5])


def test_raises_error_of_the_last_try() -> None:
    errors = [lost(), lost(), lost()]
    with pytest.raises(UpstreamUnreachable) as failure:
        run(retried(failing(*errors), tries=3)(embed("a")))
    assert failure.value is errors[2]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 410, 413, 422])
def test_does_not_retry_permanent_errors(status: int) -> None:
    server = failing(refused(status))
    with pytest.raises(UpstreamRefused):
        run(retried(server)(embed("a")))
    assert len(server.asked) == 1


def test_does_not_pause_beyond_the_deadline() -> None:
    server = failing(*(lost() for _ in range(5)))
    with pytest.raises(UpstreamUnreachable):
        run(retried(server)(embed("a", deadline=5.0)))
    assert server.times == pytest.approx([0, 1, 3])


class Crowd:
    """A server that refuses some callers always, and answers all others at once or as `full` allows."""

    def __init__(self, retry_after: float | None, *, seconds: float = 0.0, full: float = 0.0) -> None:
        self.retry_after, self.seconds, self.full = retry_after, seconds, full
        self.times: list[float] = []

    async def __call__(self, call: Call) -> Result:
        self.times.append(now())
        await asyncio.sleep(0.01)
        if call.texts[0].startswith("bad") or now() < self.full:
            raise overloaded(self.full - now() if self.full else self.retry_after)
        await asyncio.sleep(self.seconds)
        return Vectors(items=[b"[1]"], encoding=Encoding.JSON)


@pytest.mark.parametrize("bad", [1, 3])
@pytest.mark.parametrize("retry_after", [None, 1.0, 7.0, 60.0])
@pytest.mark.parametrize("per_minute", [None, 3000])
def test_calls_that_are_always_refused_hold_up_no_others(
    bad: int, retry_after: float | None, per_minute: int | None
) -> None:
    """Several queues share the limiter, as endpoints of one server do."""

    async def main() -> float:
        server, limiter = Crowd(retry_after), RateLimiter(per_minute, clock=now)
        alone = BatchLimits(max_texts=1)
        queues = [
            BatchQueue(retried(server, limiter), limiter=limiter, limits=alone, clock=now) for _ in range(2)
        ]

        async def refused_call(number: int) -> None:
            while now() < 100:  # one that gave up is followed by the next
                with contextlib.suppress(HubgateError):
                    await queues[number % 2](embed(f"bad {number}", deadline=now() + 45))
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(refused_call(number)) for number in range(bad)]
        longest = 0.0
        await asyncio.sleep(0.1)
        while now() < 100:
            begun = now()
            await asyncio.gather(*(queue(embed("good", deadline=now() + 45)) for queue in queues))
            longest = max(longest, now() - begun)
            await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return longest

    longest = run(main())
    assert longest < 1.0


def test_server_that_refuses_everybody_gets_few_tests_and_then_all() -> None:
    server = Crowd(60.0, seconds=1.0, full=60.0)

    async def main() -> None:
        limiter = RateLimiter(None, clock=now)
        step = retried(server, limiter)

        async def call(number: int) -> None:
            await asyncio.sleep(number / 10)
            permit = await limiter.acquire()
            await step(embed(f"{number}"))
            limiter.release(permit)

        await asyncio.gather(*(call(number) for number in range(100)))

    run(main())
    assert sum(at < 60 for at in server.times) <= 11
    assert sum(at < 65 for at in server.times) >= 100  # all but those that were told to wait


def test_refused_call_pauses_itself_when_it_is_refused_again() -> None:
    async def main() -> None:
        limiter = RateLimiter(None, clock=now)
        limiter.refused(30.0, sent=now(), first=False)
        await limiter.acquire()
        assert now() == 0

    run(main())


def test_retry_after_delays_all_callers() -> None:
    server = failing(overloaded(retry_after=20.0))

    async def main() -> float:
        limiter = RateLimiter(600, clock=now)
        await retried(server, limiter)(embed("a"))
        await limiter.acquire()
        return now()

    assert run(main()) == pytest.approx(20.1)
    assert server.times == pytest.approx([0, 20])


def test_does_not_wait_for_retry_after_beyond_the_deadline() -> None:
    server = failing(overloaded(retry_after=50.0))

    async def main() -> float:
        with pytest.raises(UpstreamRefused):
            await retried(server)(embed("a", deadline=45.0))
        return now()

    assert run(main()) == 0.0


def test_does_not_wait_for_retry_after_when_a_fallback_exists() -> None:
    server = failing(overloaded(retry_after=20.0))

    async def main() -> float:
        retries = Retrier(RateLimiter(None, clock=now), patient=False, clock=now, chance=lambda: 1.0)
        with pytest.raises(UpstreamRefused):
            await RetryStep(server, retries)(embed("a"))
        return now()

    assert run(main()) == 0.0


def test_retry_after_of_hours_ends_the_call_with_that_time() -> None:
    server = failing(overloaded(retry_after=86_400.0))
    with pytest.raises(UpstreamRefused) as failure:
        run(retried(server)(embed("a", deadline=600.0)))
    assert (server.times, failure.value.retry_after) == ([0.0], 86_400.0)


def test_overload_without_retry_after_delays_all_callers() -> None:
    async def main() -> float:
        limiter = RateLimiter(None, clock=now)
        first = asyncio.create_task(retried(failing(overloaded()), limiter)(embed("a")))
        await asyncio.sleep(0.5)
        await limiter.acquire()
        await first
        return now()

    assert run(main()) == pytest.approx(1.0)


def test_each_retry_takes_a_permit_but_no_second_slot() -> None:
    server = failing(lost(), lost())

    async def main() -> None:
        limiter = RateLimiter(6, max_concurrent_requests=1, clock=now)
        queue = BatchQueue(retried(server, limiter), limiter=limiter, clock=now)
        await asyncio.gather(queue(embed("a")), queue(embed("b")))
        await queue(embed("c"))

    run(main())
    assert server.times == pytest.approx([0, 10, 20, 30])
    assert server.asked == [["a", "b"]] * 3 + [["c"]]


def test_calls_that_waited_for_waking_respect_the_rate_limit() -> None:
    times: list[float] = []

    async def asleep_for_long(call: Call) -> Result:
        times.append(now())
        if len(times) == 1:
            raise UpstreamRefused("It wakes.", status=503, cause=Cause.WAKING, retryable=True)
        if call.context.hold is not None:
            await asyncio.sleep(300)
        return Vectors(items=[b"[1]"], encoding=Encoding.JSON)

    async def main() -> None:
        limiter = RateLimiter(2, clock=now)
        one_by_one = BatchLimits(max_texts=1)
        queue = BatchQueue(retried(asleep_for_long, limiter), limiter=limiter, limits=one_by_one, clock=now)
        await asyncio.gather(*(queue(embed(text)) for text in "abcdefgh"))

    run(main())
    assert max_per_minute(times) == 2


def test_quota_in_reply_slows_the_rate_limiter() -> None:
    times = []

    async def answer(call: Call) -> Result:
        return Vectors(items=[b"[1]"], encoding=Encoding.JSON, quota=Quota(remaining=4, seconds=60.0))

    async def main() -> None:
        limiter = RateLimiter(None, clock=now)
        await retried(answer, limiter)(embed("a"))
        for _ in range(4):
            limiter.release(await limiter.acquire())
            times.append(now())

    run(main())
    assert times == pytest.approx([0, 15, 30, 45])


def test_overload_is_retried_beyond_the_maximum_tries() -> None:
    server = failing(*(overloaded() for _ in range(5)))
    assert isinstance(run(retried(server, tries=2)(embed("a", deadline=60.0))), Vectors)
    assert len(server.asked) == 6


class _BadTexts:
    """A server that answers all texts but those that begin with `bad`, for which its proxy returns a 502."""

    def __init__(self) -> None:
        self.bad = 0

    async def __call__(self, call: Call) -> Result:
        kind, _, seconds = call.texts[0].partition(" ")
        if kind == "bad":
            self.bad += 1
            raise UpstreamRefused("Bad Gateway.", status=502, cause=Cause.WAKING, retryable=True)
        await asyncio.sleep(float(seconds or 0.1))
        return Vectors(items=[b"[1]"], encoding=Encoding.JSON)


def test_a_text_for_which_an_awake_server_seems_to_sleep_holds_up_no_others() -> None:
    async def main() -> float:
        server = _BadTexts()
        step = retried(server)
        await step(embed("good"))
        bad = asyncio.ensure_future(step(embed("bad", deadline=now() + 45)))
        longest = 0.0
        while not bad.done():
            began = now()
            await step(embed("good", deadline=now() + 45))
            longest = max(longest, now() - began)
            await asyncio.sleep(1)
        with pytest.raises(UpstreamRefused):
            bad.result()
        assert server.bad > 5, "it is retried until its deadline"
        return longest

    assert run(main()) == pytest.approx(0.1)


def test_an_answer_ends_the_wait_for_a_server_that_only_seemed_to_sleep() -> None:
    async def main() -> float:
        step = retried(_BadTexts())
        slow = asyncio.ensure_future(step(embed("slow 5.0")))
        await asyncio.sleep(0)
        bad = asyncio.ensure_future(step(embed("bad", deadline=45.0)))
        await asyncio.sleep(1)
        await step(embed("good", deadline=45.0))
        served = now()
        await slow
        with pytest.raises(UpstreamRefused):
            await bad
        return served

    assert run(main()) == pytest.approx(5.1)


def test_a_server_that_goes_to_sleep_later_is_woken_by_one_call() -> None:
    async def main() -> int:
        server = ScriptedUpstream(
            seconds=0.0,
            fault=lambda texts: (
                None
                if now() < 1 or now() > 960
                else UpstreamRefused("Asleep.", status=503, cause=Cause.WAKING, retryable=True)
            ),
        )
        step = retried(server)
        await step(embed("a"))
        await asyncio.sleep(900)
        asked = len(server.asked)
        calls = [step(embed(f"{number}", deadline=now() + 100)) for number in range(20)]
        await asyncio.gather(*calls)
        return len(server.asked) - asked

    assert run(main()) < 20 + 20 + 20
