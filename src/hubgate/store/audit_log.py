"""The audit log: each change is written down in the transaction that makes it, so neither is without the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from hubgate.domain.records import ACTOR, Change
from hubgate.store.database import Database
from hubgate.store.tables import audit

Note = Callable[[Connection, str, str, Mapping[str, Any]], None]

MOST_LINES = 10_000
"""The oldest go when there are more."""


class SqlAudit:
    """`hubgate.domain.records.AuditLog` on SQLAlchemy."""

    def __init__(self, database: Database, *, most_lines: int = MOST_LINES) -> None:
        self._database = database
        self._most_lines = most_lines

    def note(self) -> Note:
        """What writes a line in a transaction. To be made before the work goes to the store's thread.

        Who asks is known where it is asked, not in that thread.
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
            connection.execute(delete(audit).where(audit.c.id <= newest - self._most_lines))

        return write

    async def record(self, verb: str, subject: str, changes: Mapping[str, Any] | None = None) -> None:
        """Write down a change that is none of the database."""
        note = self.note()
        await self._database.do(lambda connection: note(connection, verb, subject, changes or {}))

    async def read(self, limit: int, before: int | None = None) -> Sequence[tuple[int, Change]]:
        """The newest changes with their numbers, the newest first."""
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
    """`[before, after]` of what is not the same in both, by its name."""
    names = sorted({*before, *after})
    return {
        name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)
    }
