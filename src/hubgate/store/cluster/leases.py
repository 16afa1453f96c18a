"""Leases: which gateway process may do what only one does at a time, by the clock of the database."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, case, update

from hubgate.store.cluster.expiring_values import database_time
from hubgate.store.database import Database, insert_or_update
from hubgate.store.tables import leases

_column = leases.c


class SqlLeases:
    """Which gateway process may do what only one does at a time, by the clock of the database.

    A file has one process, which owns every lease.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = secrets.token_hex(8) if database.is_shared else ""
        self._ahead: float | None = None
        """The clock of the server less the monotonic clock of this process."""

    def now(self) -> float:
        return time.time() if self._ahead is None else time.monotonic() + self._ahead

    async def read_clock(self) -> None:
        """Read the clock of the database, from which `now` goes on. Raises: StoreFailed."""
        await self._database.do(self._read_clock)

    async def acquire(self, name: str, seconds: float) -> int | None:
        def work(connection: Connection) -> int | None:
            now = self._read_clock(connection)
            is_own = _column.owner == self._owner
            new = insert_or_update(connection, leases).values(
                name=name, owner=self._owner, until=now + seconds, fence=1
            )
            taken = new.on_conflict_do_update(
                index_elements=[_column.name],
                set_={
                    "owner": new.excluded.owner,
                    "until": new.excluded.until,
                    "fence": case((is_own & (_column.until > now), _column.fence), else_=_column.fence + 1),
                },
                # One that ends too late is from before the clock was set back.
                where=is_own | (_column.until <= now) | (_column.until > now + 2 * seconds),
            )
            fence: int | None = connection.execute(taken.returning(_column.fence)).scalar()
            return fence

        return await self._database.do(work)

    async def release(self, name: str) -> None:
        free = update(leases).where(_column.name == name, _column.owner == self._owner).values(until=0.0)
        await self._database.do(lambda connection: connection.execute(free))

    def _read_clock(self, connection: Connection) -> float:
        now = database_time(connection)
        if self._database.is_shared:
            self._ahead = now - time.monotonic()
        return now
