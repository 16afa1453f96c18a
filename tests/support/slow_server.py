"""A slow server in virtual time that records when requests arrive, and the maximum per minute."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from virtual_time import now

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from hubgate.core.traffic.permits import Permit

MAX_NETWORK_SECONDS = 0.25  # one way
MAX_QUEUE_SECONDS = 0.5  # between arriving at the server and being read


def max_per_minute(arrivals: Sequence[float]) -> int:
    """The largest number of arrivals in any 60 seconds."""
    times = sorted(arrivals)
    return max((bisect_left(times, start + 60.0) - index for index, start in enumerate(times)), default=0)


@dataclass
class SlowServer:
    """Reads requests some time after they were sent, replies after a random delay, and pauses during `stops`."""

    chance: Random
    slowest: float = 0.0
    """The longest reply time in seconds."""
    stops: Sequence[tuple[float, float]] = ()
    """(start, end) of each pause."""
    arrivals: list[float] = field(default_factory=list)
    """When each request was read."""

    async def answer(self, permit: Permit) -> None:
        """Send a request as the HTTP client does, and return when its reply begins. A sent request cannot be cancelled."""
        while not permit.try_send():
            await permit.renew()
        sent = now()
        arrived = self._next_running(sent + self._up_to(MAX_NETWORK_SECONDS))
        read = self._next_running(arrived + self._up_to(MAX_QUEUE_SECONDS))
        asyncio.get_running_loop().call_at(read, lambda: self.arrivals.append(now()))
        replied = self._next_running(read + self._up_to(self.slowest))
        await asyncio.sleep(replied + self._up_to(MAX_NETWORK_SECONDS) - sent)
        permit.reply_started()

    def _up_to(self, seconds: float) -> float:
        return self.chance.choice([0.0, self.chance.random(), 1.0]) * seconds

    def _next_running(self, time: float) -> float:
        """The first moment at or after `time` outside every pause."""
        return next((end for start, end in self.stops if start <= time < end), time)
