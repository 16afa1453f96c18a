"""Values that gateways share in PostgreSQL for a limited time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from hubgate.store.cluster.expiring_values import SqlExpiringValues
from hubgate.store.database import Database
from hubgate.store.tables import expiring_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class _Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(migrated_url)
    yield opened
    await opened.close()


async def test_value_is_read_until_it_expires(database: Database) -> None:
    one, other = SqlExpiringValues(database), SqlExpiringValues(database)
    assert await other.get("a") is None
    await one.put("a", "first", 60)
    await one.put("a", "second", 60)
    assert await other.get("a") == "second"
    await one.put("a", "third", 0)
    assert await other.get("a") is None


async def test_events_of_all_gateways_are_counted_in_one_period(database: Database) -> None:
    one, other = SqlExpiringValues(database), SqlExpiringValues(database)
    counts = [await each.count("wrong keys", 60) for each in (one, other, one)]
    assert [number for number, _ in counts] == [1, 2, 3]
    lefts = [left for _, left in counts]
    assert 60 >= lefts[0] > lefts[1] > lefts[2] > 0, "the first event starts the period"
    assert [(await one.count("over at once", 0))[0] for _ in range(2)] == [1, 1]


async def test_expired_values_are_deleted(database: Database) -> None:
    clock = _Clock()
    values = SqlExpiringValues(database, clock)
    await values.put("old", "", 0)
    await values.put("new", "", 60)
    clock.now = 60
    await values.count("event", 60)
    names = select(expiring_values.c.name).order_by(expiring_values.c.name)
    assert await database.do(lambda c: c.execute(names).scalars().all()) == ["event", "new"]
