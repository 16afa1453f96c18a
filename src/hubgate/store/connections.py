"""Connections as rows."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection as Transaction
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hubgate.domain.errors import InvalidRequest
from hubgate.domain.records import Connection, Kind
from hubgate.store.audit_log import SqlAudit, difference
from hubgate.store.cluster.feed import SqlFeed
from hubgate.store.database import Database
from hubgate.store.sealing import TokenColumns
from hubgate.store.tables import connections


class SqlConnections:
    """Stored connections, with tokens in plain text. All methods raise `StoreFailed`."""

    def __init__(self, database: Database, tokens: TokenColumns, audit: SqlAudit, feed: SqlFeed) -> None:
        self._database = database
        self._feed = feed
        self._tokens = tokens
        self._audit = audit

    async def all(self) -> Sequence[Connection]:
        """All connections, by name. One whose token cannot be opened comes without it, and is logged."""

        def work(transaction: Transaction) -> list[Connection]:
            rows = transaction.execute(select(connections).order_by(connections.c.name))
            return [self._read(row) for row in rows]

        return await self._database.do(work)

    async def put(self, connection: Connection) -> None:
        """Store or replace a connection. Without a token, the stored token is kept."""
        note, is_it = self._audit.note(), connections.c.name == connection.name

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(connections).where(is_it).with_for_update()).one_or_none()
            row_id = row.id if row else secrets.token_hex(16)
            values: dict[str, Any] = {"hosts": json.dumps(connection.hosts)}
            if connection.token is not None:
                values |= self._tokens.seal(connection.token, row_id)
            if row is None:
                named = {"id": row_id, "name": connection.name, "created_at": connection.created_at}
                try:
                    transaction.execute(insert(connections).values({**named, **values}))
                except IntegrityError:  # another gateway was faster
                    raise InvalidRequest(
                        f"A connection named [{connection.name}] already exists.",
                        remedy="Choose another name.",
                    ) from None
                note(transaction, "connection.add", connection.name, difference({}, _audited(connection)))
                return
            transaction.execute(update(connections).where(is_it).values(values))
            changes = difference(_audited(self._read(row)), _audited(connection))
            note(transaction, "connection.change", connection.name, changes)

        await self._feed.change(Kind.CONNECTION, connection.name, work)

    async def remove(self, name: str) -> None:
        note = self._audit.note()

        def work(transaction: Transaction) -> None:
            if transaction.execute(delete(connections).where(connections.c.name == name)).rowcount:
                note(transaction, "connection.remove", name, {})

        await self._feed.change(Kind.CONNECTION, name, work)

    def _read(self, row: Row[Any]) -> Connection:
        return Connection(
            name=row.name,
            token=self._tokens.open(row, "connection"),
            created_at=row.created_at,
            hosts=tuple(json.loads(row.hosts)),
        )


def _audited(connection: Connection) -> dict[str, Any]:
    token = connection.token
    return {"token": token.hint if token else None, "hosts": list(connection.hosts)}
