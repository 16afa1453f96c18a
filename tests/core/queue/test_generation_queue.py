"""The queue of a generation endpoint, in virtual time."""

from __future__ import annotations

import asyncio
import math

import pytest
from virtual_time import now, run

from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Context
from hubgate.domain.errors import DeadlineExceeded, QueueFull


def asker(caller: str = "-", *, bulk: bool = False, deadline: float | None = None) -> Context:
    return Context(caller=caller, bulk=bulk, deadline=deadline)


class Queue:
    """Holds each slot for a second, and records who had one and when."""

    def __init__(
        self, requests_per_minute: int | None = None, max_in_flight: int = 128, **options: int
    ) -> None:
        self.limiter = RateLimiter(requests_per_minute, clock=now)
        places = ConcurrencyLimit(max_in_flight, clock=now)
        self.slots = GenerationQueue(self.limiter, places=places, clock=now, **options)
        self.had: list[tuple[str, float]] = []

    async def ask(self, name: str, context: Context | None = None, seconds: float = 1.0) -> float:
        context = context or asker()
        deadline = math.inf if context.deadline is None else context.deadline
        slot = self.slots.try_acquire(context.caller, 1) or await self.slots.wait(context, 1, deadline)
        self.had.append((name, now()))
        try:
            await asyncio.sleep(seconds)
        finally:
            slot.release()
        return slot.waited

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.had)


def test_single_call_does_not_wait() -> None:
    async def main() -> None:
        queue = Queue(60)
        assert await queue.ask("a") == 0.0
        assert queue.had == [("a", 0.0)]

    run(main())


def test_callers_take_turns_regardless_of_their_number_of_calls() -> None:
    async def main() -> str:
        queue = Queue(max_in_flight=1)
        many = [queue.ask("a", asker("one")) for _ in range(5)]
        few = [queue.ask("b", asker("other")) for _ in range(2)]
        await asyncio.gather(*many, *few)
        return queue.order

    assert run(main()) == "aababaa"


def test_interactive_callers_go_first_without_starving_bulk() -> None:
    async def main() -> str:
        queue = Queue(max_in_flight=1)
        bulk = [queue.ask("b", asker("bulk", bulk=True)) for _ in range(3)]
        await asyncio.gather(queue.ask("a"), *bulk, *(queue.ask("a") for _ in range(10)))
        return queue.order

    order = run(main())
    assert order.index("b") == 8
    assert sorted(order) == sorted("b" * 3 + "a" * 11)


def test_rate_limit_spaces_slots() -> None:
    async def main() -> list[tuple[str, float]]:
        queue = Queue(60)
        waited = await asyncio.gather(*(queue.ask("a", seconds=0.1) for _ in range(3)))
        assert waited == pytest.approx([0, 1, 2], abs=0.01)
        return queue.had

    assert [at for _, at in run(main())] == pytest.approx([0, 1, 2], abs=0.01)


def test_limits_slots_in_flight() -> None:
    async def main() -> list[float]:
        queue = Queue(max_in_flight=2)
        await asyncio.gather(*(queue.ask("a") for _ in range(5)))
        return [at for _, at in queue.had]

    assert run(main()) == pytest.approx([0, 0, 1, 1, 2])


