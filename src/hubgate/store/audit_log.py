"""The audit log. A change and its entry are written in one transaction."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from hubgate.domain.errors import DiskFull
from hubgate.domain.records import ACTOR, Change
from hubgate.store.database import Database
from hubgate.store.tables import audit

Note = Callable[[Connection, str, str, Mapping[str, Any]], None]

MAX_ENTRIES = 10_000
"""When there are more, the oldest are deleted."""

_log = logging.getLogger(__name__)


class SqlAudit:
    """Who changed what. All methods raise `StoreFailed`."""

    def __init__(self, database: Database, *, max_entries: int = MAX_ENTRIES) -> None:
        self._database = database
        self._max_entries = max_entries

    def note(self) -> Note:
        """A function that writes an entry in a transaction.

        Create it before the work goes to the database's thread, which does not know the actor.
        """
        who = ACTOR.get()

        def write(connection: Connection, verb: str, subject: str, changes: Mapping[str, Any]) -> None:
            row = {
                "at": time.time(),
                "who": who,
                "verb": verb,
                "subject": subject,
                "changes": json.dumps(changes, ensure_ascii=False),
            }
            inserted = connection.execute(insert(audit).values(row)).inserted_primary_key
            newest = inserted[0] if inserted else 0
            connection.execute(delete(audit).where(audit.c.id <= newest - self._max_entries))

        return write

    async def record(self, verb: str, subject: str, changes: Mapping[str, Any] | None = None) -> None:
        """Record a change that is not in the database. If the disk is full, it is logged instead."""
        note = self.note()
        try:
            await self._database.do(lambda connection: note(connection, verb, subject, changes or {}))
        except DiskFull as error:
            _log.warning(
                "%s of [%s] by %s is not in the audit log: %s %s",
                verb,
                subject,
                ACTOR.get(),
                error,
                json.dumps(changes or {}),
            )

    async def read(self, limit: int, before: int | None = None) -> Sequence[tuple[int, Change]]:
        """The newest changes before entry `before`, with their numbers, newest first."""
        newest = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            newest = newest.where(audit.c.id < before)
        return await self._database.do(
            lambda connection: [
                (
                    row.id,
                    Change(
                        at=row.at,
                        who=row.who,
                        verb=row.verb,
                        subject=row.subject,
                        changes=json.loads(row.changes),
                    ),
                )
                for row in connection.execute(newest)
            ]
        )


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """`[before, after]` of every value that differs, by name."""
    names = sorted({*before, *after})
    return {
        name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)
    }
