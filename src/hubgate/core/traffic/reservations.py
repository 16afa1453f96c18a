"""Permits written down before they are granted, so that the next process knows what this one may have sent.

A rate limit reserves a twentieth of its minute at a time, ahead of need: so little is written, nobody waits for it
(but the first call after ten idle minutes, for a millisecond), and a crash costs no more than what was reserved and
not used.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from hubgate.domain.ports import Clock

_STEPS = 20
"""In which a minute's permits are reserved."""
_VALID = 600.0
"""Seconds for which a reserve can be used."""


class Reserve:
    """The permits of one rate limit that are written down.

    Args:
        requests_per_minute: of the rate limit.
        spent: what a former process wrote down, as `record` tells it.
        save: writes down the `record`s of all reserves; it does not fail.
        clock: seconds that never go back.
        counts: seconds for which a permit counts at most.
    """

    def __init__(
        self,
        requests_per_minute: int,
        spent: Iterable[tuple[float, int]],
        save: Callable[[], Awaitable[None]],
        clock: Clock,
        *,
        counts: float,
    ) -> None:
        self._size = max(1, requests_per_minute // _STEPS)
        self._spent = deque(sorted(spent))
        self._save = save
        self._clock = clock
        self._counts = counts
        self._used = 0
        """Granted since the last were added to the spent ones."""
        self._left = 0
        """Written down, and yet to be granted."""
        self._coming = 0
        """Being written down."""
        self._valid_until = self._coming_until = -math.inf
        self._saving: asyncio.Task[None] | None = None
        self._then: Callable[[], None] | None = None

    def ready(self, then: Callable[[], None]) -> bool:
        """Whether a permit may be granted now; if not, `then` is called once one may."""
        if self._left and self._clock() < self._valid_until:
            return True
        self._then = then
        self._fill()
        return False

    def spend(self) -> None:
        """A permit is granted."""
        self._used += 1
        self._left -= 1
        if self._left * 2 <= self._size:
            self._fill()

    def spent(self) -> Sequence[tuple[float, int]]:
        """What was granted: until when it counts at the latest, and how many permits."""
        now = self._clock()
        if self._used:
            self._spent.append((now + self._counts, self._used))
            self._used = 0
        while self._spent and self._spent[0][0] <= now:
            self._spent.popleft()
        return list(self._spent)

    def record(self) -> Sequence[tuple[float, int]]:
        """The same, together with what may be granted yet."""
        open_ = self._used + self._left + self._coming
        until = max(self._valid_until, self._coming_until) + self._counts
        return [*self._spent, (until, open_)] if open_ else list(self._spent)

    async def close(self) -> None:
        """Grant no more: what was not used need not count."""
        if self._saving is not None:
            await self._saving
        self._left = 0
        self.spent()

    def _fill(self) -> None:
        if self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.create_task(self._filled(), context=contextvars.Context())

    async def _filled(self) -> None:
        now = self._clock()
        if now >= self._valid_until:
            self._left = 0
        self.spent()
        self._coming, self._coming_until = self._size, now + _VALID
        await self._save()
        self._left, self._coming, self._valid_until = self._left + self._coming, 0, self._coming_until
        self._saving = None
        then, self._then = self._then, None
        if then is not None:
            then()
