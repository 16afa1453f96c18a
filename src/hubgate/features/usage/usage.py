"""Usage by endpoint and key: counted in memory, stored every few seconds, reported by hour and day.

A request costs one dictionary lookup and some additions. Counts that could not be stored are kept and retried, so a
locked database loses nothing; a killed process loses the last few seconds. On a full disk, reports include them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from hubgate.core.off_loop import in_slices, outlasting
from hubgate.domain.errors import DiskFull, InvalidRequest
from hubgate.domain.records import CANCELLED, DAY, HOUR, Slot, Tally, UsageQuery, UsageRow
from hubgate.features.usage.store import SqlUsage
from hubgate.service.inference.pipeline import Pipeline

GROUPS = ("endpoint", "key", "day", "hour", "cause")
MAX_ROWS = 10_000
"""In a report that is built in memory."""
PAGE_ROWS = 2_000
"""Rows per page of a streamed report."""

_NO_COUNTS = (0, 0, 0, 0)


_Group = tuple[str | int, ...]
_Read = Callable[..., Awaitable[Sequence[UsageRow]]]
"""`SqlUsage.read`."""


class _Reading(NamedTuple):
    """The counters of a pipeline's cache and queue when they were last read (see `_counts`)."""

    pipeline: Pipeline
    counts: tuple[int, int, int, int]


