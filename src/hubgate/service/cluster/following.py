"""Follows the change feed: puts into memory what is stored, whichever gateway changed it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import StoreFailed
from hubgate.domain.records import Kind, News
from hubgate.service.gateway import Gateway
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.store.cluster.feed import SqlFeed

POLL_SECONDS = 0.5
"""A notification comes sooner, but may be lost, and a pooler may not pass it on."""

_log = logging.getLogger(__name__)


Follow: TypeAlias = tuple[Kind, Callable[[], Awaitable[None]]]
"""What is called after the changes of a kind at other gateways."""


class Applier:
    """Puts what is stored into memory. Applying a change again, or one that was made here, has no effect.

    Keys come first, so that nothing delays a revocation.
    """

    def __init__(
        self,
        access: Access,
        gateway: Gateway,
        memory: VectorMemory | None,
        share_tokenizers: Callable[[Iterable[Endpoint]], Awaitable[None]],
        follows: Sequence[Follow],
    ) -> None:
        self._access = access
        self._gateway = gateway
        self._memory = memory
        self._share_tokenizers = share_tokenizers
        self._follows = follows
        self.rounds = access.rounds

    async def apply(self, news: News) -> None:
        """Raises: StoreFailed: the database cannot be used; apply the news again."""
        if news.lines is None:
            await self._apply_everything()
            return
        kinds = {line.kind for line in news.lines}
        names = list(dict.fromkeys(line.name for line in news.lines if line.kind == Kind.ENDPOINT))
        if Kind.KEY in kinds:
            await self._access.follow()
        if Kind.CONNECTION in kinds:
            await self._gateway.connections.follow()
        if names:
            await self._gateway.stored.follow(names, before=self._share_tokenizers)
        for kind, follow in self._follows:  # after the endpoints
            if kind in kinds:
                await follow()
        if Kind.CACHE in kinds:
            await self._clear_cache()

    async def _apply_everything(self) -> None:
        await self._access.follow()
        await self._gateway.connections.follow()
        await self._gateway.stored.follow(before=self._share_tokenizers)
        for _, follow in self._follows:
            await follow()

    async def _clear_cache(self) -> None:
        if self._memory is not None:
            try:
                await self._memory.clear()
            except StoreFailed as error:  # of the cache's own file
                _log.error("the vector cache could not be cleared: %s", error)


class Follower:
    """Reads the feed twice a second, and at once when the database notifies.

    Args:
        feed: the change feed.
        applier: puts changes into memory.
        version: the version that memory agrees with now.
        followed: called after each reading.
    """

    def __init__(
        self, feed: SqlFeed, applier: Applier, version: int, followed: Callable[[], Awaitable[None]]
    ) -> None:
        self._feed = feed
        self._applier = applier
        self._followed = followed
        self.version = version
        """The newest version that is in memory."""
        self._followed_at = time.monotonic()
        self._wake = asyncio.Event()
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        self._rounds = applier.rounds
        feed.follow(self.wake)

    @property
    def stale_seconds(self) -> float:
        """Seconds since the feed was last read."""
        return time.monotonic() - self._followed_at

    def wake(self) -> None:
        """Read the feed now."""
        self._wake.set()

    async def catch_up(self) -> None:
        """Apply what is new.

        Raises:
            StoreFailed: the database cannot be used.
        """
        started = time.monotonic()
        news = await self._feed.news(self.version)
        if news is not None:
            await self._applier.apply(news)
            self.version = news.version
            self._rounds.news += 1
        self._followed_at = started
        await self._followed()

    def start(self) -> None:
        """Follow in the background until `close`."""
        self._rounds.wake = self.wake
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            end = self._rounds.begin()
            try:
                await self.catch_up()
            except StoreFailed as error:
                if not self._failing:
                    _log.warning("changes of other gateways are not known here: %s", error)
                self._failing = True
            except Exception:  # noqa: BLE001 - tried again: to skip a change could mean to accept a revoked key
                if not self._failing:
                    _log.exception("changes of other gateways cannot be applied")
                self._failing = True
            else:
                if self._failing:
                    _log.info("changes of other gateways are known again")
                self._failing = False
            end(not self._failing)
