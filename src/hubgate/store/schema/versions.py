"""The versions of the tables: a new database gets the tables as they are now, an older one the migrations since then.

The core and each feature with tables have a version of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, MetaData, Row, delete, insert, inspect, select, text

from hubgate.domain.errors import StoreFailed
from hubgate.store.schema import functions
from hubgate.store.tables import feed, metadata, schema_versions

if TYPE_CHECKING:
    from alembic.operations import Operations


class Migration(NamedTuple):
    """A step to a version, on SQLite and on PostgreSQL."""

    version: int
    upgrade: Callable[[Operations], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Tables that have a version together."""

    part: str
    """`core`, or the name of a feature."""
    metadata: MetaData
    created: Callable[[Connection], None] = lambda _: None
    """Called when the tables are new: creates what else belongs to them."""
    migrations: Sequence[Migration] = ()
    """To versions 2, 3, …"""
    oldest_able: int = 1
    """The oldest version whose hubgate works with these tables. A migration that only adds keeps it."""

    @property
    def version(self) -> int:
        """Of the tables as they are now."""
        return 1 + len(self.migrations)


def _created_core(connection: Connection) -> None:
    connection.execute(insert(feed).values(id=1, version=0))
    if connection.dialect.name == "postgresql":
        for statement in functions.ALL:
            connection.execute(text(statement))


CORE = Schema(part="core", metadata=metadata, created=_created_core)
_schemas = {CORE.part: CORE}


def register(schema: Schema) -> None:
    """Create or migrate the tables of a feature, too, in every database that is opened from now on."""
    _schemas[schema.part] = schema


def schemas() -> Sequence[Schema]:
    """The core's, then those of features."""
    return tuple(_schemas.values())


def stored_versions(connection: Connection) -> Mapping[str, int]:
    """The version of each part whose tables are in the database.

    Raises:
        StoreFailed: they are of a hubgate that is too new, or from before the first release.
    """
    existing = inspect(connection).get_table_names()
    if "alembic_version" in existing:
        raise StoreFailed(
            "The database was written by a hubgate from before the first release, whose tables this one does not read.",
            remedy="Run `hubgate config export` with that hubgate. Then set HUBGATE_HOME or HUBGATE_DATABASE_URL to an "
            "empty one, and run `hubgate config apply` with this hubgate.",
        )
    if schema_versions.name not in existing:
        return {}
    rows = connection.execute(select(schema_versions)).all()
    for row in rows:
        _check_able(row)
    return {row.part: row.version for row in rows}


def _check_able(row: Row[tuple[str, int, int]]) -> None:
    known = _schemas.get(row.part)
    if known is not None and row.oldest_able > known.version:
        raise StoreFailed(
            f"The database was written by a newer version of hubgate (version {row.version} of the tables, {row.part}).",
            remedy="Upgrade hubgate to that version, or restore a backup from before the database was migrated.",
        )


def outdated(stored: Mapping[str, int]) -> Sequence[Schema]:
    """The schemas whose tables are missing or older in the database."""
    return [schema for schema in schemas() if stored.get(schema.part, 0) < schema.version]


def bring_up_to_date(connection: Connection, schema: Schema, stored: int | None) -> None:
    """Create the tables, or run the migrations after version `stored`."""
    if stored is None:
        schema.metadata.create_all(connection, checkfirst=False)
        schema.created(connection)
    else:
        _upgrade(connection, schema, stored)
    connection.execute(delete(schema_versions).where(schema_versions.c.part == schema.part))
    row = {"part": schema.part, "version": schema.version, "oldest_able": schema.oldest_able}
    connection.execute(insert(schema_versions).values(row))


def _upgrade(connection: Connection, schema: Schema, stored: int) -> None:
    from alembic.migration import MigrationContext  # noqa: PLC0415 - importing Alembic takes 0.2 s
    from alembic.operations import Operations  # noqa: PLC0415

    operations = Operations(MigrationContext.configure(connection))
    for migration in schema.migrations:
        if migration.version > stored:
            migration.upgrade(operations)
