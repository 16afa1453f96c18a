"""What features offer to the rest of the gateway, and to each other. Without the feature, there is nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from hubgate.domain.errors import InvalidRequest, NotFound
from hubgate.domain.records import UsageQuery, UsageRow


async def _no_price(endpoint: str) -> float | None:
    """It is not known what an endpoint costs."""


async def _no_usage(_: UsageQuery) -> Sequence[UsageRow]:
    """Nothing is counted."""
    return ()


async def _set_no_alias(name: str, endpoint: str, _: object) -> None:
    raise InvalidRequest(f"[{name}] cannot be an alias of [{endpoint}]: this gateway has no aliases.")


async def _remove_no_alias(name: str) -> None:
    raise NotFound(f"No alias is named [{name[:200]}].")


@dataclass(slots=True)
class Ports:
    """Set by features when they open; each has a default, so that the gateway also works without them."""

    price_per_hour: Callable[[str], Awaitable[float | None]] = _no_price
    """US dollars for one replica of an endpoint's server, by the endpoint's name; `None` if it is not known."""
    usage: Callable[[UsageQuery], Awaitable[Sequence[UsageRow]]] = _no_usage
    """The usage up to now."""
    set_alias: Callable[[str, str, bool], Awaitable[None]] = _set_no_alias
    """Adds an alias of an endpoint or moves it, also to vectors that cannot be compared with those before, or not."""
    remove_alias: Callable[[str], Awaitable[None]] = _remove_no_alias
