"""What features offer to the rest of the gateway, and to each other. Without the feature, there is nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


async def _no_price(endpoint: str) -> float | None:
    """It is not known what an endpoint costs."""


@dataclass(slots=True)
class Ports:
    """Set by features when they open; each has a default, so that the gateway also works without them."""

    price_per_hour: Callable[[str], Awaitable[float | None]] = _no_price
    """US dollars for one replica of an endpoint's server, by the endpoint's name; `None` if it is not known."""
