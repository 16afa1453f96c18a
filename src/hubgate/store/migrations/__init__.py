"""The migrations. Imported only when there is something to migrate: importing Alembic takes 0.2 s."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert

from hubgate.domain.errors import StoreFailed
from hubgate.store.tables import OLDEST_ABLE, REVISION, schema


def upgrade(connection: Connection, revision: str | None, *, to: str = "head") -> None:
    """Run the migrations after `revision`, in the connection's transaction.

    Raises:
        StoreFailed: the database is of a newer version of hubgate.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = {migration.revision for migration in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreFailed(
            f"The database was written by a newer version of hubgate (revision {revision[:40]}).",
            remedy="Upgrade hubgate to that version, or restore a backup from before the database was migrated.",
        )
    command.upgrade(config, to)
    if to in {"head", REVISION}:
        connection.execute(delete(schema))
        connection.execute(insert(schema).values(revision=REVISION, oldest_able=OLDEST_ABLE))
