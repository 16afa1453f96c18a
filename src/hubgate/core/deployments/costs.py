"""What an Inference Endpoint has cost, estimated from the states that were seen of it.

Hugging Face bills each replica by the minute while an endpoint is initializing or running, and reports no costs. The
states are read every minute; between two readings with different numbers of replicas, the change is assumed to be in
the middle. So the estimate is off by at most half a minute of a replica for each change that hubgate did not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Reading:
    """What was billed at a moment."""

    at: float
    """Seconds since the epoch."""
    replicas: int
    """Those that cost money; 0 if it is paused, at zero, or has failed."""
    price: float
    """Dollars for an hour of a replica."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent on one day."""

    day: int
    """Days since the epoch, in UTC."""
    minutes: float
    """Of all replicas together."""
    dollars: float


def spent_between(before: Reading, now: Reading) -> Iterator[Spent]:
    """What two readings of an endpoint add to its costs, for each day between them."""
    middle = (before.at + now.at) / 2
    yield from _by_day(before.at, middle, before)
    yield from _by_day(middle, now.at, now)


def _by_day(start: float, end: float, reading: Reading) -> Iterator[Spent]:
    while start < end and reading.replicas:
        midnight = (start // DAY + 1) * DAY
        until = min(midnight, end)
        minutes = (until - start) / 60 * reading.replicas
        yield Spent(int(start // DAY), minutes, minutes / 60 * reading.price)
        start = until
