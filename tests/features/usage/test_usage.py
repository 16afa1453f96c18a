"""Usage is counted in memory, written to the database when possible, and reported in groups."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_sources import dedicated

from hubgate.domain.calls import Embed
from hubgate.domain.errors import DiskFull, InvalidRequest, StoreFailed
from hubgate.domain.records import DAY, HOUR, LATENCY_BOUNDS, Latency, UsageQuery, UsageRow
from hubgate.features.usage.store import SqlUsage
from hubgate.features.usage.usage import GROUPS, MAX_ROWS, PAGE_ROWS, Usage
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.store.database import Database
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection
    from stub_sources import StubSources

    from hubgate.service.inference.pipeline import Pipeline
    from hubgate.settings import Settings

NOON = 20_000 * DAY + 12 * HOUR
CALL = Embed(texts=("a text",))


@dataclass
class Hands:
    """A clock, and the pipelines that are there."""

    now: float = NOON
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)

    def __call__(self) -> float:
        return self.now


def asked(*by: str) -> UsageQuery:
    return UsageQuery(start=0, end=NOON * 2, by=by)


def opened(store: SqlStore, hands: Hands) -> Usage:
    return Usage(SqlUsage(store.database), lambda: hands.pipelines, hands)


def called(usage: Usage, endpoint: str = "e5", key: str = "k1", cause: str = "ok", **numbers: float) -> None:
    usage.count(
        endpoint,
        key,
        cause,
        **{  # type: ignore[arg-type]
            "bulk": False,
            "seconds": 0.02,
            "texts": 1,
            "prompt_tokens": 3,
            "completion_tokens": 0,
            "waited": 0.0,
            **numbers,
        },
    )


async def test_every_field_of_a_call_is_counted(store: SqlStore) -> None:
    usage = opened(store, Hands())
    called(usage, texts=2, completion_tokens=5, waited=0.5)
    called(usage, cause="overloaded", texts=0, prompt_tokens=0)
    (row,) = await usage.report(asked())
    tally = row.tally
    assert (tally.requests, tally.errors, tally.texts) == (2, 1, 2)
    assert (tally.prompt_tokens, tally.completion_tokens, tally.queue_seconds) == (3, 5, 0.5)
    assert sum(tally.latency.counts) == 1, "an error is not told as a quick answer"
    causes = await usage.report(asked("cause"))
    assert [(row.group, row.tally.requests) for row in causes] == [(("overloaded",), 1)]


async def test_call_of_a_disconnected_client_is_cancelled_not_failed(store: SqlStore) -> None:
    usage = opened(store, Hands())
    called(usage)
    called(usage, cause="client_left")
    (row,) = await usage.report(asked())
    assert (row.tally.requests, row.tally.errors, row.tally.cancelled) == (2, 0, 1)
    assert await usage.report(asked("cause")) == []


async def test_bulk_calls_have_a_separate_latency(store: SqlStore) -> None:
    usage = opened(store, Hands())
    called(usage, seconds=0.02)
    called(usage, seconds=57.0, bulk=True)
    (row,) = await usage.report(asked())
    assert row.tally.latency.percentile(0.99) == 0.02
    assert row.tally.bulk_latency.percentile(0.5) == 57.0


async def test_min_and_max_cover_all_hours_of_the_range(store: SqlStore) -> None:
    hands = Hands()
    usage = opened(store, hands)
    for seconds in (2.0, 0.5, 3.0):
        called(usage, seconds=seconds)
        await usage.flush()
        hands.now += HOUR
    called(usage, cause="overloaded")
    (row,) = await usage.report(asked())
    assert (row.tally.latency.fastest, row.tally.latency.slowest) == (0.5, 3.0)
    assert (row.tally.bulk_latency.fastest, row.tally.bulk_latency.percentile(0.5)) == (None, None)


async def test_calls_are_counted_by_endpoint_key_and_hour(store: SqlStore) -> None:
    hands = Hands()
    usage = opened(store, hands)
    called(usage)
    called(usage, endpoint="e6", key="k2")
    hands.now += HOUR
    called(usage)
    rows = await usage.report(asked("hour", "endpoint", "key"))
    assert [(*row.group, row.tally.requests) for row in rows] == [
        (NOON, "e5", "k1", 1),
        (NOON, "e6", "k2", 1),
        (NOON + HOUR, "e5", "k1", 1),
    ]


async def test_old_hours_are_rolled_up_once_an_hour(store: SqlStore) -> None:
    hands = Hands()
    usage = opened(store, hands)
    called(usage)
    await usage.flush()
    hands.now += 40 * DAY
    await usage.flush()
    ((group, tally),) = await usage.report(asked("hour"))
    assert (group, tally.requests) == ((NOON // DAY * DAY,), 1)


async def test_locked_database_loses_no_counts_and_is_written_when_free(settings: Settings) -> None:
    store = await SqlStore.open(settings, patience=0.0)
    usage = opened(store, Hands())
    with closing(sqlite3.connect(os.fspath(settings.database))) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            called(usage)
            called(usage, cause="waking")
            called(usage, endpoint="e6")
            with pytest.raises(StoreFailed):
                await usage.flush()
        other.rollback()
    called(usage)
    rows = await usage.report(asked("endpoint"))
    assert [(*row.group, row.tally.requests, row.tally.errors) for row in rows] == [
        ("e5", 7, 3),
        ("e6", 3, 0),
    ]
    assert sum(rows[0].tally.latency.counts) == 4
    assert [row.tally.requests for row in await usage.report(asked("cause"))] == [3]
    await store.close()


async def test_cancelling_during_a_failed_flush_loses_no_counts(settings: Settings) -> None:
    store = await SqlStore.open(settings, patience=0.0)
    usage = opened(store, Hands())
    with closing(sqlite3.connect(os.fspath(settings.database))) as other:
        other.execute("BEGIN IMMEDIATE")
        called(usage)
        asking = asyncio.create_task(usage.report(asked()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(StoreFailed):
            await usage.flush()
        other.rollback()
    (row,) = await usage.report(asked())
    assert row.tally.requests == 1
    await store.close()


async def test_on_a_full_disk_reports_have_what_is_not_stored_yet(tmp_path: Path) -> None:
    """Each report is the same as after the counts are stored."""

    def set_pages(most: int) -> Callable[[Connection], object]:
        return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {most}")

    async def reports() -> list[Sequence[UsageRow]]:
        queries = [asked(*by) for size in range(3) for by in combinations(GROUPS, size)]
        queries += [replace(asked("key"), **chosen) for chosen in ({"key": "k7"}, {"endpoint": "e6"})]  # type: ignore[arg-type]
        queries += [replace(asked("endpoint"), start=NOON), replace(asked("endpoint"), end=NOON)]
        return [await usage.report(query) for query in queries]

    async def pages() -> list[Sequence[UsageRow]]:
        return [page async for page in await usage.pages(asked("key", "endpoint"))]

    database = await Database.open(tmp_path / "home" / "hubgate.db")
    hands = Hands(now=NOON - DAY)
    usage = Usage(SqlUsage(database), lambda: hands.pipelines, hands)
    for number in range(30):
        called(usage, key=f"k{number}", cause="overloaded" if number % 3 else "ok")
    await usage.flush()
    await database.do(set_pages(1))  # no more than it has
    hands.now = NOON
    called(usage, endpoint="e6" * 10_000)
    for number in range(20):
        called(usage, endpoint=("e5", "e6")[number % 2], key=f"k{number * 2}", cause="waking", seconds=0.5)
        called(usage, key="k7")
    with pytest.raises(DiskFull):
        await usage.flush()
    called(usage)
    unstored = await reports()
    await database.do(set_pages(100_000))
    await usage.flush()
    assert unstored == await reports()
    await database.do(set_pages(1))
    for number in range(PAGE_ROWS):
        called(usage, key=f"k{number}")
    unstored_pages = await pages()
    await database.do(set_pages(100_000))
    await usage.flush()
    assert unstored_pages == await pages()
    assert [len(page) for page in unstored_pages] == [PAGE_ROWS, 11]
    await database.close()


async def test_counts_during_a_failed_flush_are_added_to_the_pending_ones(
    settings: Settings,
) -> None:
    store = await SqlStore.open(settings, patience=0.0)
    usage = opened(store, Hands())
    with closing(sqlite3.connect(os.fspath(settings.database))) as other:
        other.execute("BEGIN IMMEDIATE")
        called(usage, cause="waking")
        flushing = asyncio.create_task(usage.flush())
        await asyncio.sleep(0)
        called(usage)
        called(usage, cause="waking")
        with pytest.raises(StoreFailed):
            await flushing
        other.rollback()
    (row,) = await usage.report(asked())
    assert (row.tally.requests, row.tally.errors, sum(row.tally.latency.counts)) == (3, 2, 1)
    ((_, causes),) = await usage.report(asked("cause"))
    assert causes.requests == 2
    await store.close()


async def test_queue_counts_are_taken_once_and_survive_their_endpoint(
    store: SqlStore, sources: StubSources
) -> None:
    gateway = Gateway(store, sources, Pipelines(None, time.monotonic))
    endpoint = await gateway.registry.register(dedicated(), None)
    hands = Hands()
    usage = Usage(SqlUsage(store.database), lambda: hands.pipelines, hands)

    async def sent() -> int:
        rows = await usage.report(asked("endpoint", "key"))
        return sum(row.tally.upstream_requests for row in rows if row.group == ("e5", ""))

    hands.pipelines = gateway.pipelines()
    await gateway.inference.embed("e5", CALL)
    assert await sent() == 1
    assert await sent() == 1
    await gateway.inference.embed("e5", CALL)
    await gateway.registry.edit(endpoint, None, keep_token=False)
    await gateway.registry.update(dedicated(burst=3))
    hands.pipelines = gateway.pipelines()
    await gateway.inference.embed("e5", CALL)
    assert await sent() == 3
    await gateway.inference.embed("e5", CALL)
    hands.pipelines = {}
    assert await sent() == 4
    assert await sent() == 4
    await gateway.close()


async def test_usage_survives_a_restart(store: SqlStore) -> None:
    before = opened(store, Hands())
    called(before)
    await before.flush()
    (row,) = await opened(store, Hands()).report(asked())
    assert row.tally.requests == 1


async def test_rejects_an_unknown_grouping_and_too_many_rows(store: SqlStore) -> None:
    usage = opened(store, Hands())
    with pytest.raises(InvalidRequest, match=r"by \[moon\]"):
        await usage.report(asked("moon"))
    for number in range(MAX_ROWS + 1):
        called(usage, key=str(number))
    with pytest.raises(InvalidRequest, match="more than 10000 rows"):
        await usage.report(asked("key"))


async def test_pages_return_every_group_exactly_once(store: SqlStore) -> None:
    hands = Hands()
    usage = opened(store, hands)
    with pytest.raises(InvalidRequest, match=r"by \[moon\]"):
        await usage.pages(asked("moon"))
    groups = [(f"e{n % 7}", f"k{n}") for n in range(2 * PAGE_ROWS)]
    for hour in (0, 1):
        hands.now = NOON + hour * 3600
        for endpoint, key in groups:
            called(usage, endpoint, key, "ok" if hour else "overloaded")
    told, sizes = [], []
    async for page in await usage.pages(asked("endpoint", "day", "key")):
        sizes.append(len(page))
        told += [(row.group[0], row.group[2], row.tally.requests) for row in page]
        called(usage, *groups[0])
        await usage.flush()  # what is counted meanwhile moves no page
    assert sizes == [PAGE_ROWS, PAGE_ROWS, 0]
    assert told == [(*group, 2) for group in sorted(groups)]
    causes = [row.group async for page in await usage.pages(asked("cause", "key")) for row in page]
    assert causes == [("overloaded", key) for key in sorted(key for _, key in groups)]
    (whole,) = [row async for page in await usage.pages(asked()) for row in page]
    assert whole.tally.requests == 4 * PAGE_ROWS + len(sizes)


def latency_of(*seconds: float) -> Latency:
    latency = Latency()
    for one in seconds:
        latency.observe(one)
    return latency


class TestPercentile:
    def test_percentile_of_no_calls_is_none(self) -> None:
        assert Latency().percentile(0.5) is None

    def test_percentile_of_one_call_is_its_duration(self) -> None:
        assert [latency_of(2.65).percentile(share) for share in (0.5, 0.95, 0.99)] == [2.65] * 3

    def test_percentile_over_the_last_bound_is_the_maximum(self) -> None:
        assert latency_of(*[LATENCY_BOUNDS[-1] * 2] * 9).percentile(0.5) == LATENCY_BOUNDS[-1] * 2

    @given(st.lists(st.floats(0, 2000), min_size=1, max_size=50), st.sampled_from([50, 90, 95, 99]))
    def test_percentile_is_close_to_exact_and_never_above_the_maximum(
        self, seconds: list[float], share: int
    ) -> None:
        told = latency_of(*seconds).percentile(share / 100)
        ordered = sorted(seconds)
        true = ordered[max(0, -(-len(ordered) * share // 100) - 1)]
        bounds = (0.0, *LATENCY_BOUNDS, max(seconds))
        place = sum(bound < true for bound in LATENCY_BOUNDS)
        assert told is not None
        assert bounds[place] <= told <= bounds[place + 1] or told in {ordered[0], ordered[-1]}
        assert ordered[0] <= told <= ordered[-1]

    @given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
    def test_adding_two_latencies_equals_counting_them_as_one(
        self, some: list[float], others: list[float]
    ) -> None:
        both = latency_of(*some)
        both.add(latency_of(*others))
        assert both == latency_of(*some, *others)
