"""The ledger: what every rate limit has sent, kept in the store for the process that comes next."""

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
_PATIENCE = 1.0
"""Seconds to wait for the store. Requests go on without it: it matters only if the gateway crashes in that very minute."""
_DECODER = msgspec.json.Decoder(dict[str, list[tuple[float, int]]])

_log = logging.getLogger(__name__)


class Ledger:
    """The reserves of all rate limits, by key, as one note in the store.

    Times are written in seconds since the epoch; the rest of the gateway counts on a clock that a restart resets.
    """

    def __init__(
        self,
        store: Notes,
        former: Mapping[str, Sequence[tuple[float, int]]],
        clock: Clock,
        wall_clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._former = dict(former)
        """What a former process wrote down, of rate limits that were not asked for yet."""
        self._reservations: dict[str, Reservation] = {}
        self._clock = clock
        self._wall_clock = wall_clock
        self._saved = self._failing = False

    @classmethod
    async def load(cls, store: Notes, clock: Clock, *, wall_clock: Callable[[], float] = time.time) -> Ledger:
        """Read what a former process, which has ended, has sent or may have sent.

        Raises:
            StoreFailed: the store cannot be used.
        """
        now, since = clock(), wall_clock()
        former = {}
        for key, spent in _read(await store.note(_NOTE)).items():
            # No request left after the end of the former process, which was before now.
            left = [
                (now + min(until - since, PERMIT_SECONDS), requests)
                for until, requests in spent
                if until > since
            ]
            if left:
                former[key] = left
        return cls(store, former, clock, wall_clock)

    def reservation(self, key: str, requests_per_minute: int) -> Reservation:
        """The reserve of a rate limit, the same for each that has this key."""
        if key not in self._reservations:
            former = self._former.pop(key, ())
            self._reservations[key] = Reservation(
                requests_per_minute, former, self.save, self._clock, permit_seconds=PERMIT_SECONDS
            )
        return self._reservations[key]

    async def save(self) -> None:
        """Write everything down. If that fails it is logged, and the gateway goes on."""
        self._saved = True
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._store.set_note(_NOTE, self._written())
        except (StoreFailed, TimeoutError) as error:
            if not self._failing:
                _log.warning(
                    "could not write down how many requests were sent; if the gateway is restarted now, "
                    "servers may be asked more than their limit: %s",
                    error if isinstance(error, StoreFailed) else "the database is busy",
                )
            self._failing = True
        else:
            self._failing = False

    async def close(self) -> None:
        """Write down exactly what was sent, once nothing more is."""
        for reservation in self._reservations.values():
            await reservation.close()
        if self._saved:
            await self.save()

    def _written(self) -> str:
        now = self._clock()
        ahead = self._wall_clock() - now
        records = self._former | {
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
        _log.warning("what was written down of the requests sent cannot be read: %s", error)
        return {}
