"""The rate limiter, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from slow_server import SlowServer, max_per_minute
from virtual_time import now, run

from hubgate.core.traffic.permits import LimitNumbers, Permit
from hubgate.core.traffic.rate_limiter import RateLimiter


async def granted(limiter: RateLimiter, count: int, *, takes: float = 0.0) -> list[float]:
    """Times at which `count` sequential permits are granted; each request lasts `takes` seconds."""
    times = []
    loop = asyncio.get_running_loop()
    for _ in range(count):
        permit = await limiter.acquire()
        limiter.fill(permit, texts=1, tokens=1)
        times.append(now())
        loop.call_later(takes, limiter.release, permit)
    return times


def test_limit_of_3000_per_minute_admits_3000_in_the_first_minute() -> None:
    times = run(granted(RateLimiter(3000, clock=now), 3001, takes=0.04))
    assert sum(at < 60.0 for at in times) == 3000
    assert times[3000] == pytest.approx(60.05 + 0.04)


def test_permits_are_spaced_evenly() -> None:
    times = run(granted(RateLimiter(60, clock=now), 5))
    assert times == pytest.approx([0, 1, 2, 3, 4])


def test_allows_burst_after_idle() -> None:
    times = run(granted(RateLimiter(60, burst=3, clock=now), 5))
    assert times == pytest.approx([0, 0, 0, 1, 2])


def test_idle_time_accumulates_no_more_than_the_burst() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(60, burst=2, clock=now)
        await granted(limiter, 1)
        await asyncio.sleep(30)
        return await granted(limiter, 3)

    assert run(main()) == pytest.approx([30, 30, 31])


def test_late_timers_do_not_lower_the_rate() -> None:
    """Each timer fires up to 5 ms late; the hundredth permit is late once, not a hundred times."""
    late = 0.0

    async def main() -> list[float]:
        nonlocal late
        chance = random.Random(1)
        limiter = RateLimiter(3000, clock=lambda: now() + late)
        times = []
        for _ in range(101):
            late = chance.random() / 200
            limiter.release(await limiter.acquire())
            times.append(now() + late)
        return times

    assert run(main())[100] <= 2.0 + 0.01


def test_spaces_permits_anew_after_a_standstill() -> None:
    stood = 0.0

    async def main() -> list[float]:
        nonlocal stood
        clock = lambda: now() + stood  # noqa: E731
        limiter = RateLimiter(600, clock=clock)
        await granted(limiter, 1)
        waiting = asyncio.create_task(granted(limiter, 3))
        await asyncio.sleep(0)
        stood = 5.0
        await waiting
        times = await granted(limiter, 1)
        return [time + stood for time in times]

    assert run(main())[0] >= 5.0 + 0.3 - 0.02


def test_unlimited_rate_never_waits() -> None:
    async def main() -> tuple[list[float], float]:
        limiter = RateLimiter(None, clock=now)
        return await granted(limiter, 1000, takes=1.0), limiter.estimate_wait(10_000)

    times, estimate = run(main())
    assert times == [0.0] * 1000
    assert estimate == 0.0


@settings(max_examples=examples(20))
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([1, 2, 7, 60, 300]),
    burst=st.sampled_from([1, 3, 60]),
    slowest=st.sampled_from([0.0, 0.02, 0.9, 1.0, 20.0]),
    stops=st.lists(st.tuples(st.floats(2, 100), st.floats(0.1, 55)), max_size=3),
)
def test_server_never_receives_more_than_the_limit_in_60_seconds(
    seed: int, limit: int, burst: int, slowest: float, stops: list[tuple[float, float]]
) -> None:
    """The server reads and answers slowly, and stalls now and then.

    Some callers are cancelled, some connect slowly; some permits are cancelled, and some are used for two requests.
    """
    chance = random.Random(seed)
    halts, end = [], 0.0
    for pause, length in stops:
        halts.append((end + pause, end + pause + length))
        end += pause + length
    server = SlowServer(chance, slowest, halts)

    async def ask(limiter: RateLimiter) -> None:
        permit = await limiter.acquire(retry=chance.random() < 0.1)
        if chance.random() < 0.1:
            limiter.cancel(permit)
            return
        await asyncio.sleep(chance.choice([0.0, 0.0, 0.1, 3.0]))  # connecting
        try:
            async with asyncio.timeout(chance.choice([None, None, None, 0.01, 2.0])):
                await server.answer(permit)
                if chance.random() < 0.1:
                    await server.answer(permit)
        except TimeoutError:
            pass
        finally:
            limiter.release(permit)

    async def main() -> None:
        limiter = RateLimiter(limit, burst=burst, clock=now)
        asks = []
        for _ in range(min(3 * limit + 5, 700)):
            asks.append(asyncio.create_task(ask(limiter)))
            await asyncio.sleep(chance.choice([0.0, 0.0, 30 / limit, 90 / limit]) * chance.random())
        for task in chance.sample(asks, len(asks) // 10):
            task.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        await asyncio.sleep(120)  # until all is read

    run(main())
    assert max_per_minute(server.arrivals) <= limit


@settings(max_examples=examples(20))
@given(
    seed=st.integers(0, 2**32),
    limits=st.lists(st.tuples(st.sampled_from([1, 7, 60, 300]), st.sampled_from([1, 3, 60])), min_size=2),
    every=st.sampled_from([0.5, 2.0, 30.0, 70.0]),
)
def test_changed_limit_admits_no_more_than_the_largest_in_60_seconds(
    seed: int, limits: list[tuple[int, int]], every: float
) -> None:
    chance = random.Random(seed)
    server = SlowServer(chance, chance.choice([0.0, 0.9, 20.0]))

    async def ask(limiter: RateLimiter) -> None:
        while True:
            permit = await limiter.acquire()
            try:
                await server.answer(permit)
            finally:
                limiter.release(permit)

    async def main() -> None:
        rate, burst = limits[0]
        limiter = RateLimiter(rate, burst=burst, clock=now)
        asks = [asyncio.create_task(ask(limiter)) for _ in range(30)]
        for rate, burst in limits:
            limiter.set_numbers(LimitNumbers(requests_per_minute=rate, burst=burst))
            await asyncio.sleep(every)
        await asyncio.sleep(130)
        for task in asks:
            task.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        await asyncio.sleep(5)
        last = sum(at >= now() - 135 for at in server.arrivals)
        assert last >= limits[-1][0] / 3  # the new limit is used

    run(main())
    assert max_per_minute(server.arrivals) <= max(rate for rate, _ in limits)


def test_lowered_limit_waits_for_all_earlier_requests_and_not_only_the_latest() -> None:
    """The first reply takes 30 s, the second none: entries do not expire in the order of their grants."""

    async def main() -> float:
        limiter = RateLimiter(2, burst=2, clock=now)
        slow = await sent(limiter)
        (await sent(limiter)).reply_started()
        limiter.set_numbers(LimitNumbers(requests_per_minute=1))
        asyncio.get_running_loop().call_later(30, slow.reply_started)
        await limiter.acquire()
        return now()

    assert run(main()) == pytest.approx(90.05)


def test_changed_numbers_apply_to_what_is_in_flight_and_to_tokens() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(
            6000, tokens_per_minute=1000, max_concurrent_requests=4, max_concurrent_texts=4, clock=now
        )
        held = []
        for _ in range(3):
            held.append(await sent(limiter))
            limiter.fill(held[-1], texts=1, tokens=300)
            held[-1].reply_started()
        limiter.set_numbers(
            LimitNumbers(requests_per_minute=6000, max_concurrent_requests=2, max_concurrent_texts=4)
        )
        assert limiter.counts_tokens is False
        loop, times = asyncio.get_running_loop(), []
        for seconds, permit in enumerate(held, start=1):
            loop.call_later(seconds, limiter.release, permit)
        permit = await limiter.acquire()
        times.append(now())
        limiter.fill(permit, texts=1, tokens=100)
        permit.try_send()
        permit.reply_started()
        limiter.release(permit)
        limiter.set_numbers(LimitNumbers(requests_per_minute=6000, tokens_per_minute=500))
        await limiter.acquire(400)
        times.append(now())
        return times

    assert run(main()) == pytest.approx([2.0, 60.07], abs=0.05)


async def sent(limiter: RateLimiter) -> Permit:
    """The permit of a request that was sent."""
    permit = await limiter.acquire()
    assert permit.try_send()
    return permit


def test_request_counts_until_one_minute_after_its_reply_starts() -> None:
    async def main() -> float:
        limiter = RateLimiter(1, clock=now)
        permit = await sent(limiter)
        await asyncio.sleep(30)
        permit.reply_started()
        await asyncio.sleep(10)
        limiter.release(permit)
        await limiter.acquire()
        return now()

    assert run(main()) == pytest.approx(90.05)


def test_reply_confirms_that_the_server_has_read_earlier_requests() -> None:
    """A long reply therefore costs two margins, not its duration."""

    async def main() -> float:
        limiter = RateLimiter(2, burst=2, clock=now)
        await sent(limiter)
        quick = await sent(limiter)
        await asyncio.sleep(1)
        quick.reply_started()
        await limiter.acquire()  # it goes no sooner than the first
        return now()

    assert run(main()) == pytest.approx(1 + 1 + 60.05)


def test_reply_confirms_no_request_that_was_sent_just_before() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(3, burst=3, clock=now)
        await sent(limiter)
        await asyncio.sleep(0.5)
        await sent(limiter)
        await asyncio.sleep(0.5)
        (await sent(limiter)).reply_started()
        times = []
        for _ in range(2):
            (await sent(limiter)).reply_started()
            times.append(now())
        return times

    assert run(main()) == pytest.approx([1 + 1 + 60.05, 0.5 + 60 + 60.05])


def test_limit_is_exact_after_a_pause_in_which_all_requests_expired() -> None:
    async def main() -> tuple[float, list[float], int]:
        limiter = RateLimiter(100, burst=100, clock=now)
        for _ in range(100):
            limiter.release(await sent(limiter))
        await asyncio.sleep(200)
        wait = limiter.estimate_wait(100)
        return wait, await granted(limiter, 101), limiter.used()

    wait, times, used = run(main())
    assert (wait, used) == (0, 1)
    assert times == pytest.approx([200] * 100 + [260.05])


def test_abandoned_request_counts_until_the_server_must_have_read_it() -> None:
    async def main() -> float:
        limiter = RateLimiter(1, clock=now)
        limiter.release(await sent(limiter))
        await limiter.acquire()
        return now()

    assert run(main()) == pytest.approx(60 + 60.05)


def test_wait_estimate_assumes_an_immediate_reply() -> None:
    async def main() -> float:
        limiter = RateLimiter(1, clock=now)
        await sent(limiter)
        await asyncio.sleep(5)
        return limiter.estimate_wait()

    assert run(main()) == pytest.approx(60.05)


def test_late_request_exchanges_its_permit() -> None:
    async def main() -> tuple[bool, float, int]:
        limiter = RateLimiter(1, clock=now)
        permit = await limiter.acquire()
        await asyncio.sleep(5)
        left = permit.try_send()
        await permit.renew()
        assert permit.try_send()
        return left, now(), limiter.used()

    assert run(main()) == (False, 5.0, 1)


def test_second_request_under_a_permit_takes_another_permit() -> None:
    async def main() -> tuple[float, int]:
        limiter = RateLimiter(60, clock=now)
        permit = await sent(limiter)
        assert not permit.try_send()
        await permit.renew()
        assert permit.try_send()
        return now(), limiter.used()

    assert run(main()) == (1.0, 2)


def test_cancelled_renewal_takes_no_permit() -> None:
    async def main() -> tuple[float, int]:
        limiter = RateLimiter(60, max_concurrent_requests=1, clock=now)
        permit = await limiter.acquire()
        await sent_by_another(limiter)
        await asyncio.sleep(0.9)
        assert not permit.try_send()
        renewing = asyncio.create_task(permit.renew())
        await asyncio.sleep(0)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        limiter.release(permit)
        await limiter.acquire()
        return now(), limiter.used()

    async def sent_by_another(limiter: RateLimiter) -> None:
        await asyncio.sleep(0.2)
        assert (await limiter.acquire(retry=True)).try_send()

    assert run(main()) == pytest.approx((2.0, 2))


def test_cancelled_permit_is_available_immediately() -> None:
    async def main() -> float:
        limiter = RateLimiter(1, clock=now)
        limiter.cancel(await limiter.acquire())
        await limiter.acquire()
        return now()

    assert run(main()) == 0.0


def test_cancelling_an_older_permit_keeps_the_spacing() -> None:
    async def main() -> float:
        limiter = RateLimiter(60, clock=now)
        first = await limiter.acquire()
        await limiter.acquire()
        limiter.cancel(first)
        await limiter.acquire()
        return now()

    assert run(main()) == pytest.approx(2.0)


def test_grants_permits_in_order_of_request() -> None:
    async def main() -> list[int]:
        limiter = RateLimiter(60, clock=now)
        order = []

        async def ask(number: int) -> None:
            limiter.release(await limiter.acquire())
            order.append(number)

        await asyncio.gather(*(ask(number) for number in range(9)))
        return order

    assert run(main()) == list(range(9))


def test_cancelled_waiter_takes_no_permit() -> None:
    async def main() -> float:
        limiter = RateLimiter(60, clock=now)
        await limiter.acquire()
        leaver, stayer = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await asyncio.sleep(0.5)
        leaver.cancel()
        await stayer
        return now()

    assert run(main()) == pytest.approx(1.0)


def test_waiter_cancelled_as_its_permit_is_granted_returns_it() -> None:
    async def main() -> float:
        limiter = RateLimiter(None, max_concurrent_requests=1, clock=now)
        held = await limiter.acquire()
        leaver, stayer = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        limiter.release(held)
        leaver.cancel()
        await stayer
        return now()

    assert run(main()) == 0.0


def test_throttle_blocks_all_permits_for_its_duration() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(60, clock=now)
        waiting = asyncio.create_task(granted(limiter, 3))
        await asyncio.sleep(0.5)
        limiter.throttle(20)
        limiter.throttle(1)
        return await waiting

    assert run(main()) == pytest.approx([0, 20.5, 21.5])


def test_spreads_remaining_quota_over_the_window() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(6000, clock=now)
        limiter.throttle(10, remaining=5)
        return await granted(limiter, 8)

    assert run(main()) == pytest.approx([0, 2, 4, 6, 8, 10, 10.01, 10.02])


def test_limits_concurrent_requests() -> None:
    times = run(granted(RateLimiter(None, max_concurrent_requests=2, clock=now), 5, takes=3.0))
    assert times == pytest.approx([0, 0, 3, 3, 6])


def test_limits_concurrent_texts() -> None:
    async def main() -> tuple[list[int], float]:
        limiter = RateLimiter(None, max_concurrent_texts=10, clock=now)
        first = await limiter.acquire()
        rooms = [first.texts]
        limiter.fill(first, texts=7, tokens=0)
        second = await limiter.acquire()
        rooms.append(second.texts)
        limiter.fill(second, texts=3, tokens=0)
        asyncio.get_running_loop().call_later(4.0, limiter.release, first)
        rooms.append((await limiter.acquire()).texts)
        return rooms, now()

    assert run(main()) == ([10, 3, 7], 4.0)


def test_retry_keeps_its_slot_and_goes_before_new_requests() -> None:
    """The new request waits for the slot that the retry holds; if it went first, both would wait forever."""

    async def main() -> list[str]:
        limiter = RateLimiter(60, max_concurrent_requests=1, clock=now)
        order = []
        held = await limiter.acquire()

        async def newcomer() -> None:
            await limiter.acquire()
            order.append("newcomer")

        waiting = asyncio.create_task(newcomer())
        await asyncio.sleep(0)
        limiter.release(await limiter.acquire(retry=True))
        order.append("further try")
        limiter.release(held)
        await waiting
        return order

    assert run(main()) == ["further try", "newcomer"]


def test_gateways_divide_the_tokens_per_minute() -> None:
    async def send(limiter: RateLimiter, sent: list[float]) -> None:
        while True:
            permit = await limiter.acquire(100)
            limiter.fill(permit, texts=1, tokens=100)
            assert permit.try_send()
            sent.append(now())
            permit.reply_started()
            limiter.release(permit)
            await asyncio.sleep(1)

    async def main() -> list[float]:
        gateways = 3
        sent: list[float] = []
        limiters = [
            RateLimiter(None, tokens_per_minute=900, gateways=lambda: gateways, clock=now) for _ in range(3)
        ]
        sending = [asyncio.create_task(send(limiter, sent)) for limiter in limiters]
        await asyncio.sleep(200)
        assert max_per_minute(sent) == 9
        for task in sending[1:]:
            task.cancel()
        await asyncio.sleep(100)
        gateways = 1
        sent.clear()
        await asyncio.sleep(100)
        sending[0].cancel()
        return sent

    assert max_per_minute(run(main())) == 9


def test_limits_tokens_per_minute() -> None:
    async def main() -> list[tuple[float, int]]:
        limiter = RateLimiter(None, tokens_per_minute=1000, clock=now)
        seen = []
        for tokens in (600, 300, 200, 5000):
            permit = await limiter.acquire(tokens)
            seen.append((round(now(), 2), permit.tokens))
            limiter.fill(permit, texts=1, tokens=min(tokens, 1000))
            limiter.release(permit)
        return seen

    assert run(main()) == [(0.0, 1000), (0.0, 400), (60.05, 1000), (120.1, 1000)]


def test_tokens_count_as_long_as_their_request() -> None:
    async def main() -> tuple[float, int]:
        limiter = RateLimiter(None, tokens_per_minute=100, clock=now)
        slow = await limiter.acquire(60)
        limiter.fill(slow, texts=1, tokens=60)
        quick = await limiter.acquire(40)
        limiter.fill(quick, texts=1, tokens=40)
        limiter.release(quick)
        await asyncio.sleep(0.9)
        limiter.release(slow)
        permit = await limiter.acquire(100)
        return now(), permit.tokens

    at, tokens = run(main())
    assert at == pytest.approx(60.95)
    assert tokens == 100


def test_wait_estimate_equals_actual_wait() -> None:
    async def main() -> tuple[list[float], list[float]]:
        limiter = RateLimiter(60, burst=20, clock=now)
        await granted(limiter, 10)
        await asyncio.sleep(0.001)
        guesses = [limiter.estimate_wait(count) for count in range(1, 71)]
        start = now()
        return guesses, [at - start for at in await granted(limiter, 70)]

    guesses, times = run(main())
    assert guesses == pytest.approx(times)


def test_wait_estimate_includes_temporary_quota() -> None:
    async def main(burst: int) -> tuple[list[float], list[float]]:
        limiter = RateLimiter(60, burst=burst, clock=now)
        limiter.throttle(20, remaining=4)
        guesses = [limiter.estimate_wait(count) for count in range(1, 11)]
        return guesses, await granted(limiter, 10)

    for burst in (1, 3):
        guesses, times = run(main(burst))
        assert guesses == pytest.approx(times, abs=0.01)


def test_wait_estimate_includes_waiters_and_throttling() -> None:
    async def main() -> tuple[float, float]:
        limiter = RateLimiter(60, clock=now)
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        behind = limiter.estimate_wait()
        limiter.throttle(30)
        shut = limiter.estimate_wait()
        await asyncio.gather(*waiting)
        return behind, shut

    assert run(main()) == pytest.approx((3.0, 32.0))
