"""Connections as rows."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from hubgate.domain.records import Connection
from hubgate.store.tables import connections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection as Transaction

    from hubgate.store.auditing import SqlAudit
    from hubgate.store.database import Database
    from hubgate.store.sealing import TokenColumns


class SqlConnections:
    """`hubgate.domain.records.ConnectionStore` on SQLAlchemy."""

    def __init__(self, database: Database, tokens: TokenColumns, audit: SqlAudit) -> None:
        self._database = database
        self._tokens = tokens
        self._audit = audit

    async def all(self) -> Sequence[Connection]:
        """All of them, by name; one whose token cannot be opened comes without it, and is logged."""

        def work(transaction: Transaction) -> list[Connection]:
            return [
                Connection(
                    name=row.name, token=self._tokens.open(row, "connection"), created_at=row.created_at
                )
                for row in transaction.execute(select(connections).order_by(connections.c.name))
            ]

        return await self._database.do(work)

    async def put(self, connection: Connection) -> None:
        """Store a connection, in place of the one of its name."""
        note, is_it = self._audit.note(), connections.c.name == connection.name

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(connections).where(is_it)).one_or_none()
            old = self._tokens.open(row, "connection") if row else None
            token = [old.hint if old else None, connection.token.hint if connection.token else None]
            if row is None:
                row_id = secrets.token_hex(16)
                values = {"id": row_id, "name": connection.name, "created_at": connection.created_at}
                transaction.execute(
                    insert(connections).values({**values, **self._tokens.of(connection.token, row_id)})
                )
                note(transaction, "connection.add", connection.name, {"token": token})
                return
            sealed = self._tokens.of(connection.token, row.id)
            transaction.execute(update(connections).where(is_it).values(sealed))
            note(transaction, "connection.change", connection.name, {"token": token})

        await self._database.do(work)

    async def remove(self, name: str) -> None:
        """Forget a connection."""
        note = self._audit.note()

        def work(transaction: Transaction) -> None:
            if transaction.execute(delete(connections).where(connections.c.name == name)).rowcount:
                note(transaction, "connection.remove", name, {})

        await self._database.do(work)
