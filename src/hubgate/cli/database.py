"""`hubgate migrate` and `hubgate move`: the database itself, without a gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hubgate.settings import Settings, read_database_url
from hubgate.terminal.client import CommandFailed, require_home

if TYPE_CHECKING:
    from pathlib import Path

_NOUNS = {
    "endpoints": "endpoints",
    "keys": "keys",
    "connections": "connections",
    "usage": "usage rows",
    "audit": "audit entries",
}


def migrate() -> None:
    """Create the tables of the database, or bring them up to date. `hubgate serve` does it, too, if HUBGATE_MIGRATE is auto."""
    from hubgate.store.database import open_backend, transact
    from hubgate.store.lock import HomeLock
    from hubgate.store.schema.versions import stored_versions

    settings = Settings.from_env()
    location: Path | str = settings.database_url or settings.database
    if settings.database_url:
        backend = open_backend(location)
    else:
        require_home(settings)
        with HomeLock(settings.home):
            backend = open_backend(location)
    versions = transact(backend, stored_versions)
    backend.engine.dispose()
    print(
        f"The tables are up to date: {', '.join(f'{part} {version}' for part, version in versions.items())}."
    )


def move(
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The empty PostgreSQL database. Default: HUBGATE_DATABASE_URL."),
    ] = None,
) -> None:
    """Copy the SQLite database of this home, with its tokens, keys and usage, into an empty PostgreSQL database."""
    from hubgate.store.lock import HomeLock
    from hubgate.store.move import move as copy
    from hubgate.store.vault import Vault

    settings = Settings.from_env()
    url = settings.database_url if to is None else read_database_url("--to", to)
    if url is None:
        raise CommandFailed("There is no database to move to: use --to, or set HUBGATE_DATABASE_URL.")
    source = replace(settings, database_url=None)
    require_home(source)
    with HomeLock(source.home):
        vault = Vault.from_settings(source)
        moved = copy(source.database, url, vault)
    if moved.before:
        print("The data of this home was moved to that database before. Nothing was changed.")
    else:
        counts = ", ".join(f"{noun} {moved.rows[table]}" for table, noun in _NOUNS.items())
        print(f"Moved: {counts}. {source.database} was not changed.")
    if moved.unreadable:
        print(f"The tokens of these cannot be decrypted, here or there: {', '.join(moved.unreadable)}.")
    key = (
        "HUBGATE_SECRET_KEY as it is"
        if source.secret_keys
        else f"the keys in {source.secret_key_file}, as HUBGATE_SECRET_KEY"
    )
    print(f"Start every gateway with HUBGATE_DATABASE_URL and with the same secret key: {key}.")
