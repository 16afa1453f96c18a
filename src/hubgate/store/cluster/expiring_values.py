"""Small values that gateways share for a limited time: sign-outs, wrong keys, connection tests."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    case,
    delete,
    literal,
    literal_column,
    select,
)

from hubgate.store.database import Database, insert_or_update
from hubgate.store.tables import expiring_values

_TIDY_SECONDS = 60.0
"""How often a gateway that writes values deletes those that have expired."""
_NAME = expiring_values.c.name
_UNTIL = expiring_values.c.until
NOW: ColumnElement[float] = literal_column("extract(epoch FROM clock_timestamp())", Double())
"""By the clock of the server, which all gateways see."""


def database_time(connection: Connection) -> float:
    """Seconds since the epoch by the clock of the database, which for SQLite is this machine's."""
    if connection.dialect.name != "postgresql":
        return time.time()
    now: float = connection.execute(select(NOW)).scalar_one()
    return now


class SqlExpiringValues:
    """Small values that the gateways of one database share, each for a limited time. All methods raise `StoreFailed`.

    Args:
        database: the shared database.
        clock: monotonic seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._tidied_at = clock()

    async def get(self, name: str) -> str | None:
        found = select(expiring_values.c.value).where(expiring_values.c.name == name, _UNTIL > NOW)
        return await self._database.do(lambda connection: connection.execute(found).scalar())

    async def put(self, name: str, value: str, seconds: float) -> None:
        """Set a value, which expires after `seconds`."""

        def work(connection: Connection) -> None:
            new = insert_or_update(connection, expiring_values).values(
                name=name, value=value, number=0, until=NOW + literal(seconds)
            )
            same = {"value": new.excluded.value, "until": new.excluded.until}
            connection.execute(new.on_conflict_do_update(index_elements=[_NAME], set_=same))

        await self._database.do(work)
        await self._tidy()

    async def count(self, name: str, seconds: float) -> tuple[int, float]:
        """Count an event; returns how many there were in this period, and the seconds that are left of it."""
        number, is_running = expiring_values.c.number, _UNTIL > NOW

        def work(connection: Connection) -> tuple[int, float]:
            new = insert_or_update(connection, expiring_values).values(
                name=name, value="", number=1, until=NOW + literal(seconds)
            )
            counted = new.on_conflict_do_update(
                index_elements=[_NAME],
                set_={
                    "number": case((is_running, number + 1), else_=1),
                    "until": case((is_running, _UNTIL), else_=new.excluded.until),
                },
            )
            total, left = connection.execute(counted.returning(number, _UNTIL - NOW)).one()
            return total, left

        result = await self._database.do(work)
        await self._tidy()
        return result

    async def _tidy(self) -> None:
        now = self._clock()
        if now - self._tidied_at < _TIDY_SECONDS:
            return
        self._tidied_at = now
        expired = select(_NAME).where(_UNTIL <= NOW).with_for_update(skip_locked=True)
        rows = delete(expiring_values).where(_NAME.in_(expired))
        await self._database.do(lambda connection: connection.execute(rows))