def test_full_generation_queue_rejects_calls_with_retry_after() -> None:
    async def main() -> None:
        queue = Queue(60, max_in_flight=1, max_waiting_calls=1)
        first = asyncio.create_task(queue.ask("a"))
        second = asyncio.create_task(queue.ask("b"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as raised:
            await queue.ask("c")
        assert raised.value.retry_after
        await asyncio.gather(first, second)

    run(main())


def test_rejects_call_that_cannot_meet_its_deadline() -> None:
    async def main() -> None:
        queue = Queue(1)
        await queue.ask("a")
        with pytest.raises(DeadlineExceeded):
            await queue.ask("b", asker(deadline=now() + 5))
        assert now() == 1.0

    run(main())


@pytest.mark.parametrize("bulk", [False, True])
def test_wait_estimate_excludes_calls_that_go_later(bulk: bool) -> None:
    async def main() -> float:
        queue = Queue(60)
        many = [asyncio.create_task(queue.ask("a", asker("many", bulk=bulk))) for _ in range(40)]
        await asyncio.sleep(0)
        await queue.ask("b", asker("one", deadline=3.0), seconds=0.0)
        at = now()
        await asyncio.gather(*many)
        return at

    assert run(main()) <= 2.1


def test_bulk_wait_estimate_is_not_the_whole_interactive_backlog() -> None:
    async def main() -> float:
        queue = Queue(60)
        many = [asyncio.create_task(queue.ask("a")) for _ in range(40)]
        await asyncio.sleep(0)
        await queue.ask("b", asker("bulk", bulk=True, deadline=10.0), seconds=0.0)
        at = now()
        with pytest.raises(DeadlineExceeded):
            await queue.ask("b", asker("bulk", bulk=True, deadline=at - 1.0))
        await asyncio.gather(*many)
        return at

    assert run(main()) <= 9.1


def test_expired_wait_raises_and_takes_no_slot() -> None:
    async def main() -> None:
        queue = Queue(max_in_flight=1)
        first = asyncio.create_task(queue.ask("a", seconds=10))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match=r"after 2\.0 s"):
            await queue.ask("b", asker(deadline=2.0))
        assert queue.slots.queued_calls == queue.slots.queued_texts == 0
        await first
        assert queue.slots.in_flight == 0

    run(main())


def test_cancelled_waiter_takes_no_slot() -> None:
    async def main() -> str:
        queue = Queue(max_in_flight=1)
        tasks = [asyncio.create_task(queue.ask(name)) for name in "abc"]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return queue.order

    assert run(main()) == "ac"


def test_waiter_cancelled_as_its_slot_is_granted_releases_it() -> None:
    async def main() -> str:
        queue = Queue(max_in_flight=1)
        first = asyncio.create_task(queue.ask("a"))
        second = asyncio.create_task(queue.ask("b"))
        await asyncio.sleep(0)
        await first
        await asyncio.sleep(0)  # the dispatcher has granted the slot, and the second has not seen it
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await queue.ask("c")
        assert queue.slots.in_flight == 0
        return queue.order.replace("b", "")

    assert run(main()) == "ac"


def test_close_rejects_waiting_calls_and_waits_for_held_slots() -> None:
    async def main() -> None:
        queue = Queue(max_in_flight=1)
        first = asyncio.create_task(queue.ask("a"))
        second = asyncio.create_task(queue.ask("b"))
        await asyncio.sleep(0.5)
        await queue.slots.close()
        assert now() == pytest.approx(1.0)
        await first
        with pytest.raises(QueueFull):
            await second
        with pytest.raises(QueueFull):
            await queue.ask("c")

    run(main())


def test_reserves_slots_for_callers_without_any() -> None:
    async def main() -> None:
        queue = Queue(max_in_flight=16)
        hog = [asyncio.create_task(queue.ask("h", asker("hog"), seconds=100)) for _ in range(30)]
        await asyncio.sleep(1)
        assert queue.slots.in_flight == 14
        await queue.ask("a", asker("other"))
        await asyncio.gather(*(queue.ask("b", asker(f"caller {n}")) for n in range(4)))
        assert now() < 10
        await asyncio.gather(*hog)
        assert queue.order.count("h") == 30

    run(main())


def test_releasing_a_slot_twice_frees_it_once() -> None:
    async def main() -> None:
        queue = Queue(max_in_flight=1)
        slot = queue.slots.try_acquire(asker().caller, 1)
        assert slot is not None
        slot.release()
        slot.release()
        assert queue.slots.in_flight == 0

    run(main())
