"""What is specific to SQLite: the file, the pragmas, and its errors in plain words."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from hubgate.domain.errors import DiskFull, StoreFailed
from hubgate.files import create_private_folder, write_private
from hubgate.settings import database_marker

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.store.backend import Link, Lock

_log = logging.getLogger(__name__)

_MARK = """hubgate keeps its database beside this file. If the database is missing, hubgate does not start:
restore it from a backup, or delete this file to start over without its endpoints, tokens and keys.
"""
_ERRORS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", "Close the other program, then try again."),
    sqlite3.SQLITE_READONLY: (
        "is read-only",
        "Give hubgate's user the right to write to it and to its folder.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "Give hubgate's user the right to write to it and to its folder.",
    ),
    sqlite3.SQLITE_FULL: (
        "cannot grow because the disk is full",
        "Free some space on the disk of the data folder, then try again. hubgate has already emptied its vector cache.",
    ),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written because the disk failed",
        "Check the disk of the data folder.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "is damaged",
        "Restore it from a backup, or move it away and register your endpoints again.",
    ),
    sqlite3.SQLITE_NOTADB: (
        "is not a SQLite database",
        "Restore it from a backup, or move it away and register your endpoints again.",
    ),
}


class SqliteFile:
    """`hubgate.store.backend.Backend` for a file.

    It has mode 0600 in a folder of mode 0700; SQLite gives its side files the same mode. DDL runs in transactions,
    readers do not block the writer, and a lock is awaited for `patience` seconds.
    """

    is_shared = False

    def __init__(self, path: Path, patience: float) -> None:
        """Raises: StoreFailed: the file cannot be created."""
        self._path = path
        self._inode: int | None = None
        self.engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True)
        _create(path)

        @event.listens_for(self.engine, "connect")
        def _(connection: sqlite3.Connection, _record: Any) -> None:
            connection.isolation_level = None  # the driver starts no transaction for DDL; `begin` below does
            connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
            _write_ahead(connection, patience)
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(self.engine, "begin")
        def _(connection: Connection) -> None:
            # A transaction that first reads may not wait for the lock when it writes.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def check(self) -> None:
        """Check that the open file is still at its path."""
        if self._inode is not None:
            check_in_place(self._path, self._inode)

    def check_new(self) -> None:
        """Refuse an empty file in place of a database that was lost."""
        if is_marked(self._path):
            raise database_lost(self._path)

    def opened(self) -> None:
        mark(self._path)
        self._inode = self._path.stat().st_ino

    def lock(self, connection: Connection, lock: Lock, *, wait: bool) -> bool:  # noqa: ARG002 - the port's signature
        """Always true: the lock of the home keeps other gateways away, and transactions have the file to themselves."""
        return True

    def publish(self, connection: Connection) -> None:
        """Nobody listens."""

    def link(self, on_publish: Callable[[], None]) -> Link:
        raise NotImplementedError("a file is not shared")

    def failure(self, error: SQLAlchemyError) -> StoreFailed:
        cause = getattr(error, "orig", None)
        problem, remedy = explain(cause) or (
            f"failed ({cause or type(error).__name__})",
            "If another program changed it, restore it from a backup.",
        )
        kind = DiskFull if is_full(cause) else StoreFailed
        return kind(f"The database {self._path} {problem}.", remedy=remedy, retryable=is_busy(cause))

    def is_collision(self, error: SQLAlchemyError) -> bool:  # noqa: ARG002 - the port's signature
        """Never: transactions wait for each other."""
        return False


def _write_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Switch to write-ahead logging. SQLite itself waits for no lock here, so this retries."""
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
    """Check that the open file is still at its path: otherwise whatever is written is lost.

    Raises:
        StoreFailed: it was deleted or replaced.
    """
    try:
        if path.stat().st_ino == inode:
            return
    except FileNotFoundError:
        pass
    raise StoreFailed(
        f"The database {path} was deleted or replaced while hubgate is running, so changes cannot be saved.",
        remedy="Stop hubgate, restore the file from a backup, and start it again. Until then it serves calls from "
        "memory.",
    )


def mark(path: Path) -> None:
    """Leave a file beside the database, so that its loss is noticed at the next start."""
    if is_marked(path):
        return
    try:
        write_private(database_marker(path), _MARK.encode())
    except OSError as error:
        _log.warning("%s could not be written: %s", database_marker(path), error.strerror)


def database_lost(path: Path) -> StoreFailed:
    """The error for a database that existed and is now missing or empty."""
    return StoreFailed(
        f"The database {path} is missing or empty, but this gateway had one.",
        remedy=f"Restore it from a backup. To start over without its endpoints, tokens and keys, delete {database_marker(path)}.",
    )


def is_marked(path: Path) -> bool:
    """Whether there was a database at this path."""
    return database_marker(path).exists()


def _create(path: Path) -> None:
    try:
        if is_marked(path) and not (path.exists() and path.stat().st_size):
            raise database_lost(path)
        create_private_folder(path.parent)
        # Never open an existing file: closing it would drop the locks that SQLite holds on it in this process.
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise StoreFailed(
            f"The database {path} cannot be created: {error.strerror}.",
            remedy="Set HUBGATE_HOME to a folder that hubgate's user may write to.",
        ) from error


def explain(error: BaseException | None) -> tuple[str, str] | None:
    """The problem and the remedy; `None` if this is not an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else _ERRORS.get(code & 0xFF)


def is_full(error: BaseException | None) -> bool:
    """Whether the disk is full."""
    return getattr(error, "sqlite_errorcode", 0) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


def is_busy(error: BaseException | None) -> bool:
    """Whether a retry may help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
