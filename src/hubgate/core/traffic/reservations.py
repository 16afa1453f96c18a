"""Permits are written down before they are granted, so that the next process knows what this one may have sent.

A rate limiter reserves a twentieth of its minute at a time, before it is needed. So little is written, no call waits
for it (except the first after ten idle minutes, for a millisecond), and a crash costs at most the unused part.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from hubgate.domain.ports import Clock

_RESERVATIONS_PER_MINUTE = 20
_VALID_SECONDS = 600.0


class Reservation:
    """The permits of one rate limiter that are written down.

    Args:
        requests_per_minute: of the rate limiter.
        spent: what a former process wrote down, as returned by `record`.
        save: writes down the `record`s of all reservations; it does not fail.
        clock: seconds that never go back.
        permit_seconds: for which a permit counts at most.
    """

    def __init__(
        self,
        requests_per_minute: int,
        spent: Iterable[tuple[float, int]],
        save: Callable[[], Awaitable[None]],
        clock: Clock,
        *,
        permit_seconds: float,
    ) -> None:
        self.set_rate(requests_per_minute)
        self._spent = deque(sorted(spent))
        self._save = save
        self._clock = clock
        self._permit_seconds = permit_seconds
        self._granted = 0
        """Permits granted since the last were added to `_spent`."""
        self._left = 0
        """Written down and not granted yet."""
        self._pending = 0
        """Being written down."""
        self._valid_until = self._pending_until = -math.inf
        self.usable_until = -math.inf
        """Until when a permit may be granted. If that has passed, call `request`."""
        self._saving: asyncio.Task[None] | None = None
        self._on_ready: Callable[[], None] | None = None

    def set_rate(self, requests_per_minute: int) -> None:
        """Reserve as much as suits another rate from now on."""
        self._size = max(1, requests_per_minute // _RESERVATIONS_PER_MINUTE)

    def request(self, on_ready: Callable[[], None]) -> None:
        """Call back as soon as a permit may be granted."""
        self._on_ready = on_ready
        self._refill()

    def spend(self) -> None:
        """Count a granted permit."""
        self._granted += 1
        self._left -= 1
        if not self._left:
            self.usable_until = -math.inf
        if self._left * 2 <= self._size:
            self._refill()

    def spent(self) -> Sequence[tuple[float, int]]:
        """The permits that were granted: until when they count at the latest, and how many."""
        now = self._clock()
        if self._granted:
            self._spent.append((now + self._permit_seconds, self._granted))
            self._granted = 0
        while self._spent and self._spent[0][0] <= now:
            self._spent.popleft()
        return list(self._spent)

    def record(self) -> Sequence[tuple[float, int]]:
        """What to write down: `spent`, and what may still be granted."""
        open_ = self._granted + self._left + self._pending
        until = max(self._valid_until, self._pending_until) + self._permit_seconds
        return [*self._spent, (until, open_)] if open_ else list(self._spent)

    async def close(self) -> None:
        """Drop what was not granted, so that it need not count."""
        if self._saving is not None:
            await self._saving
        self._left, self.usable_until = 0, -math.inf
        self.spent()

    def _refill(self) -> None:
        if self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.create_task(self._write_down(), context=contextvars.Context())

    async def _write_down(self) -> None:
        now = self._clock()
        if now >= self._valid_until:
            self._left = 0
        self.spent()
        self._pending, self._pending_until = self._size, now + _VALID_SECONDS
        await self._save()
        self._left, self._pending, self._valid_until = self._left + self._pending, 0, self._pending_until
        self.usable_until = self._valid_until
        self._saving = None
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            on_ready()
