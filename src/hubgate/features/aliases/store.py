"""Aliases as rows. An alias and an endpoint never have the same name, and an alias always leads to an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Connection, Double, MetaData, Table, Text, delete, insert, select, update

from hubgate.domain.errors import AliasExists, BehindAlias, EndpointConflict, EndpointExists, EndpointNotFound
from hubgate.domain.records import Alias, Kind
from hubgate.store.audit_log import SqlAudit
from hubgate.store.backend import Lock
from hubgate.store.cluster.feed import SqlFeed
from hubgate.store.database import Database
from hubgate.store.schema.versions import Schema
from hubgate.store.tables import NAMING, endpoints

metadata = MetaData(naming_convention=NAMING)
aliases = Table(
    "aliases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("moved_at", Double, nullable=False),
)
SCHEMA = Schema(part="aliases", metadata=metadata)


class SqlAliases:
    """Stored aliases. All methods raise `StoreFailed`."""

    def __init__(self, database: Database, audit: SqlAudit, feed: SqlFeed) -> None:
        self._database = database
        self._audit = audit
        self._feed = feed

    async def all(self) -> Sequence[Alias]:
        """All aliases, by name."""
        rows = select(aliases).order_by(aliases.c.name)
        return await self._database.do(
            lambda connection: [Alias(**row) for row in connection.execute(rows).mappings()]
        )

    async def put(self, alias: Alias, former: str | None) -> None:
        """Add an alias, or move it from the endpoint `former`.

        Raises:
            EndpointNotFound: its endpoint does not exist.
            EndpointExists: an endpoint has its name.
            EndpointConflict: it was added, moved or removed meanwhile.
        """
        note, is_it = self._audit.note(), aliases.c.name == alias.name

        def work(connection: Connection) -> None:
            self._database.lock(connection, Lock.NAMES)
            stored = connection.execute(select(aliases.c.endpoint).where(is_it)).scalar()
            if stored != former:
                raise EndpointConflict(alias.name)
            if not _has_endpoint(connection, alias.endpoint):
                raise EndpointNotFound(alias.endpoint)
            if _has_endpoint(connection, alias.name):
                raise EndpointExists(alias.name)
            values = {"endpoint": alias.endpoint, "moved_at": alias.moved_at}
            if stored is None:
                connection.execute(insert(aliases).values(name=alias.name, **values))
            else:
                connection.execute(update(aliases).where(is_it).values(values))
            note(connection, "alias.set", alias.name, {"endpoint": [former, alias.endpoint]})

        await self._feed.change(Kind.ALIAS, alias.name, work)

    async def remove(self, name: str) -> None:
        note, is_it = self._audit.note(), aliases.c.name == name

        def work(connection: Connection) -> None:
            self._database.lock(connection, Lock.NAMES)
            endpoint = connection.execute(select(aliases.c.endpoint).where(is_it)).scalar()
            if endpoint is not None:
                connection.execute(delete(aliases).where(is_it))
                note(connection, "alias.remove", name, {"endpoint": [endpoint, None]})

        await self._feed.change(Kind.ALIAS, name, work)

    def check_new(self, connection: Connection, name: str) -> None:
        """Check, in the transaction that adds an endpoint, that no alias has its name.

        Raises:
            AliasExists: one has.
        """
        self._database.lock(connection, Lock.NAMES)
        endpoint = connection.execute(select(aliases.c.endpoint).where(aliases.c.name == name)).scalar()
        if endpoint is not None:
            raise AliasExists(name, endpoint)

    def check_removal(self, connection: Connection, endpoint: str) -> None:
        """Check, in the transaction that removes an endpoint, that no alias leads to it.

        Raises:
            BehindAlias: one does.
        """
        self._database.lock(connection, Lock.NAMES)
        named = select(aliases.c.name).where(aliases.c.endpoint == endpoint).order_by(aliases.c.name)
        if names := connection.execute(named).scalars().all():
            raise BehindAlias(endpoint, names)


def _has_endpoint(connection: Connection, name: str) -> bool:
    return connection.execute(select(endpoints.c.id).where(endpoints.c.name == name)).first() is not None
