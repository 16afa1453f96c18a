"""Laws of the adaptive concurrency limit, with simulated servers in virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scripted_upstream import embed, vector
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchQueue
from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.domain.calls import Call, Context, Encoding, Result, Vectors
from hubgate.domain.errors import Cause, UpstreamRefused


@dataclass
class Server:
    """Answers a request in `alone` seconds, if there is no other; each text takes `per_text` times as long.

    With `workers`, it works on that number of requests at once, and others wait. With `knee` requests in it, all take
    twice as long. It refuses requests beyond `most`. Latencies scatter around these by `noise`, the deviation of their logarithm.
    """

    alone: float = 0.1
    workers: int = 0
    per_text: float = 0.0
    knee: float = math.inf
    most: int = 1 << 30
    noise: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    busy: int = 0
    free_at: list[float] = field(default_factory=list)

    async def answer(self, texts: int = 0) -> bool:
        """Whether it accepts the request."""
        if self.busy >= self.most:
            await asyncio.sleep(self.alone / 100)
            return False
        self.busy += 1
        seconds = self.alone * (1 + self.busy / self.knee) * math.exp(self.chance.gauss(0, self.noise))
        seconds *= 1 + texts * self.per_text
        if self.workers:
            free_at = self.free_at = sorted(self.free_at or [0.0] * self.workers)
            free_at[0] = max(free_at[0], now()) + seconds
            seconds = free_at[0] - now()
        await asyncio.sleep(seconds)
        self.busy -= 1
        return True


class Clients:
    """Each sends one request after the other, as the limit allows; first come, first served."""

    def __init__(self, server: Server, limit: ConcurrencyLimit, number: int) -> None:
        self.server, self.limit, self.number = server, limit, number
        self.limit.on_raise = self.admit
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.answered: Counter[int] = Counter()
        self.refused = 0
        self.limits: list[int] = []

    def admit(self) -> None:
        while self.waiting and self.limit.in_flight < self.limit.limit:
            self.limit.in_flight += 1
            self.waiting.popleft().set_result(None)

    async def client(self, name: int, until: float) -> None:
        while now() < until:
            place = asyncio.get_running_loop().create_future()
            self.waiting.append(place)
            self.admit()
            await place
            begun = self.limit.begin()
            if await self.server.answer():
                self.limit.answered(begun, 1)
                self.answered[name] += 1
            else:
                self.limit.refused(begun)
                self.refused += 1
            self.limits.append(self.limit.limit)
            self.limit.in_flight -= 1
            self.admit()

    async def run(self, seconds: float) -> float:
        """Their throughput."""
        before, until = self.answered.total(), now() + seconds
        await asyncio.gather(*(self.client(name, until) for name in range(self.number)))
        return (self.answered.total() - before) / seconds


def clients(server: Server, number: int, start: int = 8, bound: int = 1000) -> Clients:
    return Clients(server, ConcurrencyLimit(start, bound=bound, clock=now), number)


async def without_limit(server: Server, number: int, seconds: float) -> float:
    return await Clients(server, ConcurrencyLimit(number, bound=number, clock=now), number).run(seconds)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alone", [0.01, 1.0])
def test_server_with_constant_latency_gets_all_requests(alone: float, noise: float) -> None:
    async def main() -> None:
        crowd = clients(Server(alone=alone, noise=noise), 50)
        await crowd.run(100 * alone)
        assert await crowd.run(20 * alone) >= 0.95 * await without_limit(
            Server(alone=alone, noise=noise), 50, 20 * alone
        )

    run(main())


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_server_that_works_on_one_request_at_a_time_gets_few(noise: float) -> None:
    async def main() -> None:
        crowd = clients(Server(alone=0.02, workers=1, noise=noise), 100)
        throughput = await crowd.run(60)
        assert crowd.limit.limit <= 4
        direct = await without_limit(Server(alone=0.02, workers=1, noise=noise), 100, 60)
        assert throughput >= 0.95 * direct

    run(main())


@pytest.mark.parametrize("knee", [10, 50, 200])
def test_server_that_slows_down_with_load_keeps_its_throughput(knee: int) -> None:
    async def main() -> None:
        crowd = clients(Server(alone=0.05, knee=knee), 256)
        await crowd.run(3)
        assert await crowd.run(3) >= 0.9 * await without_limit(Server(alone=0.05, knee=knee), 256, 3)

    run(main())


@pytest.mark.parametrize("most", [4, 30])
def test_server_that_refuses_requests_gets_nearly_as_many_as_it_accepts(most: int) -> None:
    async def main() -> None:
        crowd = clients(Server(most=most), 2 * most)
        await crowd.run(10)
        crowd.limits.clear()
        refused, answered = crowd.refused, crowd.answered.total()
        await crowd.run(30)
        assert 0.75 * most <= sum(crowd.limits) / len(crowd.limits) <= 1.1 * most
        assert crowd.refused - refused <= 0.005 * (crowd.answered.total() - answered)

    run(main())


def test_refusals_at_once_count_as_one_and_the_limit_recovers_from_an_outage() -> None:
    async def main() -> None:
        server = Server()
        crowd = clients(server, 50)
        await crowd.run(10)
        before = crowd.limit.limit
        server.most = 0
        await crowd.run(0.01)
        assert crowd.limit.limit >= 0.3 * before
        await crowd.run(1.0)
        server.most = 1 << 30
        await crowd.run(75)
        assert crowd.limit.limit >= 50

    run(main())


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_change_of_a_latency_that_is_not_load_costs_no_throughput(factor: float) -> None:
    async def main() -> None:
        server = Server(noise=0.2)
        crowd = clients(server, 100)
        await crowd.run(5)
        server.alone *= factor
        await crowd.run(20 * server.alone)
        expected = await without_limit(Server(alone=server.alone, noise=0.2), 100, 20 * server.alone)
        assert await crowd.run(20 * server.alone) >= 0.9 * expected

    run(main())


def test_limit_follows_a_server_that_loses_its_parallelism_and_regains_it() -> None:
    async def main() -> None:
        server = Server(alone=0.05)
        crowd = clients(server, 24)
        await crowd.run(3)
        assert crowd.limit.limit >= 24
        server.workers = 1
        await crowd.run(60)
        assert crowd.limit.limit <= 4
        server.workers = 0
        await crowd.run(30)
        assert crowd.limit.limit >= 24

    run(main())


@settings(max_examples=15)
@given(
    server=st.builds(
        Server,
        alone=st.sampled_from([0.05, 2.0]),
        workers=st.sampled_from([0, 1]),
        knee=st.sampled_from([3.0, 40.0, math.inf]),
        most=st.sampled_from([1, 3, 30, 1 << 30]),
        noise=st.sampled_from([0.0, 0.5, 2.0]),
        chance=st.builds(random.Random, st.integers(0, 2**32)),
    ),
    number=st.integers(1, 40),
    start=st.sampled_from([1, 8, 128]),
    bounds=st.lists(st.integers(1, 60), min_size=1, max_size=3),
)
@example(  # the bound falls while a lower limit is on trial
    server=Server(alone=0.05, knee=40.0, most=3, noise=0.5, chance=random.Random(2760294)),
    number=33,
    start=1,
    bounds=[1, 4, 1],
)
def test_limit_is_positive_and_never_over_the_bound_and_everybody_is_served(
    server: Server, number: int, start: int, bounds: list[int]
) -> None:
    async def main() -> None:
        crowd = clients(server, number, start, bounds[0])
        for bound in bounds:
            crowd.limits.clear()
            crowd.limit.bound = bound
            await crowd.run(20 * server.alone)
            assert all(1 <= limit <= bound for limit in crowd.limits)
        assert crowd.limit.in_flight == 0
        if server.most > number:
            assert set(crowd.answered) == set(range(number))

    run(main())


def test_one_caller_can_run_a_thousand_streams_at_once() -> None:
    """Streams keep their slots, so the limit grows by the ones that have begun."""

    async def main() -> None:
        limit, limiter = ConcurrencyLimit(128, clock=now), RateLimiter(None, clock=now)
        queue = GenerationQueue(limiter, places=limit, clock=now)
        retrier = Retrier(limiter, places=limit, clock=now)
        server = Server(alone=0.2, noise=0.5)
        together = asyncio.Barrier(1000)

        async def begin(call: object) -> object:
            await server.answer()
            return call

        async def stream() -> None:
            context = Context(caller="one")
            slot = queue.try_acquire("one", 1) or await queue.wait(context, 1, now() + 60)
            await retrier.run(begin, None, 1)  # type: ignore[type-var] # the call is not looked at
            await together.wait()
            slot.release()

        await asyncio.gather(*(stream() for _ in range(1000)))
        assert now() < 20
        assert (queue.in_flight, queue.queued_calls) == (0, 0)

    run(main())


class Crowd:
    """Clients whose calls share requests: the queue, the limit and the retries, without the CPU time that they take.

    A client asks again about `pause` seconds after it was answered.
    """

    def __init__(self, server: Server, number: int, texts: str, pause: float = 0.0) -> None:
        self.server, self.number, self.call, self.pause = server, number, embed(*texts), pause
        self.texts = self.requests = 0
        self.limit, limiter = ConcurrencyLimit(8, per_token=True, clock=now), RateLimiter(None, clock=now)
        retrier = Retrier(limiter, places=self.limit, chance=lambda: 0.5, clock=now)
        self.queue = BatchQueue(RetryStep(self.send, retrier), limiter=limiter, places=self.limit, clock=now)
        self.chance = random.Random(1)

    async def send(self, call: Call) -> Result:
        if not await self.server.answer(len(call.texts)):
            raise UpstreamRefused("full", cause=Cause.OVERLOADED, status=429, retryable=True)
        self.texts += len(call.texts)
        self.requests += 1
        return Vectors(items=list(map(vector, call.texts)), encoding=Encoding.F32, tokens=1, exact=True)

    async def client(self, until: float) -> None:
        while now() < until:
            await asyncio.sleep(self.pause * self.chance.expovariate(1))
            await self.queue(self.call)

    async def run(self, seconds: float) -> float:
        """Their texts a second."""
        before, until = self.texts, now() + seconds
        await asyncio.gather(*(self.client(until) for _ in range(self.number)))
        return (self.texts - before) / seconds


@pytest.mark.parametrize("most", [5, 1 << 30])
def test_calls_that_share_requests_get_what_the_server_can_do(most: int) -> None:
    async def main() -> None:
        crowd = Crowd(Server(most=most), 32, "abcdefgh")
        await crowd.run(20)
        assert await crowd.run(5) >= 0.9 * min(32 * 8, most * 32) / crowd.server.alone

    run(main())


@pytest.mark.parametrize(("number", "noise"), [(64, 0.0), (64, 0.1), (256, 0.0), (256, 0.1)])
def test_calls_of_one_text_get_what_a_server_of_any_number_can_do(number: int, noise: float) -> None:
    """The first calls take the free places alone, so that further places bring nothing until all calls have one."""

    async def main() -> None:
        crowd = Crowd(Server(noise=noise), number, "a", 0.001)
        await crowd.run(8)
        mean = crowd.server.alone * math.exp(noise**2 / 2)
        assert await crowd.run(4) >= 0.9 * number / mean

    run(main())


@pytest.mark.parametrize("number", [64, 256])
def test_calls_of_one_text_go_on_sharing_requests_to_a_server_with_few_workers(number: int) -> None:
    async def main() -> None:
        crowd = Crowd(Server(alone=0.02, workers=4, per_text=0.1), number, "a", 0.001)
        await crowd.run(20)
        sent = crowd.requests
        each = min(32, number / crowd.server.workers)
        full = crowd.server.workers * each / (0.02 * (1 + 0.1 * each))
        assert await crowd.run(10) >= 0.75 * full
        assert crowd.limit.limit <= 2 * crowd.server.workers
        assert (crowd.requests - sent) / 10 <= 0.2 * full

    run(main())


def test_timeout_and_refusal_lower_the_limit_and_other_errors_do_not() -> None:
    async def main() -> list[int]:
        limits = []
        for cause in (Cause.OVERLOADED, Cause.UPSTREAM_TIMEOUT, Cause.INVALID_REQUEST, Cause.CONNECTION_LOST):
            limit = ConcurrencyLimit(10, clock=now)
            retrier = Retrier(RateLimiter(None, clock=now), places=limit, tries=1, patient=False, clock=now)
            limit.in_flight = 10
            limit.begin()
            limit.answered(limit.begin(), 1)

            async def send(call: object, cause: Cause = cause) -> object:
                await asyncio.sleep(1)
                raise UpstreamRefused("no", cause=cause, status=500)

            with pytest.raises(UpstreamRefused):
                await retrier.run(send, embed("a"), 1)
            limits.append(limit.limit)
        return limits

    assert run(main()) == [8, 8, 10, 10]


def test_latencies_of_small_and_large_requests_are_compared_by_their_tokens() -> None:
    async def main() -> None:
        limit = ConcurrencyLimit(8, bound=16, per_token=True, clock=now)

        async def place() -> None:
            for turn in range(60):
                tokens = 10 if turn % 2 else 1000
                limit.in_flight += 1
                begun = limit.begin()
                await asyncio.sleep(tokens / 1000)
                limit.answered(begun, tokens)
                limit.in_flight -= 1

        await asyncio.gather(*(place() for _ in range(16)))
        assert limit.limit == 16

    run(main())


def together(limit: ConcurrencyLimit, requests: int) -> None:
    """As many requests at once, which the server answers."""
    limit.in_flight += requests
    begun = [limit.begin() for _ in range(requests)]
    for each in begun:
        limit.answered(each, 1)
        limit.in_flight -= 1


def refuse(limit: ConcurrencyLimit, in_flight: int) -> None:
    """One request that is refused while `in_flight` are."""
    limit.in_flight += in_flight
    limit.refused(limit.begin())
    limit.in_flight -= in_flight


@pytest.mark.parametrize(("in_flight", "expected"), [(1, 128), (2, 102), (100, 102)])
def test_refusal_cuts_what_is_allowed_not_what_happens_to_be_in_flight(in_flight: int, expected: int) -> None:
    async def main() -> int:
        limit = ConcurrencyLimit(128, clock=now)
        together(limit, 8)
        await asyncio.sleep(1)
        refuse(limit, in_flight)
        return limit.limit

    assert run(main()) == expected


@pytest.mark.parametrize("start", [2, 8])
def test_refusal_leaves_what_worked_unless_refusals_go_on(start: int) -> None:
    async def main() -> list[int]:
        limit, limits = ConcurrencyLimit(start, bound=start, clock=now), []
        for works in (True, True, False, False):
            together(limit, start if works else 1)
            await asyncio.sleep(1)
            refuse(limit, 2)
            limits.append(limit.limit)
            await asyncio.sleep(1)
        return limits

    first, second, third, fourth = run(main())
    assert first == second == start
    assert third < start
    assert fourth < third or fourth == 1


def test_streams_that_have_all_begun_are_never_fewer_because_they_began_sooner() -> None:
    """The time to a stream's first event is not what its place is taken for."""

    async def main() -> list[int]:
        limit, limits = ConcurrencyLimit(2, bound=2, clock=now), []
        for _ in range(200):
            limit.in_flight += 2
            for seconds in (0.001, 0.002 * limit.limit):
                begun = limit.begin()
                await asyncio.sleep(seconds)
                limit.answered(begun, 1)
            limit.in_flight -= 2
            limits.append(limit.limit)
            await asyncio.sleep(0.45)
        return limits

    assert set(run(main())) == {2}
