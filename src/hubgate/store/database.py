"""The database: one thread does all of it, one transaction after the other.

So the event loop never waits for it, and two changes never meet halfway. SQLite by default; what is SQLite's own is
in `hubgate.store.sqlite`.
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
"""Seconds that a transaction waits for another program to release the database."""

_T = TypeVar("_T")


class Database:
    """A database that is up to date, and its thread."""

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread
        path = sqlite.file_of(engine)
        self._place = (path, path.stat().st_ino) if path else None
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Called when the disk is full; what did not fit is then written again."""

    @classmethod
    async def open(cls, where: Path | URL, *, patience: float = PATIENCE) -> Database:
        """Open a database; make it, or bring it up to date, where needed.

        Args:
            where: SQLite's file, or another database in SQLAlchemy's words.
            patience: seconds to wait for a lock.

        Raises:
            StoreFailed: it cannot be used.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="hubgate-store")
        try:
            engine = await asyncio.get_running_loop().run_in_executor(thread, _open, where, patience)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(engine, thread)

    async def do(self, work: Callable[[Connection], _T]) -> _T:
        """Do the work in one transaction. If its asker is cancelled, it is done all the same.

        Raises:
            StoreFailed: the database cannot be used; nothing was changed.
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
        if self._place:
            sqlite.check_in_place(*self._place)
        return _transact(self._engine, work)

    async def close(self) -> None:
        """Finish what was begun, and let go."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()


def _open(where: Path | URL, patience: float) -> Engine:
    engine = create_engine(where if isinstance(where, URL) else sqlite.url(where), hide_parameters=True)
    if engine.dialect.name == "sqlite":
        sqlite.prepare(engine, patience)
    try:
        _transact(engine, _bring_up_to_date)
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
        what, remedy = sqlite.explain(cause) or (
            f"failed ({cause or type(error).__name__})",
            "If something else than hubgate changed it, restore it from a copy.",
        )
        kind = DiskFull if sqlite.is_full(cause) else StoreFailed
        raise kind(
            f"The database {engine.url.database} {what}.", remedy=remedy, retryable=sqlite.is_busy(cause)
        ) from error


def _bring_up_to_date(connection: Connection) -> None:
    has_one = inspect(connection).has_table("alembic_version")
    revision = (
        connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if has_one else None
    )
    path = sqlite.file_of(connection.engine)
    if revision is None and path and sqlite.is_marked(path):
        raise sqlite.lost(path)
    if revision != REVISION:
        from hubgate.store.migrate import upgrade  # noqa: PLC0415 - Alembic costs every other start 0.2 s

        upgrade(connection, revision)
