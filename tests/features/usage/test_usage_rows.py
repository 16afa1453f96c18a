"""Usage of endpoints is summed by hour, grouped by query, and rolled up into days when it is old."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from hubgate.domain.errors import StoreFailed
from hubgate.domain.records import COUNTS, DAY, HOUR, Latency, Slot, Tally, UsageQuery
from hubgate.features.usage.store import KEPT_DAYS, KEPT_HOURS, SqlUsage
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from hubgate.settings import Settings

NOON = 20_000 * DAY + 12 * HOUR
ALWAYS = UsageQuery(start=0, end=NOON * 2)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The tests of this module run on both databases."""
    kind: str = request.param
    return kind


def tally(requests: int = 1, **causes: int) -> Tally:
    """A tally of `requests` requests; `causes` are those that failed."""
    latency, bulk_latency = Latency(), Latency()
    for n in range(requests):
        latency.observe(0.1 * (n + 1))
        bulk_latency.observe(10.0)
    numbers = {name: requests * 2 for name in COUNTS if name not in {"requests", "errors", "queue_seconds"}}
    return Tally(
        requests=requests,
        errors=sum(causes.values()),
        queue_seconds=requests / 4,
        latency=latency,
        bulk_latency=bulk_latency,
        causes=causes,
        **numbers,
    )


def asked(*by: str, **what: int | str) -> UsageQuery:
    return UsageQuery(**{"start": 0, "end": NOON * 2, "by": by, **what})  # type: ignore[arg-type]


async def rows(store: SqlStore) -> dict[tuple[int, int], int]:
    """Number of rows by span and time."""
    found = await store.database.do(
        lambda c: c.exec_driver_sql('SELECT span, "at", count(*) FROM usage GROUP BY 1, 2').all()
    )
    return {(span, at): count for span, at, count in found}


async def test_adding_to_an_hour_sums_every_count(store: SqlStore) -> None:
    slot = Slot(NOON, "e5", "app")
    await SqlUsage(store.database).add({slot: tally(1, overloaded=1)})
    await SqlUsage(store.database).add({slot: tally(2, overloaded=2, waking=1)})
    await SqlUsage(store.database).add({})
    ((group, sums),) = await SqlUsage(store.database).read(ALWAYS, 10)
    assert group == ()
    expected = tally(1, overloaded=1)
    expected.add(tally(2, overloaded=2, waking=1))
    expected.causes = {}
    assert sums == expected


async def test_groups_usage_by_endpoint_key_hour_day_and_cause(store: SqlStore) -> None:
    for at in (NOON, NOON + HOUR, NOON + DAY):
        await SqlUsage(store.database).add({Slot(at, "e5", "one"): tally(1, waking=1)})
    await SqlUsage(store.database).add({Slot(NOON, "minilm", "two"): tally(5)})

    async def requests(*by: str, **what: int | str) -> list[tuple[object, ...]]:
        found = await SqlUsage(store.database).read(asked(*by, **what), 10)
        return [(*row.group, row.tally.requests) for row in found]

    midnight = NOON // DAY * DAY
    assert await requests("endpoint") == [("e5", 3), ("minilm", 5)]
    assert await requests("key") == [("one", 3), ("two", 5)]
    assert await requests("hour", endpoint="e5") == [(NOON, 1), (NOON + HOUR, 1), (NOON + DAY, 1)]
    assert await requests("day", "endpoint") == [
        (midnight, "e5", 2),
        (midnight, "minilm", 5),
        (midnight + DAY, "e5", 1),
    ]
    assert await requests("cause") == [("waking", 3)]
    assert await requests(start=NOON, end=NOON + HOUR) == [(6,)]
    assert await requests("endpoint", key="two") == [("minilm", 5)]
    assert await requests(endpoint="nowhere") == []
    assert len(await SqlUsage(store.database).read(asked("hour"), 2)) == 2
    pages = [await SqlUsage(store.database).read(asked("day", "endpoint"), 2)]
    pages.append(await SqlUsage(store.database).read(asked("day", "endpoint"), 2, pages[0][-1].group))
    assert [row.group for page in pages for row in page] == [
        (midnight, "e5"),
        (midnight, "minilm"),
        (midnight + DAY, "e5"),
    ]


async def test_rolls_old_hours_into_days_and_deletes_old_days(store: SqlStore) -> None:
    old = NOON - KEPT_HOURS - DAY
    midnight = old // DAY * DAY
    for at in (old, old + HOUR, NOON):
        await SqlUsage(store.database).add({Slot(at, "e5", "one"): tally(1, waking=1)})
    before = await SqlUsage(store.database).read(ALWAYS, 10)
    await SqlUsage(store.database).roll(NOON)
    assert await rows(store) == {(DAY, midnight): 1, (HOUR, NOON): 1}
    assert await SqlUsage(store.database).read(ALWAYS, 10) == before
    assert [r.tally.requests for r in await SqlUsage(store.database).read(asked("cause"), 10)] == [3]
    await SqlUsage(store.database).roll(NOON + KEPT_DAYS - KEPT_HOURS)
    assert await rows(store) == {(DAY, NOON // DAY * DAY): 1}


async def test_row_limit_rolls_up_early_then_deletes(store: SqlStore) -> None:
    small = SqlUsage(store.database, max_rows=2)
    for hours in range(4):
        await small.add({Slot(NOON - DAY + hours * HOUR, "e5", "one"): tally()})
    await small.add({Slot(NOON, "e5", key): tally() for key in "abc"})
    await small.roll(NOON)
    assert await rows(store) == {
        (DAY, NOON // DAY * DAY - DAY): 1,
        (HOUR, NOON): 3,
    }, "today's hours stay, whatever their number"
    await small.roll(NOON + DAY)
    assert await rows(store) == {}, "four days' rows are more than two, and the newest day has three"


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_locked_database_adds_no_usage_and_is_retryable(settings: Settings) -> None:
    store = await SqlStore.open(settings, patience=0.0)
    with closing(sqlite3.connect(os.fspath(settings.database))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFailed) as busy:
            await SqlUsage(store.database).add({Slot(NOON, "e5", "one"): tally()})
        other.rollback()
    assert busy.value.retryable
    assert await SqlUsage(store.database).read(ALWAYS, 10) == []
    await store.close()
