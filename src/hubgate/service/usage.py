"""How much each endpoint is used by each key: counted in memory, written down every few seconds, told by hour and day.

A request costs one look into a dictionary and some additions. What could not be written down is kept and tried again,
so a database that is locked loses nothing; a killed process loses what came since the last time, some seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple

from hubgate.domain.errors import InvalidRequest, StoreFailed
from hubgate.domain.records import HOUR, Slot, Tally, UsageQuery, UsageRow, UsageStore
from hubgate.service.inference.pipeline import Pipeline

GROUPS = ("endpoint", "key", "day", "hour", "cause")
MOST_ROWS = 10_000
"""In one answer that is held whole."""
PAGE_ROWS = 2_000
"""Read at a time for one that is not."""
CANCELLED = "client_left"
"""The cause of a request whose caller disconnected before the answer was complete. It is not a failure."""


class _Reading(NamedTuple):
    """What a pipeline had counted by the last look at it."""

    pipeline: Pipeline
    counts: tuple[int, int, int, int]


class Usage:
    """Counts calls, and answers for them. Used on one event loop.

    Args:
        store: where the counts go.
        pipelines: of the endpoints by name; their own counters are read when counts are written down.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: UsageStore,
        pipelines: Callable[[], Mapping[str, Pipeline]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._pipelines = pipelines
        self._clock = clock
        self._tallies: dict[tuple[int, str, str], Tally] = {}
        self._readings: dict[str, _Reading] = {}
        self._rolled = 0
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
        """Count one call that is over.

        Args:
            endpoint: that was called; empty if none was reached.
            key: the id of the key that called; empty if none was good.
            cause: `ok`, `client_left` if the caller cancelled it, or why it failed.
            bulk: whether it waited behind interactive calls.
            seconds: that it took.
            texts: that were answered.
            prompt_tokens: that the model read, where that is known.
            completion_tokens: that it wrote.
            waited: seconds in the gate's queue.
        """
        slot = (int(self._clock()) // HOUR, endpoint, key)
        tally = self._tallies.get(slot)
        if tally is None:
            tally = self._tallies[slot] = Tally()
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
        """Write down what was counted; to its end, although who asked for it may leave.

        Raises:
            StoreFailed: the database cannot be used; the counts are kept.
        """
        await asyncio.shield(asyncio.ensure_future(self._flush()))

    async def _flush(self) -> None:
        async with self._writing:
            self._read_pipelines()
            taken, self._tallies = self._tallies, {}
            hour = int(self._clock()) // HOUR
            try:
                if taken:
                    await self._store.add(
                        {Slot(at * HOUR, *who): tally for (at, *who), tally in taken.items()}
                    )
                    taken = {}
                if hour != self._rolled:
                    await self._store.roll(self._clock())
                    self._rolled = hour
            except StoreFailed:
                self._keep(taken)
                raise

    async def report(self, question: UsageQuery) -> Sequence[UsageRow]:
        """The use up to this moment, grouped as asked.

        Raises:
            InvalidRequest: it cannot be grouped so, or makes too many rows.
            StoreFailed: the database cannot be used.
        """
        await self._up_to_date(question)
        rows = await self._store.read(question, MOST_ROWS + 1)
        if len(rows) > MOST_ROWS:
            raise InvalidRequest(
                f"This makes more than {MOST_ROWS} rows.",
                remedy="Ask for CSV, which has no bound, for less time, or group by less.",
            )
        return rows

    async def pages(self, question: UsageQuery) -> AsyncIterator[Sequence[UsageRow]]:
        """The use up to this moment, grouped as asked, page by page; the first is read before this returns.

        Raises:
            InvalidRequest: it cannot be grouped so.
            StoreFailed: the database cannot be used. Further pages raise it, too.
        """
        await self._up_to_date(question)
        return self._pages(question, await self._store.read(question, PAGE_ROWS))

    async def _pages(
        self, question: UsageQuery, page: Sequence[UsageRow]
    ) -> AsyncIterator[Sequence[UsageRow]]:
        yield page
        while len(page) == PAGE_ROWS:
            page = await self._store.read(question, PAGE_ROWS, page[-1].group)
            yield page

    async def _up_to_date(self, question: UsageQuery) -> None:
        if unknown := [word for word in question.by if word not in GROUPS]:
            raise InvalidRequest(
                f"Use cannot be told by [{unknown[0][:40]}].", remedy=f"Use some of {', '.join(GROUPS)}."
            )
        await self.flush()

    def _keep(self, tallies: Mapping[tuple[int, str, str], Tally]) -> None:
        """Put back what could not be written down."""
        for slot, tally in tallies.items():
            newer = self._tallies.get(slot)
            if newer is not None:
                tally.add(newer)
            self._tallies[slot] = tally

    def _read_pipelines(self) -> None:
        """Take what caches and queues have counted since the last time; a new pipeline counts from nothing."""
        live = self._pipelines()
        hour = int(self._clock()) // HOUR
        for name in {*live, *self._readings}:
            before, pipeline = self._readings.get(name), live.get(name)
            if before is not None:
                self._take(hour, name, _counts(before.pipeline), before.counts)
            if pipeline is None:
                del self._readings[name]
                continue
            counts = _counts(pipeline)
            if before is None or before.pipeline is not pipeline:
                self._take(hour, name, counts, (0, 0, 0, 0))
            self._readings[name] = _Reading(pipeline, counts)

    def _take(
        self, hour: int, name: str, now: tuple[int, int, int, int], before: tuple[int, int, int, int]
    ) -> None:
        if now != before:
            tally = self._tallies.setdefault((hour, name, ""), Tally())
            hits, misses, asked, saved = (new - old for new, old in zip(now, before, strict=True))
            tally.cache_hits += hits
            tally.cache_misses += misses
            tally.upstream_requests += asked
            tally.saved_requests += saved


def _counts(pipeline: Pipeline) -> tuple[int, int, int, int]:
    queue, cached = pipeline.queue, pipeline.cached
    return (
        cached.hits if cached else 0,
        cached.misses if cached else 0,
        queue.requests if queue else 0,
        queue.shared if queue else 0,
    )
