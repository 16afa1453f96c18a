"""All that is SQLite's own: the file, the pragmas, and its errors in plain words."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import URL, Connection, Engine, event

from hubgate.domain.errors import StoreFailed
from hubgate.files import create_private_folder, write_private
from hubgate.settings import database_marker

_log = logging.getLogger(__name__)

_MARK = """hubgate keeps its database beside this file. If the database is missing, hubgate does not start:
restore it from a backup, or delete this file to start over without its endpoints, tokens and keys.
"""
_WORDS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", "Find what holds it open; then try again."),
    sqlite3.SQLITE_READONLY: (
        "is read-only",
        "Give the gate's user the right to write to it and to its folder.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "Give the gate's user the right to write to it and to its folder.",
    ),
    sqlite3.SQLITE_FULL: (
        "cannot grow: the disk is full",
        "Free some space on the disk of the data folder, then try again. hubgate has emptied its vector cache there.",
    ),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written: the disk failed",
        "Check the disk, then the gate's home.",
    ),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Restore it from a copy, or move it away and register again."),
    sqlite3.SQLITE_NOTADB: (
        "is no SQLite database",
        "Restore it from a copy, or move it away and register again.",
    ),
}


def url(path: Path) -> URL:
    """Where SQLAlchemy finds the file."""
    return URL.create("sqlite", database=str(path))


def file_of(engine: Engine) -> Path | None:
    """The file of a database, if it is SQLite's."""
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name else None


def prepare(engine: Engine, patience: float) -> None:
    """Make the file, with mode 0600 in a folder of mode 0700; SQLite gives its side files the same mode.

    Transactions become real, readers and the writer go side by side, and a lock is awaited for `patience` seconds.

    Raises:
        StoreFailed: the file cannot be made.
    """
    _make(Path(engine.url.database or ""))

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver would not begin one for DDL; `begin` below does
        connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
        _write_ahead(connection, patience)
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a transaction that begins to write later may not wait


def _write_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Let readers and the writer go side by side; SQLite itself awaits no lock for this change."""
    until = monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or monotonic() > until:
                raise
            sleep(0.01)
        else:
            return


def check_in_place(path: Path, inode: int) -> None:
    """Refuse to go on with a file that is not at its path any more: what is written there is lost.

    Raises:
        StoreFailed: it was deleted, or another file is in its place.
    """
    try:
        if path.stat().st_ino == inode:
            return
    except FileNotFoundError:
        pass
    raise StoreFailed(
        f"The database {path} was deleted or replaced while the gateway runs, so no change can be kept.",
        remedy="Stop the gateway, restore the file from a backup, and start it again. Until then it answers calls "
        "with what it has in memory.",
    )


def mark(path: Path) -> None:
    """Leave a note beside a database that is in use, so that its loss is noticed at the next start."""
    if is_marked(path):
        return
    try:
        write_private(database_marker(path), _MARK.encode(), new=True)
    except OSError as error:
        _log.warning("%s could not be written: %s", database_marker(path), error.strerror)


def lost(path: Path) -> StoreFailed:
    """The error of a database that was here, and is gone or empty."""
    return StoreFailed(
        f"The database {path} is missing or empty, but this gateway had one.",
        remedy=f"Restore it from a backup. To start over without its endpoints, tokens and keys, delete {database_marker(path)}.",
    )


def is_marked(path: Path) -> bool:
    """Whether a database was in use here."""
    return database_marker(path).exists()


def _make(path: Path) -> None:
    try:
        if is_marked(path) and not (path.exists() and path.stat().st_size):
            raise lost(path)
        create_private_folder(path.parent)
        # Never open an existing one: to close it would drop the locks that SQLite holds on it in this process.
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise StoreFailed(
            f"The database {path} cannot be made: {error.strerror}.",
            remedy="Give the gate's user a folder where it may write, by HUBGATE_HOME.",
        ) from error


def explain(error: BaseException | None) -> tuple[str, str] | None:
    """What is wrong with the database, and what to do; `None` if SQLite did not say it."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else _WORDS.get(code & 0xFF)


def is_full(error: BaseException | None) -> bool:
    """Whether the disk has no room."""
    return getattr(error, "sqlite_errorcode", 0) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


def is_busy(error: BaseException | None) -> bool:
    """Whether trying again later may help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
