"""Requests of a queue that wait for their next try. They have no place meanwhile, and then take turns with new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from hubgate.core.queue.fair_queue import HasRoom
from hubgate.core.traffic.permits import Permit


def _new_permit() -> asyncio.Future[Permit]:
    return asyncio.get_running_loop().create_future()


class NextTry(msgspec.Struct, eq=False, kw_only=True):
    """The next try of one request."""

    caller: str = "-"
    calls: int = 1
    """How many calls share the request."""
    texts: int = 1
    """How many it carries."""
    tokens: int
    weight: int = 0
    """Of its texts, in bytes."""
    permit: asyncio.Future[Permit] = msgspec.field(default_factory=_new_permit)

    @property
    def granted(self) -> bool:
        return self.permit.done() and not self.permit.cancelled()


class NextTries:
    """The next tries of the requests of one queue.

    Args:
        start_next: called when there may be something to send: a request has left its place, or its next try is due.
    """

    def __init__(self, start_next: Callable[[], None]) -> None:
        self._start_next = start_next
        self._due: dict[NextTry, None] = {}
        self._was_last = False
        """Whether the last permit was for one of them."""
        self.requests = self.calls = self.weight = 0
        """Of all that wait, due or not."""

    @property
    def due(self) -> int:
        """How many wait for a permit."""
        return len(self._due)

    async def wait(self, seconds: float, one: NextTry) -> Permit:
        """Wait until a try is due, and then for its permit: see `grant`."""
        self._count(one, 1)
        try:
            self._start_next()
            await asyncio.sleep(seconds)
            self._due[one] = None
            self._start_next()
            return await one.permit
        finally:
            if not one.granted:
                self._due.pop(one, None)
                self._count(one, -1)

    def whose_turn(self, *, others: bool, has_room: HasRoom | None = None) -> NextTry | None:
        """The try that gets the next permit, if that is not for `others`."""
        if others and self._was_last:
            return None
        waiting = (one for one in self._due if not one.permit.done())
        return next((one for one in waiting if has_room is None or has_room(one.caller)), None)

    def grant(self, one: NextTry, permit: Permit) -> bool:
        """Give a permit to a try, if it still waits."""
        if one.permit.done():
            return False
        self._was_last = True
        del self._due[one]
        self._count(one, -1)
        one.permit.set_result(permit)
        return True

    def passed(self) -> None:
        """Note that a new request got a permit."""
        self._was_last = False

    def _count(self, one: NextTry, sign: int) -> None:
        self.requests += sign
        self.calls += sign * one.calls
        self.weight += sign * one.weight
