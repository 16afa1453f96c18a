"""When requests reach a server, in made-up time, and how many of them any minute holds."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from virtual_time import now

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from hubgate.core.traffic.rate_limiter import Permit

NETWORK_SECONDS = 0.25
"""One way, at most."""
READING_SECONDS = 0.5
"""For which a request waits at a server that runs, at most."""


def most_in_a_minute(arrivals: Sequence[float]) -> int:
    """The largest number of arrivals in any 60 seconds."""
    times = sorted(arrivals)
    return max((bisect_left(times, start + 60.0) - index for index, start in enumerate(times)), default=0)


@dataclass
class SlowServer:
    """Reads requests a while after they were sent, answers when it likes, and stands still at times."""

    chance: Random
    slowest: float = 0.0
    """Seconds until it answers, at most."""
    stops: Sequence[tuple[float, float]] = ()
    """From when until when it stands still."""
    arrivals: list[float] = field(default_factory=list)
    """When each request was read."""

    async def answer(self, permit: Permit) -> None:
        """Send a request as the HTTP client does; returns when its reply has begun. Cancelling it takes nothing back."""
        while not permit.leave():
            await permit.renew()
        sent = now()
        came = self._running(sent + self._up_to(NETWORK_SECONDS))
        read = self._running(came + self._up_to(READING_SECONDS))
        asyncio.get_running_loop().call_at(read, lambda: self.arrivals.append(now()))
        replied = self._running(read + self._up_to(self.slowest))
        await asyncio.sleep(replied + self._up_to(NETWORK_SECONDS) - sent)
        permit.answered()

    def _up_to(self, most: float) -> float:
        return self.chance.choice([0.0, self.chance.random(), 1.0]) * most

    def _running(self, time: float) -> float:
        """The first moment from then on at which it runs."""
        return next((end for start, end in self.stops if start <= time < end), time)
