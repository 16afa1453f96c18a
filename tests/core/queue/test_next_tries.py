"""A request that waits for its next try has no place meanwhile: in virtual time, for each kind of call and limit."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from virtual_time import now, run

from hubgate.core.generation import GenerationPipeline
from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.traffic.circuit_breaker import CircuitBreaker
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.domain.calls import (
    Chat,
    Complete,
    Context,
    Embed,
    Encoding,
    Generated,
    Rerank,
    Scores,
    Vectors,
    WireFormat,
)
from hubgate.domain.errors import Cause, HubgateError, QueueFull, UpstreamRefused, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.domain.calls import Call, GenerationCall, Result

KINDS = ["embed", "rerank", "chat", "complete"]
LIMITS: dict[str, Callable[[], tuple[RateLimiter, ConcurrencyLimit]]] = {
    "requests": lambda: (RateLimiter(None, max_concurrent_requests=1, clock=now), ConcurrencyLimit(8)),
    "texts": lambda: (RateLimiter(None, max_concurrent_texts=1, clock=now), ConcurrencyLimit(8)),
    "adaptive": lambda: (RateLimiter(None, clock=now), ConcurrencyLimit(1, bound=1, clock=now)),
    "rate": lambda: (RateLimiter(3000, max_concurrent_requests=1, clock=now), ConcurrencyLimit(1, clock=now)),
}


class Engine:
    """Answers after 10 ms, or fails as `error` says if the caller is "bad"."""

    def __init__(self, error: Callable[[], HubgateError | None]) -> None:
        self.error = error
        self.asked: list[str] = []
        self.times: list[float] = []
        self.busy = self.busiest = 0

    async def _work(self, call: Call | GenerationCall) -> None:
        self.asked.append(call.context.caller)
        self.times.append(now())
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        await asyncio.sleep(0.01)
        self.busy -= 1
        if call.context.caller.startswith("bad") and (error := self.error()) is not None:
            raise error

    async def __call__(self, call: Call) -> Result:
        await self._work(call)
        if isinstance(call, Rerank):
            return Scores(items=[0.5])
        return Vectors(items=[b"[1]"], encoding=Encoding.JSON)

    async def generate(self, call: GenerationCall) -> Generated:
        await self._work(call)
        return Generated(body=b"{}", wire_format=WireFormat.OPENAI)

    async def stream(self, call: GenerationCall) -> object:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class Line:
    """An endpoint for one kind of call."""

    def __init__(self, kind: str, engine: Engine, limits: str) -> None:
        self.kind = kind
        self.limiter, places = LIMITS[limits]()
        retrier = Retrier(self.limiter, places=places, clock=now, chance=lambda: 1.0)
        self.queue: BatchQueue | GenerationQueue
        self.queue = self.batches = BatchQueue(
            RetryStep(engine, retrier),
            limiter=self.limiter,
            places=places,
            limits=BatchLimits(max_texts=1),
            clock=now,
        )
        if kind in {"chat", "complete"}:
            self.queue = slots = GenerationQueue(self.limiter, places=places, clock=now)
            self.generation = GenerationPipeline(
                engine,  # type: ignore[arg-type]
                queue=slots,
                retrier=retrier,
                breaker=CircuitBreaker(clock=now),
                default_timeout=600.0,
                clock=now,
            )

    async def call(self, caller: str, seconds: float = 600.0) -> None:
        context = Context(caller=caller, deadline=now() + seconds)
        if self.kind == "chat":
            await self.generation.generate(Chat(fields={"messages": b"[]"}, context=context))
        elif self.kind == "complete":
            await self.generation.generate(Complete(prompt="a", fields={}, context=context))
        elif self.kind == "rerank":
            await self.batches(Rerank(query="a", texts=["b"], context=context))
        else:
            await self.batches(Embed(texts=["a"], context=context))


def refused(retry_after: float | None = 7.0) -> HubgateError:
    return UpstreamRefused(
        "Too large.", status=429, cause=Cause.OVERLOADED, retryable=True, retry_after=retry_after
    )


@pytest.mark.parametrize("retry_after", [None, 7.0, 200.0])
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_are_always_refused_leave_their_places_to_others(
    kind: str, limits: str, retry_after: float | None
) -> None:
    engine = Engine(lambda: refused(retry_after))

    async def main() -> float:
        line, longest = Line(kind, engine, limits), 0.0
        refused_calls = [asyncio.create_task(line.call(f"bad{number}")) for number in range(3)]
        await asyncio.sleep(0.05)
        while now() < 60:
            begun = now()
            await line.call("good")
            longest = max(longest, now() - begun)
            await asyncio.sleep(0.3)
        assert line.queue.queued_calls == 3
        for call in refused_calls:
            call.cancel()
        await asyncio.gather(*refused_calls, return_exceptions=True)
        assert (line.queue.queued_calls, line.queue.in_flight) == (0, 0)
        await line.call("good")
        return longest

    assert run(main()) < 1.0
    assert engine.busiest == 1
    assert engine.asked.count("bad0") >= 2 or retry_after == 200.0


@pytest.mark.parametrize("kind", KINDS)
def test_further_tries_and_new_requests_take_turns(kind: str) -> None:
    """A try that is due waits for the request in flight, and for one more."""
    engine = Engine(lambda: UpstreamUnreachable("The connection broke."))

    async def main() -> None:
        line = Line(kind, engine, "requests")

        async def busy() -> None:
            while now() < 4:
                await line.call("good")

        with contextlib.suppress(HubgateError):
            await asyncio.gather(line.call("bad"), *(busy() for _ in range(4)), return_exceptions=True)

    run(main())
    tries = [at for at, caller in zip(engine.times, engine.asked, strict=True) if caller == "bad"]
    pauses = [later - earlier - 0.01 for earlier, later in pairwise(tries)]
    assert pauses == [pytest.approx(1.0, abs=0.021), pytest.approx(2.0, abs=0.021)]
    assert engine.busiest == 1


@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_wait_for_their_next_try_count_as_waiting(kind: str) -> None:
    async def main() -> None:
        line = Line(kind, Engine(lambda: refused(200.0)), "requests")
        calls = [asyncio.create_task(line.call(f"bad{n}")) for n in range(2100)]
        for _ in range(5):
            await asyncio.sleep(20)
        outcomes = [call.exception() for call in calls if call.done()]
        assert line.queue.queued_calls + line.queue.in_flight == 2100 - len(outcomes)
        assert line.queue.queued_calls <= 2000 + 1  # and the one that was in flight
        assert all(isinstance(error, QueueFull) for error in outcomes)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (line.queue.queued_calls, line.queue.in_flight) == (0, 0)
        await line.queue.close()

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_close_waits_for_further_tries(kind: str) -> None:
    left = [refused(), refused()]
    engine = Engine(lambda: left.pop() if left else None)

    async def main() -> None:
        line = Line(kind, engine, "requests")
        call = asyncio.create_task(line.call("bad"))
        await asyncio.sleep(1)
        await line.queue.close()
        await call
        assert now() == pytest.approx(14.03)

    run(main())
    assert engine.asked == ["bad"] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [1.0, 7.01, 7.015])
def test_call_that_leaves_before_its_next_try_leaves_nothing_behind(kind: str, seconds: float) -> None:
    """Also at the moment when it is due and another request has the only place."""

    async def main() -> None:
        line = Line(kind, Engine(refused), "requests")
        call = asyncio.create_task(line.call("bad"))
        await asyncio.sleep(7.005)
        other = asyncio.create_task(line.call("good"))
        await asyncio.sleep(seconds - now())
        call.cancel()
        await asyncio.gather(call, other, return_exceptions=True)
        assert (line.queue.queued_calls, line.queue.in_flight) == (0, 0)
        await line.call("good")
        await line.queue.close()

    run(main())
