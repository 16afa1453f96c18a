"""The version of the tables: a new database gets the tables as they are now, an older one the migrations since then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, delete, insert, inspect, select, text

from hubgate.domain.errors import StoreFailed
from hubgate.store.schema import functions
from hubgate.store.tables import feed, metadata, schema_versions

if TYPE_CHECKING:
    from alembic.operations import Operations


class Migration(NamedTuple):
    """A step to a version, on SQLite and on PostgreSQL."""

    version: int
    upgrade: Callable[[Operations], None]


MIGRATIONS: tuple[Migration, ...] = ()
"""To versions 2, 3, …"""
VERSION = 1 + len(MIGRATIONS)
OLDEST_ABLE = 1
"""The oldest version whose hubgate works with these tables. A migration that only adds keeps it."""
_PART = "core"


def stored_version(connection: Connection) -> int | None:
    """The version of the tables in the database; `None` if it has none.

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
        return None
    stored = connection.execute(select(schema_versions).where(schema_versions.c.part == _PART)).one()
    version: int = stored.version
    if stored.oldest_able > VERSION:
        raise StoreFailed(
            f"The database was written by a newer version of hubgate (version {version} of the tables).",
            remedy="Upgrade hubgate to that version, or restore a backup from before the database was migrated.",
        )
    return version


def create(connection: Connection) -> None:
    """Create all tables in an empty database."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(feed).values(id=1, version=0))
    if connection.dialect.name == "postgresql":
        for statement in functions.ALL:
            connection.execute(text(statement))
    _note_version(connection)


def upgrade(connection: Connection, stored: int, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Run the migrations after version `stored`."""
    from alembic.migration import MigrationContext  # noqa: PLC0415 - importing Alembic takes 0.2 s
    from alembic.operations import Operations  # noqa: PLC0415

    operations = Operations(MigrationContext.configure(connection))
    for migration in migrations:
        if migration.version > stored:
            migration.upgrade(operations)
    connection.execute(delete(schema_versions).where(schema_versions.c.part == _PART))
    _note_version(connection)


def _note_version(connection: Connection) -> None:
    row = {"part": _PART, "version": VERSION, "oldest_able": OLDEST_ABLE}
    connection.execute(insert(schema_versions).values(row))
