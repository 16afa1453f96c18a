"""Slots of shared rate limits from a real Valkey server. `tests/core/traffic/test_slots.py` tests the rule itself."""

from __future__ import annotations

import asyncio
import secrets
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from hubgate.core.traffic.slots import WINDOW
from hubgate.domain.cluster_ports import SlotQuestion
from hubgate.domain.errors import StoreFailed
from hubgate.store.valkey.connection import ValkeyConnection
from hubgate.store.valkey.permits import ValkeyPermits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers.valkey import ValkeyServer

    from hubgate.domain.cluster_ports import SlotAnswer

RATE = 60_000


def question(wanted: int = 1, *, key: str = "limit", known: int = 1, pause: float = 0.0) -> SlotQuestion:
    return SlotQuestion(
        key=key, wanted=wanted, per_window=RATE, burst=1, window=WINDOW, known_gateways=known, pause=pause
    )


@pytest.fixture
async def connection(valkey: ValkeyServer) -> AsyncIterator[ValkeyConnection]:
    connection = ValkeyConnection(valkey.url, "HUBGATE_VALKEY_URL", patience=10.0)
    yield connection
    await connection.close()


async def announce(permits: ValkeyPermits, *names: str) -> None:
    now = (await permits.beat(names[0], None)).now
    for name in names:
        await permits.beat(name, now)


def slots_of(answers: list[SlotAnswer]) -> list[float]:
    return sorted(one.first + number * one.step for one in answers for number in range(one.granted))


async def test_no_two_gateways_get_the_same_slot(connection: ValkeyConnection) -> None:
    permits = ValkeyPermits(connection)
    await announce(permits, "a", "b", "c")
    answers: list[SlotAnswer] = []
    while len(slots := slots_of(answers)) < 100:
        answers += await asyncio.gather(*(permits.take(question(3)) for _ in range(30)))
    step = WINDOW / RATE
    assert all(after - before >= step - 2e-6 for before, after in pairwise(slots))
    assert {one.gateways for one in answers} == {3}


async def test_gateway_that_leaves_does_not_count(connection: ValkeyConnection) -> None:
    permits = ValkeyPermits(connection)
    await announce(permits, "a", "b")
    assert (await permits.beat("b", None)).gateways == 2
    await permits.leave("b")
    assert (await permits.beat("a", None)).gateways == 1


async def test_beat_that_was_held_up_does_not_count(connection: ValkeyConnection) -> None:
    permits = ValkeyPermits(connection)
    now = (await permits.beat("a", None)).now
    assert (await permits.beat("a", now - 1.5)).gateways == 0
    assert (await permits.beat("a", now)).gateways == 1


async def test_restarted_server_gives_slots_two_seconds_ahead(
    connection: ValkeyConnection, valkey: ValkeyServer
) -> None:
    permits = ValkeyPermits(connection)
    await announce(permits, "a")
    await permits.take(question())
    valkey.kill()
    with pytest.raises(StoreFailed):
        await permits.take(question())
    valkey.start()
    answer = await permits.take(question(known=3))
    assert answer.first - answer.now == pytest.approx(2.0)
    assert answer.gateways == 3


async def test_pause_of_one_gateway_holds_for_all(connection: ValkeyConnection) -> None:
    permits = ValkeyPermits(connection)
    await announce(permits, "a")
    await permits.take(question())
    await permits.take(question(0, pause=100.0))
    answer = await permits.take(question())
    assert answer.granted == 0
    assert 99.0 <= answer.first - answer.now <= 100.0
    other = await permits.take(question(key="other limit"))
    assert other.granted == 1


async def test_keys_hold_no_token_and_do_not_expire(connection: ValkeyConnection) -> None:
    permits = ValkeyPermits(connection)
    await announce(permits, secrets.token_hex(8))
    await permits.take(question())
    for key in await connection.command("KEYS", "*"):
        assert key.startswith(b"{hg}:")
        assert await connection.command("TTL", key) == -1
