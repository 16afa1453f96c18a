"""Texts that are being embedded for one call and that another call needs, too."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping

import msgspec

from hubgate.domain.calls import CachedVector, Context


class Flight(msgspec.Struct, eq=False):
    """A request for texts of a call, which other calls wait for."""

    _context: Context
    _vectors: Mapping[bytes, CachedVector] | None = None
    _ended: asyncio.Future[None] | None = None
    """`None` until a call waits."""
    overtaken: bool = False
    """Whether a call that could not wait for it has requested some of its texts, too."""

    def serves(self, other: Context) -> bool:
        """Whether a call may wait for it, because its own request would be no faster.

        So it belongs to the same caller and class, which share a queue, and ends no later.
        """
        mine = self._context
        return mine.caller == other.caller and mine.bulk <= other.bulk and _end(mine) <= _end(other)

    async def vectors(self) -> Mapping[bytes, CachedVector]:
        """The vectors by key; none if the request failed."""
        if self._vectors is None:
            if self._ended is None:
                self._ended = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ended)  # others go on waiting when this call is cancelled
        return self._vectors or {}

    def end(self, vectors: Mapping[bytes, CachedVector]) -> None:
        self._vectors = vectors
        if self._ended is not None:
            self._ended.set_result(None)


class SingleFlight:
    """Knows what is being requested, so that calls that need a text at the same time request it once."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    def find(self, context: Context, keys: Collection[bytes]) -> dict[bytes, Flight]:
        """The flights that a call may wait for, by key."""
        flights = self._flights
        if flights.keys().isdisjoint(keys):
            return {}
        return {key: flights[key] for key in keys if key in flights and flights[key].serves(context)}

    def begin(self, context: Context, keys: Collection[bytes]) -> Flight:
        """From now on, other calls find the flight. `end` must follow."""
        flights, flight = self._flights, Flight(context)
        if not flights.keys().isdisjoint(keys):
            for key in keys:
                if key in flights:
                    flights[key].overtaken = True
        flights.update(dict.fromkeys(keys, flight))
        return flight

    def end(self, flight: Flight, keys: Collection[bytes], vectors: Mapping[bytes, CachedVector]) -> None:
        """Hand the vectors to the calls that wait; none if the request failed."""
        flights = self._flights
        if flight.overtaken:
            keys = [key for key in keys if flights.get(key) is flight]
        list(map(flights.pop, keys))  # in one step, as there may be thousands
        flight.end(vectors)


def _end(context: Context) -> float:
    return math.inf if context.deadline is None else context.deadline
