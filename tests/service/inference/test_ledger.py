"""Sent requests are recorded, so that no restart or crash exceeds the rate limit of a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from slow_server import SlowServer, max_per_minute
from virtual_time import now, run

from hubgate.core.traffic.rate_limiter import PERMIT_SECONDS, RateLimiter
from hubgate.domain.errors import StoreFailed
from hubgate.service.inference.ledger import Ledger
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from hubgate.settings import Settings

EPOCH = 1.7e9
"""What the system's clock says when made-up time begins."""


class Notes:
    """The store's notes: a write takes a while, and a crash comes before it or after it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.kept: dict[str, str] = {}
        self.writes = 0
        self.failing = False
        self._seconds = seconds

    async def note(self, name: str) -> str | None:
        return self.kept.get(name)

    async def set_note(self, name: str, value: str) -> None:
        await asyncio.sleep(self._seconds / 2)
        if self.failing:
            raise StoreFailed("The disk is full.")
        self.kept[name] = value
        self.writes += 1
        await asyncio.sleep(self._seconds / 2)


async def opened(notes: Notes, *, set_back: float = 0.0) -> Ledger:
    """The ledger of a process that begins, on a system whose clock was set back by so many seconds."""
    return await Ledger.load(notes, now, wall_clock=lambda: EPOCH + now() - set_back)


def limiter(ledger: Ledger, limit: int, burst: int) -> RateLimiter:
    return RateLimiter(limit, burst=burst, reservation=ledger.reservation("one", limit), clock=now)


async def send(limiter: RateLimiter, server: SlowServer) -> None:
    """One request, answered."""
    permit = await limiter.acquire()
    try:
        await server.answer(permit)
    finally:
        limiter.release(permit)


async def send_many(limiter: RateLimiter, server: SlowServer, requests: int) -> None:
    await asyncio.gather(*(send(limiter, server) for _ in range(requests)))


@settings(max_examples=examples(15))
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([1, 7, 60, 300]),
    burst=st.sampled_from([1, 3, 300]),
    lives=st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=4),
    write=st.sampled_from([0.0, 0.01, 0.9]),
)
def test_restarts_and_crashes_never_exceed_the_rate_limit(
    seed: int, limit: int, burst: int, lives: list[tuple[float, bool]], write: float
) -> None:
    """Each process runs for a while under random calls, then stops cleanly or crashes."""
    chance = random.Random(seed)
    server = SlowServer(chance, chance.choice([0.0, 0.5, 20.0]))
    set_back = 0.0

    async def live(notes: Notes, seconds: float, *, crashes: bool) -> None:
        nonlocal set_back
        set_back += chance.choice([0.0, 0.0, 10.0, 1000.0])
        ledger = await opened(notes, set_back=set_back)
        shared = limiter(ledger, limit, burst)

        async def ask() -> None:
            await asyncio.sleep(chance.choice([0.0, chance.random()]) * seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.choice([None, 0.5])):
                    await send(shared, server)

        asks = [asyncio.create_task(ask()) for _ in range(min(3 * limit, 500))]
        await asyncio.sleep(seconds)
        tasks = asyncio.all_tasks() - {asyncio.current_task()} if crashes else asks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not crashes:
            await ledger.close()

    async def main() -> None:
        notes = Notes(write)
        for seconds, crashes in lives:
            await live(notes, seconds, crashes=crashes)
            await asyncio.sleep(chance.choice([0.0, 0.5, 20.0]))
        await live(notes, 130, crashes=True)
        await asyncio.sleep(60)

    run(main())
    assert max_per_minute(server.arrivals) <= limit


def test_crash_costs_the_unused_reservation_and_a_clean_stop_costs_nothing() -> None:
    async def main(*, crashes: bool) -> list[int]:
        notes, server = Notes(), SlowServer(random.Random(1))
        ledger = await opened(notes)
        await send_many(limiter(ledger, 600, 600), server, 100)
        if not crashes:
            await ledger.close()
        await asyncio.sleep(1)
        successor = limiter(await opened(notes), 600, 600)
        left = 600 - successor.used()
        await send_many(successor, server, 600)
        return [left, sum(at < 60 for at in server.arrivals)]

    left, arrived = run(main(crashes=False))
    assert (left, arrived) == (500, 600)
    left, arrived = run(main(crashes=True))
    assert 500 - 60 <= left < 500  # two steps of a twentieth
    assert arrived == 100 + left


def test_new_and_idle_gateways_send_immediately() -> None:
    async def main() -> list[float]:
        notes, server = Notes(seconds=0.002), SlowServer(random.Random(1))
        first = limiter(await opened(notes), 60, 60)
        await send_many(first, server, 60)
        times = [max(server.arrivals)]
        await asyncio.sleep(PERMIT_SECONDS + 600)
        await send_many(limiter(await opened(notes), 60, 60), server, 60)
        return [*times, max(server.arrivals)]

    first, second = run(main())
    assert first < 1
    assert second < 1 + PERMIT_SECONDS + 600 + 1


def test_endpoint_that_is_readded_starts_with_the_requests_already_sent() -> None:
    async def main() -> int:
        ledger, server = await opened(Notes()), SlowServer(random.Random(1))
        await send_many(limiter(ledger, 60, 60), server, 40)
        return limiter(ledger, 60, 60).used()

    assert run(main()) == 40


def test_ledger_writes_rarely_and_never_blocks_calls() -> None:
    async def main() -> tuple[int, float]:
        notes, server = Notes(seconds=0.01), SlowServer(random.Random(1))
        shared = limiter(await opened(notes), 3000, 1)
        began = now()
        await send_many(shared, server, 3000)
        return notes.writes, now() - began

    writes, seconds = run(main())
    assert writes <= 22
    assert seconds == pytest.approx(60, abs=1.2)


def test_long_expired_entries_are_not_kept() -> None:
    async def main() -> list[str]:
        notes, server = Notes(), SlowServer(random.Random(1))
        ledger = await opened(notes)
        for number in range(20):
            shared = RateLimiter(60, reservation=ledger.reservation(f"{number}", 60), clock=now)
            await send(shared, server)
        await ledger.close()
        await asyncio.sleep(2000)
        ledger = await opened(notes)
        await send(RateLimiter(60, reservation=ledger.reservation("20", 60), clock=now), server)
        return [key for kept in notes.kept.values() for key in json.loads(kept)]

    assert run(main()) == ["20"]


def test_idle_gateway_writes_nothing_and_keeps_stored_entries() -> None:
    async def main() -> tuple[int, int]:
        notes, server = Notes(), SlowServer(random.Random(1))
        ledger = await opened(notes)
        await send_many(limiter(ledger, 60, 60), server, 10)
        await ledger.close()
        writes = notes.writes
        idle = await opened(notes)
        limiter(idle, 60, 60)
        await idle.close()
        return notes.writes - writes, limiter(await opened(notes), 60, 60).used()

    assert run(main()) == (0, 10)


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_failing_or_slow_store_is_logged_once_and_delays_calls_only_briefly(
    caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    async def main() -> float:
        notes, server = Notes(seconds), SlowServer(random.Random(1))
        notes.failing = True
        ledger = await opened(notes)
        began = now()
        await send_many(limiter(ledger, 60, 60), server, 60)
        lasted = now() - began
        notes.failing = False
        await ledger.close()
        return lasted

    with caplog.at_level(logging.WARNING):
        assert run(main()) < 60
    assert [record.message for record in caplog.records if "may exceed rate limits" in record.message]


def test_unreadable_entry_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        notes = Notes()
        notes.kept["requests sent"] = "{"
        return limiter(await opened(notes), 60, 60).used()

    assert run(main()) == 0
    assert "cannot be read" in caplog.text


async def test_ledger_is_stored_in_the_database(settings: Settings) -> None:
    for spent in (0, 1):
        store = await SqlStore.open(settings)
        ledger = await Ledger.load(store, asyncio.get_running_loop().time)
        shared = RateLimiter(
            60, reservation=ledger.reservation("one", 60), clock=asyncio.get_running_loop().time
        )
        assert shared.used() == spent
        permit = await shared.acquire()
        assert permit.try_send()
        permit.reply_started()
        shared.release(permit)
        await ledger.close()
        await store.close()
