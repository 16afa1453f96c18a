"""Whether a gateway may ask for slots, must wait, or goes on by itself, because the server of the slots is away."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum, auto

from hubgate.domain.ports import Clock

SILENT = 3.0
"""Seconds without a beat after which the server keeps a gateway's share free."""
DEAD = 30.0
"""Seconds without a beat after which the server gives the share to the others."""
_TOO_LATE = 1.0
"""Seconds after which a beat that is still on its way does not count."""
_AHEAD = 0.5
"""More than the server's slots are ahead of time, and than a beat takes to be sent."""
_SET = 0.02
"""Seconds by which a clock that was set differs from one that was not."""


class Mode(Enum):
    SHARED = auto()
    """Slots come from the server."""
    WAITING = auto()
    """Nothing may be sent: the server may still think that this gateway takes its slots there."""
    ALONE = auto()
    """The gateway spends its own share of each rate limit; the server keeps that share free."""


class Contact:
    """Follows the beats of this gateway.

    A beat that was sent at `s` counts until s + 1 s, and then for 3 s. So a gateway that has sent its last beat at `s`
    is silent for the server from s + 4 s on, whether the beat has arrived or not. Only then it may go on alone.
    After 30 s without contact the server gives its share to the others, if it is there for them. A gateway cannot know
    that. Either it goes on: right if the server is away for all, too much by its share if only this gateway is cut off.
    Or it waits.

    Args:
        clock: seconds that never go back.
        shares: whether the gateway goes on alone after 30 s.
    """

    def __init__(self, clock: Clock, *, shares: bool) -> None:
        self._clock = clock
        self.shares = shares
        self._lost = True
        self._beat_at = -math.inf
        self._heard_at = self._returned_at = -math.inf
        self._counts: deque[tuple[float, int]] = deque()
        """The gateways that the server knew of, and when it said so."""

    @property
    def gateways(self) -> int:
        """The most that the server knew of within the last half minute of contact; 0 before the first."""
        return max((count for _, count in self._counts), default=0)

    @property
    def was_away(self) -> bool:
        """Whether there was no contact at some time in the last half minute."""
        return self._lost or self._clock() < self._returned_at + DEAD

    @property
    def mode(self) -> Mode:
        if not self._lost:
            return Mode.SHARED
        now = self._clock()
        if not self._counts or now < self.alone_at or (not self.shares and now >= self._heard_at + DEAD):
            return Mode.WAITING
        return Mode.ALONE

    @property
    def alone_at(self) -> float:
        """When it may go on alone, if it hears nothing."""
        return self._beat_at + _TOO_LATE + SILENT + _AHEAD

    def beat_sent(self) -> None:
        """Note a beat that counts, before it is sent. It must not be sent unless the mode is `SHARED`."""
        self._beat_at = self._clock()

    def heard(self, gateways: int) -> None:
        """Note an answer."""
        now = self._clock()
        if self._lost:
            self._returned_at = now
            if self._counts:  # the server may hear of the others later than of this one
                self._counts = deque([(now, self.gateways)])
        self._lost, self._heard_at = False, now
        self._counts.append((now, gateways))
        while self._counts[0][0] < now - DEAD:
            self._counts.popleft()

    def failed(self) -> None:
        """Note that an answer did not come in time."""
        self._lost = True


class ServerClock:
    """The clock of the server, from what it said last."""

    def __init__(self) -> None:
        self._asked = self._heard = self._time = math.nan

    def earliest(self, now: float) -> float | None:
        """The server's time now, or a little less; `None` before the first answer."""
        return None if math.isnan(self._time) else self._time + now - self._heard

    def heard(self, asked: float, heard: float, time: float) -> bool:
        """Note an answer to a question; returns whether the server's clock has run on since the one before."""
        elapsed = time - self._time
        is_same = math.isnan(elapsed) or (asked - self._heard - _SET <= elapsed <= heard - self._asked + _SET)
        self._asked, self._heard, self._time = asked, heard, time
        return is_same
