"""The change feed of a shared database, and the gateways that follow it.

A change gets its version in its own transaction, last of all, under the lock of the feed's row. So versions are committed
in order and without gaps, which a sequence does not promise, and whoever has read up to one has missed nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Double, cast, delete, extract, func, insert, select, update

from hubgate.domain.records import MADE, FeedLine, Gate, Kind, News, ReportedStates
from hubgate.store.database import Database, insert_or_update
from hubgate.store.schema.versions import CORE
from hubgate.store.tables import changes, feed, gateways

KEPT_LINES = 10_000
"""A gateway that is further behind reads everything again."""
_FORGOTTEN_SECONDS = 86_400
"""After which a gateway that did not say goodbye is forgotten."""

_REPORT = """\
UPDATE gateways SET version = $2, state = $3, seen_at = extract(epoch FROM clock_timestamp()), endpoints = $4
WHERE id = $1 RETURNING 1
"""

_T = TypeVar("_T")


class SqlFeed:
    """The change feed of a database, and its gateways. All methods raise `StoreFailed`.

    Without other gateways, only `change` is used, and writes no feed.
    """

    def __init__(self, database: Database, key_ids: Sequence[str]) -> None:
        self._database = database
        self.key_ids = key_ids
        self._on_change: Callable[[], None] = lambda: None
        self._link = database.link(self._published) if database.is_shared else None

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()

    async def change(self, kind: Kind, name: str, work: Callable[[Connection], _T]) -> _T:
        """Run `work` in one transaction. If gateways share the database, append it to the feed."""
        if not self._database.is_shared:
            return await self._database.do(work)

        def announced(connection: Connection) -> tuple[_T, int]:
            result = work(connection)
            return result, self._append(connection, kind, name)

        result, version = await self._database.do(announced)
        made = MADE.get()
        if made is not None:
            made.version = max(made.version, version)
        return result

    async def version(self) -> int:
        """The newest version."""
        ((version,),) = await self._ask("SELECT version FROM feed")
        return int(version)

    async def news(self, after: int) -> News | None:
        """What was changed after a version, if anything was."""
        if await self.version() == after:
            return None

        def work(connection: Connection) -> News:
            newest: int = connection.execute(select(feed.c.version)).scalar_one()
            new = (changes.c.version > after) & (changes.c.version <= newest)
            rows = connection.execute(select(changes).where(new).order_by(changes.c.version)).all()
            lines = [FeedLine(row.kind, row.name) for row in rows]
            return News(newest, lines if len(lines) == newest - after else None)

        return await self._database.do(work)

    def follow(self, on_change: Callable[[], None]) -> None:
        """Call this after each change. It may miss some, and all while `version` cannot be read."""
        self._on_change = on_change

    async def gates(self) -> Sequence[Gate]:
        """The gateways that run, and those that stopped without a goodbye in the last day, by name."""
        rows = select(gateways, (_now() - gateways.c.seen_at).label("silent")).order_by(
            gateways.c.name, gateways.c.started_at
        )

        def work(connection: Connection) -> list[Gate]:
            return [
                Gate(
                    id=row.id,
                    name=row.name,
                    version=row.version,
                    state=row.state,
                    software=row.software,
                    revision=row.revision,
                    keys=tuple(row.keys.split()),
                    started_at=row.started_at,
                    silent=max(0.0, row.silent),
                )
                for row in connection.execute(rows)
            ]

        return await self._database.do(work)

    async def states(self, heard_within: float) -> Sequence[ReportedStates]:
        """What the gateways report of their endpoints that were heard of within this time."""
        columns = (gateways.c.id, gateways.c.name, gateways.c.endpoints)
        rows = select(*columns).where(_now() - gateways.c.seen_at < heard_within).order_by(gateways.c.name)
        return await self._database.do(
            lambda connection: [ReportedStates(*row) for row in connection.execute(rows)]
        )

    async def report(self, gate: Gate, endpoints: str = "") -> None:
        """Record that a gateway runs, which version it follows, and the states of its endpoints."""
        if await self._ask(_REPORT, gate.id, gate.version, gate.state, endpoints):
            return
        row = {
            "version": gate.version,
            "state": gate.state,
            "seen_at": _now(),
            "endpoints": endpoints,
            "id": gate.id,
            "name": gate.name,
            "software": gate.software,
            "revision": str(CORE.version),
            "keys": " ".join(self.key_ids),
            "started_at": gate.started_at,
        }

        def work(connection: Connection) -> None:
            forgotten = _now() - gateways.c.seen_at > _FORGOTTEN_SECONDS
            connection.execute(delete(gateways).where(forgotten))
            new = insert_or_update(connection, gateways).values(row)
            connection.execute(new.on_conflict_do_nothing())

        await self._database.do(work)

    async def leave(self, gate_id: str) -> None:
        """Record that a gateway stops."""
        gone = delete(gateways).where(gateways.c.id == gate_id)
        await self._database.do(lambda connection: connection.execute(gone))

    def _published(self) -> None:
        self._on_change()

    async def _ask(self, statement: str, *arguments: str | int) -> Sequence[Sequence[str]]:
        if self._link is None:
            raise NotImplementedError("the database is not shared")
        return await self._link.ask(statement, *arguments)

    def _append(self, connection: Connection, kind: Kind, name: str) -> int:
        increment = update(feed).values(version=feed.c.version + 1).returning(feed.c.version)
        version: int = connection.execute(increment).scalar_one()
        row: dict[str, Any] = {"version": version, "kind": kind.value, "name": name, "at": time.time()}
        connection.execute(insert(changes).values(row))
        connection.execute(delete(changes).where(changes.c.version <= version - KEPT_LINES))
        self._database.publish(connection)
        return version


def _now() -> ColumnElement[float]:
    """Seconds since the epoch by the clock of the database, which is the same for all gateways."""
    return cast(extract("epoch", func.clock_timestamp()), Double)
