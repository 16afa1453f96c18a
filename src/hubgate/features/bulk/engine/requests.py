"""Embeds the rows of an input, shard by shard, with several requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.manifest import Record
from hubgate.features.bulk.engine.retries import EmbeddedRows, RetryingEmbedder
from hubgate.features.bulk.engine.rows import Embedded, JobStopped, Layout, Shard, Source
from hubgate.features.bulk.engine.shards import cut_shards
from hubgate.features.bulk.formats.inputs import unusable_input


@dataclass(slots=True, kw_only=True)
class ShardRequests:
    """Cuts an input into shards, embeds those that are not done, and hands over the results.

    Args:
        is_done: whether a shard needs no request; called for each shard in order.
        keep: stores a shard that was embedded. Its record has no `part` yet.
        reader: the thread that reads the input.
    """

    source: Source
    layout: Layout
    embedder: RetryingEmbedder
    rows_per_request: int
    concurrency: int
    is_done: Callable[[Shard], bool]
    keep: Callable[[Record, Embedded], Awaitable[None]]
    reader: ThreadPoolExecutor
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)

    async def run(self) -> int:
        """Embed all shards; returns how many there are.

        Raises:
            JobStopped: the job cannot continue.
        """
        try:
            return await self._run()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _run(self) -> int:
        count = 0
        shards = cut_shards(self.source.rows(), self.rows_per_request)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as requests:
            while (shard := await loop.run_in_executor(self.reader, partial(self._next, shards))) is not None:
                count += 1
                if not self.is_done(shard):
                    await self._slots.acquire()
                    requests.create_task(self._embed(shard))
        return count

    def _next(self, shards: Iterator[Shard]) -> Shard | None:
        try:
            shard = next(shards, None)
        except OSError as error:
            raise unusable_input(f"The input cannot be read: {error.strerror or error}.") from error
        self.source.check()  # after reading, so that what is sent is what the file holds
        return shard

    async def _embed(self, shard: Shard) -> None:
        try:
            result = await self.embedder(shard.rows)
            self._check_vectors(result)
            await self.keep(_record(shard, result), result.embedded)
        finally:
            self._slots.release()

    def _check_vectors(self, result: EmbeddedRows) -> None:
        size, expected = self.layout.number_bytes, self.layout.length
        for length in {len(piece.vector) for piece in result.embedded.pieces} - {expected * size}:
            raise JobStopped(
                f"The endpoint returned a vector of {length // size} numbers instead of {expected}.",
                remedy="The model behind it has changed: `hubgate check` shows details.",
                cause=Cause.DIMENSIONS_CHANGED,
            )


def _record(shard: Shard, result: EmbeddedRows) -> Record:
    unread = [piece.tokens_unread for piece in result.embedded.pieces]
    known = [tokens for tokens in unread if tokens is not None]
    return Record(
        shard=shard.number,
        digest=shard.digest,
        rows=shard.size,
        pieces=len(result.embedded.pieces),
        tokens=result.tokens,
        exact=result.exact,
        part=None,
        failed=[*shard.failed, *result.failed],
        truncated=sum(map(bool, known)) if len(known) == len(unread) else None,
        unread=sum(known),
    )
