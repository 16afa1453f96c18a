"""All that is SQLite's own: the file, the pragmas, and its errors in plain words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, event

from hubgate.domain.errors import StoreFailed
from hubgate.store.files import private_folder

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

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
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "Free some space; then try again."),
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


def _make(path: Path) -> None:
    try:
        private_folder(path.parent)
        # Never open an existing one: to close it would drop the locks that SQLite holds on it in this process.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreFailed(
            f"The database {path} cannot be made: {error.strerror}.",
            remedy="Give the gate's user a folder where it may write, by HUBGATE_HOME.",
        ) from error


def explain(error: BaseException | None) -> tuple[str, str] | None:
    """What is wrong with the database, and what to do; `None` if SQLite did not say it."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else _WORDS.get(code & 0xFF)


def is_busy(error: BaseException | None) -> bool:
    """Whether trying again later may help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
