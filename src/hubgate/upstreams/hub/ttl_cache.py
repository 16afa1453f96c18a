"""A small cache whose entries expire."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from hubgate.domain.ports import Clock

T = TypeVar("T")


class TtlCache(Generic[T]):
    """Keeps up to `max_entries` results for `seconds` each. Failures are not cached."""

    def __init__(self, *, seconds: float, max_entries: int, clock: Clock) -> None:
        self._seconds = seconds
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    async def get(self, key: Hashable, fetch: Callable[[], Awaitable[T]]) -> T:
        """The cached result, or else the result of `fetch`."""
        until, cached = self._entries.get(key, (0.0, None))
        if cached is not None and self._clock() < until:
            self._entries.move_to_end(key)
            return cached
        fresh = await fetch()
        self._entries[key] = (self._clock() + self._seconds, fresh)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return fresh
