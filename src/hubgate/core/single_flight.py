"""Texts that are being embedded for one call and that another call needs, too."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping
from typing import TypeAlias

import msgspec

from hubgate.core.results import cache_entries
from hubgate.domain.calls import CachedVector, Context, FreshVectors

Awaited: TypeAlias = asyncio.Future[Mapping[bytes, CachedVector]]
"""The vectors of a flight by key, which may have several waiters: none if the request failed."""


class Flight(msgspec.Struct, eq=False):
    """A request for texts of a call."""

    context: Context
    awaited: Awaited | None = None
    """`None` until another call waits."""
    overtaken: bool = False
    """Whether a call that could not wait for it has requested some of its texts, too."""

    def serves(self, other: Context) -> bool:
        """Whether a call may wait for it, because its own request would be no faster.

        So it belongs to the same caller and class, which share a queue, and ends no later.
        """
        mine = self.context
        return mine.caller == other.caller and mine.bulk <= other.bulk and _end(mine) <= _end(other)

    def await_vectors(self) -> Awaited:
        if self.awaited is None:
            self.awaited = asyncio.get_running_loop().create_future()
        return self.awaited


class SingleFlight:
    """Knows what is being requested, so that calls that need a text at the same time request it once."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    def find(self, context: Context, keys: Collection[bytes]) -> dict[bytes, Awaited]:
        """What a call may wait for, by key."""
        flights = self._flights
        if flights.keys().isdisjoint(keys):
            return {}
        return {
            key: flights[key].await_vectors()
            for key in keys
            if key in flights and flights[key].serves(context)
        }

    def begin(self, context: Context, keys: Collection[bytes]) -> Flight:
        """From now on, other calls find the flight. `end` must follow."""
        flights, flight = self._flights, Flight(context)
        if not flights.keys().isdisjoint(keys):
            for key in keys:
                if key in flights:
                    flights[key].overtaken = True
        flights.update(dict.fromkeys(keys, flight))
        return flight

    def end(self, flight: Flight, keys: Collection[bytes], fresh: FreshVectors | None) -> None:
        """Hand the vectors to the calls that wait; `None` if the request failed."""
        flights = self._flights
        if flight.overtaken:
            keys = [key for key in keys if flights.get(key) is flight]
        list(map(flights.pop, keys))  # in one step, as there may be thousands
        if flight.awaited is not None:
            flight.awaited.set_result(cache_entries(fresh) if fresh else {})


def _end(context: Context) -> float:
    return math.inf if context.deadline is None else context.deadline
