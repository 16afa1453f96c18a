"""Leases on PostgreSQL, and in a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from hubgate.store.cluster.expiring_values import NOW
from hubgate.store.cluster.leases import SqlLeases
from hubgate.store.database import Database
from hubgate.store.tables import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(migrated_url)
    yield opened
    await opened.close()


async def test_lease_has_one_owner_until_it_is_released(database: Database) -> None:
    one, other = SqlLeases(database), SqlLeases(database)
    assert await one.acquire("guard", 60) == 1
    assert await other.acquire("guard", 60) is None
    assert await other.acquire("another", 60) == 1
    assert await one.acquire("guard", 60) == 1, "it is renewed"
    await other.release("guard")
    assert await other.acquire("guard", 60) is None, "only its owner releases it"
    await one.release("guard")
    assert await other.acquire("guard", 60) == 2
    assert await one.acquire("guard", 60) is None


@pytest.mark.parametrize("ends_in", [-1.0, 3600.0], ids=["lapsed", "clock-set-back"])
async def test_lease_that_has_lapsed_is_free(database: Database, ends_in: float) -> None:
    one, other = SqlLeases(database), SqlLeases(database)
    await one.acquire("guard", 60)
    moved = update(leases).values(until=NOW + ends_in)
    await database.do(lambda connection: connection.execute(moved))
    assert await other.acquire("guard", 60) == 2
    assert await one.acquire("guard", 60) is None


async def test_time_is_that_of_the_database(database: Database) -> None:
    one = SqlLeases(database)
    await one.read_clock()
    before = await database.do(lambda connection: connection.execute(select(NOW)).scalar_one())
    between = one.now()
    after = await database.do(lambda connection: connection.execute(select(NOW)).scalar_one())
    assert before - 0.5 <= between <= after + 0.5


async def test_process_of_a_file_owns_every_lease_also_after_a_restart(tmp_path: Path) -> None:
    for fence in (1, 1):
        database = await Database.open(tmp_path / "gate.db")
        owner = SqlLeases(database)
        assert await owner.acquire("guard", 60) == fence
        assert abs(owner.now() - time.time()) < 60
        await database.close()
