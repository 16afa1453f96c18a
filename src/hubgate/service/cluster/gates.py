"""The gateways of a shared database: who runs, and who follows which change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from hubgate.domain.errors import StoreFailed
from hubgate.domain.ports import Feed
from hubgate.domain.records import Gate

SILENT_SECONDS = 3.0
WAIT_SECONDS = 1.0
"""How long a change waits until all gateways follow it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.05

_log = logging.getLogger(__name__)


class Gates:
    """What all gateways have reported."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.wake: Callable[[], None] = lambda: None
        """Called when a change was made here."""
        self._reading: asyncio.Task[Sequence[Gate]] | None = None

    async def all(self) -> Sequence[Gate]:
        """Raises: StoreFailed: the database cannot be used."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(self._reading)

    async def newest(self) -> int:
        """The version of the newest change. Raises: StoreFailed: the database cannot be used."""
        return await self._feed.version()

    def is_silent(self, gate: Gate) -> bool:
        """Whether changes no longer wait for a gateway, because it was not heard of for too long."""
        return gate.silent >= SILENT_SECONDS

    async def behind(self, version: int) -> Sequence[str]:
        """Wait until all gateways that run follow a change; returns the names of those that do not after a second."""
        self.wake()
        names: Sequence[str] = ["unknown"]
        pause = _FIRST_PAUSE
        with contextlib.suppress(TimeoutError, StoreFailed):
            async with asyncio.timeout(WAIT_SECONDS):
                while names:
                    names = [
                        gate.name
                        for gate in await self.all()
                        if not self.is_silent(gate) and gate.version < version
                    ]
                    if names:
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, _LONGEST_PAUSE)
        if names:
            _log.warning("change %d is answered, but not yet followed by %s", version, ", ".join(names))
        return names

    async def _read(self) -> Sequence[Gate]:
        return await self._feed.gates()
