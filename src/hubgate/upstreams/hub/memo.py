"""Answers that stay true for minutes, so that nobody is asked twice for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from hubgate.domain.ports import Clock

T = TypeVar("T")


class Remembered(Generic[T]):
    """Keeps up to `most` answers for `seconds` each; failures are not kept."""

    def __init__(self, *, seconds: float, most: int, clock: Clock) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer that is kept under the key, else what `ask` gives."""
        until, answer = self._kept.get(key, (0.0, None))
        if answer is not None and self._clock() < until:
            self._kept.move_to_end(key)
            return answer
        fresh = await ask()
        self._kept[key] = (self._clock() + self._seconds, fresh)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return fresh
