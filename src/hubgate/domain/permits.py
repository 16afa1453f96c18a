"""What gateways ask of the server by which they share rate limits. Times are in seconds, of the server's own clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotQuestion:
    """A question for slots: moments at which one request may be sent."""

    key: str
    """Of the rate limit."""
    wanted: int
    """0 only reports what follows from `pause`, `slow_seconds` and `slow_step`."""
    per_window: int
    """Slots in a window, as long as no gateway comes or goes."""
    burst: int
    window: float
    known_gateways: int
    """As the asking gateway remembers, for a server that has lost its memory."""
    unsure: bool = False
    """Whether the server's clock was set, so that nobody knows which slots were given."""
    was_alone: bool = False
    """Whether the asking gateway has sent requests without slots since its last question."""
    pause: float = 0.0
    """Seconds for which the upstream wants no request."""
    slow_seconds: float = 0.0
    slow_step: float = 0.0
    """Seconds between requests that the upstream wants for the next `slow_seconds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAnswer:
    now: float
    first: float
    """The first slot; if none was granted, the first that would be free."""
    granted: int
    step: float
    """Between slots."""
    horizon: float
    """How far ahead a slot may be."""
    gateways: int
    """That were heard of in the last half minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswer:
    now: float
    gateways: int


class Permits(Protocol):
    """The server."""

    async def take(self, question: SlotQuestion) -> SlotAnswer:
        """Raises: StoreFailed: no answer within half a second. The slots may be given nevertheless."""
        ...

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        """Report that a gateway asks this server for its slots.

        Args:
            gateway: its name.
            sent_at: the server's time now, or earlier. One that arrives a second later or more does not count;
                without it, none does, and it only asks for the time.

        Raises:
            StoreFailed: as `take`.
        """
        ...

    async def leave(self, gateway: str) -> None:
        """Report that a gateway stops. Raises: StoreFailed: as `take`."""
        ...
