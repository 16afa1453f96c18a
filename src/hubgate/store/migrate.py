"""Bring an older database, or an empty one, up to date. The only module that imports Alembic: it takes 0.2 s."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from hubgate.domain.errors import StoreFailed


def upgrade(connection: Connection, revision: str | None, *, to: str = "head") -> None:
    """Run the steps after `revision`, in the connection's own transaction.

    Raises:
        StoreFailed: the database is newer than this hubgate.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreFailed(
            f"The database was written by a newer hubgate (its revision is {revision[:40]}).",
            remedy="Run that version, or restore the copy that you made before it.",
        )
    command.upgrade(config, to)
