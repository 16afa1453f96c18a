"""Files that every gateway of a shared database needs, such as tokenizers."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from sqlalchemy import Connection, select

from hubgate.store.database import Database, insert_or_update
from hubgate.store.tables import files


class SqlFiles:
    """`hubgate.domain.ports.SharedFiles` on SQLAlchemy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def names(self) -> AbstractSet[str]:
        return await self._database.do(lambda c: set(c.execute(select(files.c.name)).scalars()))

    async def read(self, name: str) -> bytes | None:
        found = select(files.c.content).where(files.c.name == name)
        return await self._database.do(lambda c: c.execute(found).scalar())

    async def add(self, name: str, content: bytes) -> None:
        """Store a file, unless another gateway was faster."""

        def work(connection: Connection) -> None:
            new = insert_or_update(connection, files).values(name=name, content=content)
            connection.execute(new.on_conflict_do_nothing())

        await self._database.do(work)
