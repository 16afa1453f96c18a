"""Timers of many requests on one timer of the event loop, in virtual time."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
import virtual_time
from virtual_time import now

from hubgate.core.traffic.timers import TimeLimit, Timers


def test_timers_fire_in_time_and_cancelled_ones_never() -> None:
    async def main() -> None:
        timers = Timers(now)
        fired: list[tuple[float, float]] = []

        def note(seconds: float) -> None:
            fired.append((seconds, now()))

        for seconds in (30.0, 10.0, 20.0):
            timers.call_at(now() + seconds, partial(note, seconds))
        timers.call_at(now() + 15.0, partial(note, 15.0)).cancel()
        await asyncio.sleep(60)
        assert [seconds for seconds, _ in fired] == [10.0, 20.0, 30.0]
        assert all(at == pytest.approx(seconds, abs=0.02) for seconds, at in fired)

    virtual_time.run(main())


def test_a_timer_can_cancel_another_one_and_set_a_new_one() -> None:
    async def main() -> None:
        timers, fired = Timers(now), []

        def first() -> None:
            second.cancel()
            timers.call_at(now() + 1, lambda: fired.append("third"))
            fired.append("first")

        timers.call_at(5.0, first)
        second = timers.call_at(5.0, lambda: fired.append("second"))
        await asyncio.sleep(10)
        assert fired == ["first", "third"]

    virtual_time.run(main())


def test_a_time_limit_ends_what_takes_longer() -> None:
    async def main() -> None:
        timers = Timers(now)
        with pytest.raises(TimeoutError), TimeLimit(timers, now() + 5):
            await asyncio.sleep(6)
        assert now() == pytest.approx(5, abs=0.02)
        with TimeLimit(timers, now() + 5):
            await asyncio.sleep(4)
        await asyncio.sleep(10)  # the task is not cancelled later

    virtual_time.run(main())


def test_a_cancellation_and_an_error_pass_a_time_limit_unchanged() -> None:
    async def main() -> None:
        timers = Timers(now)

        async def limited() -> None:
            with TimeLimit(timers, now() + 5):
                await asyncio.sleep(10)

        task = asyncio.create_task(limited())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ValueError, match="its own"), TimeLimit(timers, now() + 5):
            raise ValueError("its own")

    virtual_time.run(main())


def test_a_limit_that_has_passed_ends_the_next_wait() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), TimeLimit(Timers(now), now() - 1):
            await asyncio.sleep(1)

    virtual_time.run(main())