class Usage:
    """Counts calls and reports them. Used on one event loop.

    Args:
        store: where the counts are stored.
        pipelines: returns the pipelines by endpoint name; their own counters are read at each flush.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: SqlUsage,
        pipelines: Callable[[], Mapping[str, Pipeline]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._pipelines = pipelines
        self._clock = clock
        self._tallies: dict[tuple[int, str, str], Tally] = {}
        """What is not stored yet, by hour since the epoch, endpoint and key id."""
        self._batch: dict[tuple[int, str, str], Tally] = {}
        """What was sent to the store, but may not have arrived; it is sent again as it is."""
        self._batch_number = 0
        self._readings: dict[str, _Reading] = {}
        self._rolled_hour = 0
        """The hour in which old hours were last merged into days."""
        self._writing = asyncio.Lock()

    def count(
        self,
        endpoint: str,
        key: str,
        cause: str,
        *,
        bulk: bool,
        seconds: float,
        texts: int,
        prompt_tokens: int,
        completion_tokens: int,
        waited: float,
    ) -> None:
        """Count a finished call.

        Args:
            endpoint: its name; empty if none was reached.
            key: the id of the caller's key; empty if it was not valid.
            cause: `ok`, `client_left` if the caller disconnected, or the error's cause.
            bulk: whether it was a bulk call.
            seconds: its duration.
            texts: how many texts were processed.
            prompt_tokens: tokens the model read, if known.
            completion_tokens: tokens it generated.
            waited: seconds in the gateway's queue.
        """
        group = (int(self._clock()) // HOUR, endpoint, key)
        tally = self._tallies.get(group)
        if tally is None:
            tally = self._tallies[group] = Tally()
        tally.requests += 1
        if cause == "ok":
            (tally.bulk_latency if bulk else tally.latency).observe(seconds)
        elif cause == CANCELLED:
            tally.cancelled += 1
        else:
            tally.errors += 1
            tally.causes[cause] = tally.causes.get(cause, 0) + 1
        tally.texts += texts
        tally.prompt_tokens += prompt_tokens
        tally.completion_tokens += completion_tokens
        tally.queue_seconds += waited

    async def flush(self) -> None:
        """Store the counts. Completes even if the caller is cancelled.

        Raises:
            StoreFailed: the database cannot be used; the counts are kept.
        """
        await outlasting(asyncio.ensure_future(self._flush()))

    async def _flush(self) -> None:
        async with self._writing:
            await in_slices(self._read_pipelines())
            await self._store_batch()
            self._batch, self._tallies = self._tallies, {}
            self._batch_number += 1
            await self._store_batch()
            hour = int(self._clock()) // HOUR
            if hour != self._rolled_hour:
                await self._store.roll(self._clock())
                self._rolled_hour = hour

    async def _store_batch(self) -> None:
        if self._batch:
            await self._store.add(dict(_slots(self._batch)), self._batch_number)
            self._batch = {}

    async def report(self, query: UsageQuery) -> Sequence[UsageRow]:
        """Report the usage up to now.

        Raises:
            InvalidRequest: a group is unknown, or there are too many rows.
            StoreFailed: the database cannot be used.
        """
        read = await self._prepare(query)
        rows = await read(query, MAX_ROWS + 1)
        if len(rows) > MAX_ROWS:
            raise InvalidRequest(
                f"The report has more than {MAX_ROWS} rows.",
                remedy="Request CSV, which has no limit, or a shorter period, or fewer groups.",
            )
        return rows

    async def pages(self, query: UsageQuery) -> AsyncIterator[Sequence[UsageRow]]:
        """Report the usage up to now page by page. The first page is read before this returns.

        Raises:
            InvalidRequest: a group is unknown.
            StoreFailed: the database cannot be used. Later pages may raise it, too.
        """
        read = await self._prepare(query)
        return self._pages(query, read, await read(query, PAGE_ROWS))

    async def _pages(
        self, query: UsageQuery, read: _Read, page: Sequence[UsageRow]
    ) -> AsyncIterator[Sequence[UsageRow]]:
        yield page
        while len(page) == PAGE_ROWS:
            page = await read(query, PAGE_ROWS, page[-1].group)
            yield page

    async def _prepare(self, query: UsageQuery) -> _Read:
        """Check a query and store the counts; returns how to read the report."""
        if unknown := [group for group in query.by if group not in GROUPS]:
            raise InvalidRequest(
                f"Usage cannot be grouped by [{unknown[0][:40]}].",
                remedy=f"Use any of {', '.join(GROUPS)}.",
            )
        try:
            await self.flush()
        except DiskFull:
            return self._read_with_unstored
        return self._store.read

    async def _read_with_unstored(
        self, query: UsageQuery, limit: int, after: _Group | None = None
    ) -> Sequence[UsageRow]:
        """As the store's `read`, with what is not stored yet. Groups are in the order of SQLite."""
        async with self._writing:  # otherwise counts that are being stored would be missing, or there twice
            groups = {row.group: row.tally for row in await self._store.read(query, limit, after)}
            unstored = (*_slots(self._batch), *_slots(self._tallies))

            def add() -> Iterator[None]:
                for slot, tally in unstored:
                    for group, part in _parts(query, slot, tally):
                        if after is None or group > after:
                            groups.setdefault(group, Tally()).add(part)
                    yield

            await in_slices(add())
        return [UsageRow(group, groups[group]) for group in sorted(groups)[:limit]]

    def _read_pipelines(self) -> Iterator[None]:
        """Add what caches and queues counted since the last reading, an endpoint a step. A new pipeline starts at zero."""
        live = self._pipelines()
        hour = int(self._clock()) // HOUR
        for name in {*live, *self._readings}:
            before, pipeline = self._readings.get(name), live.get(name)
            counts = _NO_COUNTS if pipeline is None else _counts(pipeline)
            if before is not None and before.pipeline is pipeline:
                self._add_difference(hour, name, counts, before.counts)
            else:
                if before is not None:
                    self._add_difference(hour, name, _counts(before.pipeline), before.counts)
                self._add_difference(hour, name, counts, _NO_COUNTS)
            if pipeline is None:
                del self._readings[name]
            else:
                self._readings[name] = _Reading(pipeline, counts)
            yield

    def _add_difference(
        self, hour: int, name: str, now: tuple[int, int, int, int], before: tuple[int, int, int, int]
    ) -> None:
        if now != before:
            tally = self._tallies.setdefault((hour, name, ""), Tally())
            hits, misses, sent, saved = (new - old for new, old in zip(now, before, strict=True))
            tally.cache_hits += hits
            tally.cache_misses += misses
            tally.upstream_requests += sent
            tally.saved_requests += saved


def _slots(tallies: Mapping[tuple[int, str, str], Tally]) -> Iterator[tuple[Slot, Tally]]:
    for (at, *who), tally in tallies.items():
        yield Slot(at * HOUR, *who), tally


def _parts(query: UsageQuery, slot: Slot, tally: Tally) -> Iterator[tuple[_Group, Tally]]:
    """What a tally adds to the groups of a query."""
    if (
        query.start <= slot.at < query.end
        and query.endpoint in (None, slot.endpoint)
        and query.key in (None, slot.key)
    ):
        parts = {"": replace(tally, causes={})}
        if "cause" in query.by:
            parts = {cause: Tally(requests=requests) for cause, requests in tally.causes.items()}
        for cause, part in parts.items():
            values = {**slot._asdict(), "hour": slot.at, "day": slot.at - slot.at % DAY, "cause": cause}
            yield tuple(values[name] for name in query.by), part


def _counts(pipeline: Pipeline) -> tuple[int, int, int, int]:
    """Cache hits, cache misses, requests sent, and requests saved by sharing."""
    queue, cached = pipeline.queue, pipeline.cached
    return (
        cached.hits if cached else 0,
        cached.misses if cached else 0,
        queue.requests if queue else 0,
        queue.shared if queue else 0,
    )
