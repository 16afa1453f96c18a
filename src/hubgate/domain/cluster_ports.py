"""What gateways share with each other: the interfaces that the service needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hubgate.domain.records import Exhausted, Key


class KeyMinutes(Protocol):
    """What gateway keys did in the last minute at all gateways. All methods raise `StoreFailed`."""

    async def admit(self, key: Key) -> Exhausted | None:
        """Count a request, unless a limit of the key is exhausted in the last minute."""
        ...

    async def spend(self, key_id: str, tokens: int) -> None:
        """Count the tokens of a finished call."""
        ...

    async def forget(self, key_id: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedNotice:
    """Something that a gateway has found out about a model's server, and that others should know for a while."""

    name: str
    """What it is about."""
    owner: str
    """Who posted it."""
    text: str = ""
    seconds: float
    """For which it holds, from now on."""


class NoticeBoard(Protocol):
    """Notices that all gateways see, by name. All methods raise `StoreFailed`: no answer within half a second."""

    async def read(self) -> Sequence[PostedNotice]:
        """Those that hold."""
        ...

    async def post(self, notice: PostedNotice, *, replace: bool = True) -> float:
        """Post a notice in place of the one of this name.

        Unless it may `replace` one of another owner: then returns the seconds for which that one holds, and 0 if the
        notice was posted.
        """
        ...

    async def remove(self, name: str, owner: str) -> None:
        """Remove a notice, if it is still the owner's."""
        ...


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
    version: int = 0
    """Of the configuration that these two are from. If the server knows of a newer one, those of that one hold."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseQuestion:
    """A question for a part of a limit that holds at any moment."""

    key: str
    """Of the limit."""
    gateway: str
    limit: int
    version: int
    """Of the configuration that the limit is from. The server divides that of the newest version."""
    holds: int
    """What the gateway may hold until it knows the answer."""
    wants: bool
    known_gateways: int
    """As the asking gateway remembers, for a server that does not know which gateways there are."""
    was_away: bool
    """Whether the asking gateway was without contact in the last half minute, and so perhaps others, too."""
    number: int
    """Grows with each question of this gateway."""


class LeaseServer(Protocol):
    async def lease(self, asked: LeaseQuestion) -> int:
        """What the gateway may hold for 5 s; -1 if a later question was answered before.

        Raises:
            StoreFailed: no answer within half a second. It may be leased nevertheless.
        """
        ...
