"""G13: what batching small calls saves, and its latency cost for a single call.

    python benchmarks/coalesce.py

64 askers, one text at a time, against an upstream in the same process that answers 8 requests at once in 10 ms each,
with up to 32 texts in a request. Without and with the queue alternate, so only the ratios count.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from typing import TYPE_CHECKING

import uvloop

from hubgate.core.queue.batch_queue import BatchQueue
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Context, Embed, Encoding, Vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.ports import Handler

ASKERS = 64
SECONDS = 1.0
ROUNDS = 3
VECTOR = bytes(4 * 384)


class Upstream:
    """So many workers, each taking so long for a request of up to 32 texts."""

    def __init__(self, workers: int = 8, seconds: float = 0.01) -> None:
        self._workers = asyncio.Semaphore(workers)
        self._seconds = seconds
        self.requests = 0

    async def __call__(self, call: Call) -> Result:
        """Answer with the same vector for every text."""
        assert len(call.texts) <= 32
        self.requests += 1
        if self._seconds:
            async with self._workers:
                await asyncio.sleep(self._seconds)
        return Vectors(items=[VECTOR] * len(call.texts), encoding=Encoding.F32)


def call(number: int) -> Embed:
    """One text of one of four keys, with Dify's patience."""
    context = Context(request_id=f"{number}", caller=f"key{number % 4}", deadline=time.monotonic() + 45)
    return Embed(texts=(f"a sentence about {number}",), context=context)


async def crowd(answer: Handler) -> int:
    """How many texts 64 askers get answered in the time."""
    until = time.monotonic() + SECONDS
    answered = 0

    async def asker(number: int) -> None:
        nonlocal answered
        while time.monotonic() < until:
            await answer(call(number))
            answered += 1

    await asyncio.gather(*(asyncio.create_task(asker(number)) for number in range(ASKERS)))
    return answered


async def joined(lanes: int, per_minute: int | None) -> tuple[float, float]:
    """Throughput to none, and texts a request, for one setting of the queue."""
    throughput, saved = [], []
    for _ in range(ROUNDS):
        alone = await crowd(Upstream())
        upstream = Upstream()
        queue = BatchQueue(upstream, limiter=RateLimiter(per_minute), places=ConcurrencyLimit(lanes))
        together = await crowd(queue)
        throughput.append(together / alone)
        saved.append(together / upstream.requests)
    return statistics.median(throughput), statistics.median(saved)


async def seconds_each(answer: Handler, calls: Sequence[Embed]) -> float:
    """How long a call takes, one after the other."""
    start = time.perf_counter()
    for each in calls:
        await answer(each)
    return (time.perf_counter() - start) / len(calls)


async def lone() -> float:
    """Microseconds that the queue adds to a call that nobody else's call meets."""
    upstream = Upstream(seconds=0.0)
    queue = BatchQueue(upstream, limiter=RateLimiter(None))
    calls = [call(number) for number in range(200)]
    alone, queued = math.inf, math.inf
    for _ in range(50):
        alone = min(alone, await seconds_each(upstream, calls))
        queued = min(queued, await seconds_each(queue, calls))
    return (queued - alone) * 1e6


async def main() -> None:
    """Print the figures."""
    for lanes, per_minute in ((1, None), (2, None), (8, None), (8, 6000)):
        throughput, saved = await joined(lanes, per_minute)
        limit = f"{per_minute} requests a minute" if per_minute else "no limit"
        print(f"{lanes} lanes, {limit}: {saved:.0f} texts a request, {throughput:.1f} times the throughput")
    print(f"a lone call: {await lone():.0f} µs more")


if __name__ == "__main__":
    uvloop.run(main())
