"""Shared values never make anything fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hubgate.domain.errors import StoreFailed
from hubgate.service.shared_values import SharedValues
from hubgate.store.cluster.expiring_values import SqlExpiringValues

if TYPE_CHECKING:
    import pytest


class Values(SqlExpiringValues):
    """A database that can be gone, or not answer."""

    def __init__(self) -> None:
        self.gone = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.counted = 0

    async def get(self, name: str) -> str | None:
        await self._answer()
        return name

    async def put(self, name: str, value: str, seconds: float) -> None:
        await self._answer()

    async def count(self, name: str, seconds: float) -> tuple[int, float]:
        self.counted += 1
        await self._answer()
        return 7, seconds

    async def _answer(self) -> None:
        await self.answering.wait()
        if self.gone:
            raise StoreFailed("The database cannot be reached.")


async def test_single_gateway_has_none() -> None:
    alone = SharedValues()
    await alone.put("a", "value", 60)
    assert (await alone.get("a"), await alone.count("a", 60)) == (None, (0, 0.0))


async def test_unusable_database_is_logged_once_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    values = Values()
    shared = SharedValues(values)
    for gone in (False, True, True, False, True):
        values.gone = gone
        await shared.put("a", "value", 60)
        expected = (None, (0, 0.0)) if gone else ("a", (7, 60))
        assert (await shared.get("a"), await shared.count("a", 60)) == expected
    assert len(caplog.messages) == 2
    assert "cannot be reached" in caplog.text


async def test_flood_of_wrong_keys_asks_the_database_a_few_at_a_time() -> None:
    values = Values()
    values.answering.clear()
    shared = SharedValues(values)
    flood = [asyncio.create_task(shared.count(f"{number}", 60)) for number in range(1000)]
    await asyncio.sleep(0)
    values.answering.set()
    counts = await asyncio.gather(*flood)
    assert values.counted == 16
    assert [number for number, _ in counts] == [7] * 16 + [0] * 984
