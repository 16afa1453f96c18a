"""Who waits for a turn: calls in line, whose callers take turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from hubgate.core.traffic.rate_limiter import Permit
from hubgate.domain.calls import Context


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that wants a turn."""

    context: Context
    tokens: int
    """Of its request."""
    permit: asyncio.Future[Permit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Line:
    """The calls of one class that wait; its callers take turns."""

    def __init__(self) -> None:
        self._callers: dict[str, deque[Waiter]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Waiter]:
        return chain.from_iterable(self._callers.values())

    def any(self, has_room: Callable[[str], bool]) -> bool:
        """Whether anybody waits for whom there is room."""
        return any(map(has_room, self._callers))

    def first(self, has_room: Callable[[str], bool]) -> Waiter:
        """The first call of the first caller for whom there is room."""
        return next(waiters[0] for caller, waiters in self._callers.items() if has_room(caller))

    def ahead(self, caller: str, has_room: Callable[[str], bool]) -> int:
        """How many will have had a turn before a newcomer of this caller has one, at the least."""
        own = len(self._callers.get(caller, ()))
        others = (
            len(waiters) for name, waiters in self._callers.items() if name != caller and has_room(name)
        )
        return own + sum(min(waiting, max(own, 1)) for waiting in others)

    def add(self, waiter: Waiter) -> None:
        """Let a call wait."""
        self._callers.setdefault(waiter.context.caller, deque()).append(waiter)
        self._size += 1

    def pass_on(self, waiter: Waiter) -> None:
        """Take out the first call of a caller, who goes to the end."""
        name = waiter.context.caller
        waiters = self._callers.pop(name)
        waiters.popleft()
        if waiters:
            self._callers[name] = waiters
        self._size -= 1

    def remove(self, waiter: Waiter) -> None:
        """Take out a call that leaves."""
        waiters = self._callers[waiter.context.caller]
        waiters.remove(waiter)
        if not waiters:
            del self._callers[waiter.context.caller]
        self._size -= 1
