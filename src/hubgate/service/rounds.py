"""Rounds of following: each reads once what other gateways have changed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

STALE_SECONDS = 2.0
"""After that long without a round, calls wait for one: a key may have been revoked elsewhere."""
_WAIT_SECONDS = 1.0


class Rounds:
    """Lets calls wait for a round, which somebody else runs. All who wait share one. Used on one event loop.

    While the database fails or is slow, nobody waits: after a round that failed, or for which somebody waited in vain,
    until one succeeds within a second.
    """

    def __init__(self) -> None:
        self.wake: Callable[[], None] | None = None
        """Asks for a round; `None` if nobody else changes anything."""
        self.stale_at = math.inf
        """From then on, in seconds of the monotonic clock, memory is too old to be relied on."""
        self.news = 0
        """How many rounds have changed what is in memory."""
        self._asked: asyncio.Future[None] | None = None
        self._unavailable = False

    async def next(self) -> None:
        """Wait for a round that has not begun yet, for a second at most."""
        if self.wake is None or self._unavailable:
            return
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        self.wake()
        done, _ = await asyncio.wait([self._asked], timeout=_WAIT_SECONDS)
        if not done:
            self._unavailable = True

    def begin(self) -> Callable[[bool], None]:
        """A round begins. Call what is returned when it ends, with whether it succeeded."""
        began = time.monotonic()
        asked, self._asked = self._asked, None

        def end(succeeded: bool) -> None:
            if succeeded:
                self.stale_at = began + STALE_SECONDS
            if not succeeded or time.monotonic() - began < _WAIT_SECONDS:
                self._unavailable = not succeeded
            if asked is not None:
                asked.set_result(None)

        return end
