"""Stores how much of each rate limit was used, so that hubgate obeys the limits across a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from hubgate.core.traffic.rate_limiter import PERMIT_SECONDS
from hubgate.core.traffic.reservations import Reservation
from hubgate.domain.errors import StoreFailed
from hubgate.domain.ports import Clock, Notes

_NOTE = "requests sent"
"""The name of the stored note."""
_SAVE_SECONDS = 1.0
"""Timeout. Requests continue if the store fails: a missing record matters only if hubgate restarts within a minute."""
_DECODER = msgspec.json.Decoder(dict[str, list[tuple[float, int]]])

_log = logging.getLogger(__name__)


class Ledger:
    """The reservations of all rate limits, by key, stored as one note.

    A record is a list of `(until, requests)`: that number of requests counts towards the limit until that time. Stored
    times are in seconds since the epoch, because a restart resets the monotonic clock.
    """

    def __init__(
        self,
        store: Notes,
        previous: Mapping[str, Sequence[tuple[float, int]]],
        clock: Clock,
        wall_clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._previous = dict(previous)
        """Records of the previous process, for rate limits that this process has not used yet."""
        self._reservations: dict[str, Reservation] = {}
        self._clock = clock
        self._wall_clock = wall_clock
        self._saved = self._failing = False

    @classmethod
    async def load(cls, store: Notes, clock: Clock, *, wall_clock: Callable[[], float] = time.time) -> Ledger:
        """Read how many requests the previous process sent, or may have sent.

        Raises:
            StoreFailed: the store cannot be used.
        """
        now, since = clock(), wall_clock()
        previous = {}
        for key, spent in _read(await store.note(_NOTE)).items():
            # The previous process has ended, so none of its requests is later than now.
            left = [
                (now + min(until - since, PERMIT_SECONDS), requests)
                for until, requests in spent
                if until > since
            ]
            if left:
                previous[key] = left
        return cls(store, previous, clock, wall_clock)

    def reservation(self, key: str, requests_per_minute: int) -> Reservation:
        """The reservation of the rate limit with this key."""
        if key not in self._reservations:
            previous = self._previous.pop(key, ())
            self._reservations[key] = Reservation(
                requests_per_minute, previous, self.save, self._clock, permit_seconds=PERMIT_SECONDS
            )
        return self._reservations[key]

    async def save(self) -> None:
        """Store all reservations. A failure is only logged."""
        self._saved = True
        try:
            async with asyncio.timeout(_SAVE_SECONDS):
                await self._store.set_note(_NOTE, self._encoded())
        except (StoreFailed, TimeoutError) as error:
            if not self._failing:
                _log.warning(
                    "could not store how many requests were sent; if hubgate restarts now, it may exceed "
                    "rate limits: %s",
                    error if isinstance(error, StoreFailed) else "the database is busy",
                )
            self._failing = True
        else:
            self._failing = False

    async def close(self) -> None:
        """Store the exact number of requests that were sent. No request may follow."""
        for reservation in self._reservations.values():
            await reservation.close()
        if self._saved:
            await self.save()

    def _encoded(self) -> str:
        now = self._clock()
        ahead = self._wall_clock() - now
        records = self._previous | {
            key: reservation.record() for key, reservation in self._reservations.items()
        }
        current = {
            key: [(until + ahead, requests) for until, requests in record if until > now]
            for key, record in records.items()
        }
        return msgspec.json.encode({key: record for key, record in current.items() if record}).decode()


def _read(note: str | None) -> Mapping[str, Sequence[tuple[float, int]]]:
    if note is None:
        return {}
    try:
        return _DECODER.decode(note)
    except msgspec.DecodeError as error:
        _log.warning("the stored number of sent requests cannot be read: %s", error)
        return {}
