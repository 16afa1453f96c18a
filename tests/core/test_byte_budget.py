"""The bytes of replies are shared: callers wait for their turn, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.core.byte_budget import ByteBudget
from hubgate.domain.errors import GatewayBusy


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_caller_gets_half_of_it_and_others_the_rest() -> None:
    budget = ByteBudget(100)
    await budget.take(30, "a")
    second = asyncio.create_task(budget.take(30, "a"))
    await budget.take(70, "b")
    await _settle()
    assert (second.done(), budget.used) == (False, 100)
    budget.give_back(30, "a")
    await second
    assert budget.used == 100


async def test_one_call_is_served_however_large_it_is() -> None:
    budget = ByteBudget(100)
    await budget.take(1000, "a")
    assert budget.used == 100
    budget.give_back(100, "a")
    assert budget.used == 0


async def test_callers_take_turns_and_bulk_calls_come_last() -> None:
    budget, order = ByteBudget(100), list[str]()
    await budget.take(100, "z")

    async def call(name: str, *, bulk: bool = False) -> None:
        await budget.take(80, name[0], bulk=bulk)
        order.append(name)
        budget.give_back(80, name[0])

    calls = [call("d1", bulk=True), call("a1"), call("a2"), call("a3"), call("b1")]
    tasks = [asyncio.create_task(one) for one in calls]
    await _settle()
    budget.give_back(100, "z")
    await asyncio.gather(*tasks)
    assert order == ["a1", "b1", "a2", "a3", "d1"]
    assert budget.used == 0


async def test_small_calls_do_not_pass_a_large_one_for_ever() -> None:
    budget = ByteBudget(100)
    await budget.take(60, "a")
    large = asyncio.create_task(budget.take(90, "b"))
    await _settle()
    small = asyncio.create_task(budget.take(10, "c"))
    await _settle()
    assert not small.done()
    budget.give_back(60, "a")
    await large
    await small
    assert budget.used == 100


async def test_a_call_is_refused_when_it_has_waited_for_too_long() -> None:
    budget = ByteBudget(100, patience=0.01)
    await budget.take(100, "a")
    with pytest.raises(GatewayBusy, match="HUBGATE_MAX_TOTAL_REPLY_BYTES") as refused:
        await budget.take(10, "b")
    assert refused.value.retry_after
    budget.give_back(100, "a")
    await budget.take(100, "b")


async def test_a_call_that_leaves_gives_back_what_it_was_just_given() -> None:
    budget = ByteBudget(100)
    await budget.take(100, "a")
    waiting = asyncio.create_task(budget.take(50, "b"))
    behind = asyncio.create_task(budget.take(100, "c"))
    await _settle()
    budget.give_back(100, "a")
    waiting.cancel()
    await behind
    assert budget.used == 100
    assert waiting.cancelled()


async def test_memory_is_returned_when_nothing_is_in_use_after_much_was() -> None:
    budget, returned = ByteBudget(100 << 20), list[int]()
    budget.on_idle = lambda: returned.append(budget.used)
    for size in (1 << 20, 50 << 20, 1 << 20):
        await budget.take(size, "a")
        budget.give_back(size, "a")
    assert returned == [0]
    budget.add(200 << 20, "a")  # a reply that is there already
    budget.give_back(200 << 20, "a")
    assert returned == [0, 0]
