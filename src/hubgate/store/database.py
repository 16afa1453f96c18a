"""The database. One thread runs all transactions, one after the other, so the event loop never waits for it.

SQLite by default; what is specific to SQLite is in `hubgate.store.sqlite`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from hubgate.domain.errors import DiskFull, StoreFailed
from hubgate.store import sqlite
from hubgate.store.tables import REVISION

PATIENCE = 5.0
"""Seconds that a transaction waits for a lock of another program."""

_T = TypeVar("_T")


class Database:
    """A migrated database, and its thread."""

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread
        path = sqlite.file_of(engine)
        self._file = (path, path.stat().st_ino) if path else None
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Called when the disk is full; the transaction is then retried."""

    @classmethod
    async def open(cls, location: Path | URL, *, patience: float = PATIENCE) -> Database:
        """Open a database. Create or migrate it if needed.

        Args:
            location: SQLite's file, or the URL of another database.
            patience: seconds to wait for a lock.

        Raises:
            StoreFailed: it cannot be used.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="hubgate-store")
        try:
            engine = await asyncio.get_running_loop().run_in_executor(thread, _open, location, patience)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(engine, thread)

    async def do(self, work: Callable[[Connection], _T]) -> _T:
        """Run `work` in one transaction, even if the caller is cancelled meanwhile.

        Raises:
            StoreFailed: the database cannot be used. Nothing was changed.
        """
        try:
            return await self._in_thread(work)
        except DiskFull:
            if self.make_room is None:
                raise
            await self.make_room()
        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[Connection], _T]) -> _T:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self._transact, work))

    def _transact(self, work: Callable[[Connection], _T]) -> _T:
        if self._file:
            sqlite.check_in_place(*self._file)
        return _transact(self._engine, work)

    async def close(self) -> None:
        """Finish running transactions and close the database."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()


def _open(location: Path | URL, patience: float) -> Engine:
    engine = create_engine(
        location if isinstance(location, URL) else sqlite.url(location), hide_parameters=True
    )
    if engine.dialect.name == "sqlite":
        sqlite.prepare(engine, patience)
    try:
        _transact(engine, _migrate)
        if path := sqlite.file_of(engine):
            sqlite.mark(path)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _transact(engine: Engine, work: Callable[[Connection], _T]) -> _T:
    try:
        with engine.begin() as connection:
            return work(connection)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        problem, remedy = sqlite.explain(cause) or (
            f"failed ({cause or type(error).__name__})",
            "If another program changed it, restore it from a backup.",
        )
        kind = DiskFull if sqlite.is_full(cause) else StoreFailed
        raise kind(
            f"The database {engine.url.database} {problem}.", remedy=remedy, retryable=sqlite.is_busy(cause)
        ) from error


def _migrate(connection: Connection) -> None:
    has_revision = inspect(connection).has_table("alembic_version")
    revision = (
        connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if has_revision else None
    )
    path = sqlite.file_of(connection.engine)
    if revision is None and path and sqlite.is_marked(path):
        raise sqlite.database_lost(path)
    if revision != REVISION:
        from hubgate.store.migrations import upgrade  # noqa: PLC0415 - importing Alembic takes 0.2 s

        upgrade(connection, revision)
