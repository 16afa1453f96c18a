"""Values that all gateways of a database see. Nothing waits long for them, and nothing fails without them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hubgate.domain.errors import StoreFailed
from hubgate.store.cluster.expiring_values import SqlExpiringValues

_SECONDS = 1.0
"""Timeout."""
_MAX_COUNTING = 16
"""Events that are counted at once: wrong keys of strangers must not keep the database from its other work."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class SharedValues:
    """Values with an expiry. There are none without a shared database, and while it cannot be used.

    Args:
        store: where they are; `None` if this gateway is the only one.
    """

    def __init__(self, store: SqlExpiringValues | None = None) -> None:
        self._store = store
        self._counting = 0
        self._failing = False

    @property
    def are_shared(self) -> bool:
        return self._store is not None

    async def get(self, name: str) -> str | None:
        return await self._ask(lambda store: store.get(name), None)

    async def put(self, name: str, value: str, seconds: float) -> None:
        await self._ask(lambda store: store.put(name, value, seconds), None)

    async def count(self, name: str, seconds: float) -> tuple[int, float]:
        """Count an event. Returns how many there were in a period that the first one starts, and its seconds left."""
        if self._counting >= _MAX_COUNTING:
            return 0, 0.0
        self._counting += 1
        try:
            return await self._ask(lambda store: store.count(name, seconds), (0, 0.0))
        finally:
            self._counting -= 1

    async def _ask(self, ask: Callable[[SqlExpiringValues], Awaitable[_T]], otherwise: _T) -> _T:
        if self._store is None:
            return otherwise
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await ask(self._store)
        except (StoreFailed, TimeoutError) as error:
            if not self._failing:
                reason = error if isinstance(error, StoreFailed) else "the database is busy"
                _log.warning("sign-outs, wrong keys and tests of models are not shared for now: %s", reason)
            self._failing = True
            return otherwise
        self._failing = False
        return answer
