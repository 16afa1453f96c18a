"""The database. One thread runs all transactions, one after the other, so the event loop never waits for it.

SQLite by default, or a PostgreSQL server; what is specific to each is in `sqlite.py` and `postgres.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.exc import SQLAlchemyError

from hubgate.core.off_loop import outlasting
from hubgate.domain.errors import DiskFull, InUse, StoreFailed
from hubgate.store.backend import PATIENCE, Backend, Link, Lock
from hubgate.store.schema import versions
from hubgate.store.sqlite import SqliteFile

_TRIES = 5
"""How often a transaction is run that keeps colliding with those of other gateways."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Database:
    """A migrated database, and its thread."""

    def __init__(self, backend: Backend, thread: ThreadPoolExecutor) -> None:
        self._backend = backend
        self._thread = thread
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Called when the disk is full; the transaction is then retried."""

    @classmethod
    async def open(
        cls, location: Path | str, *, patience: float = PATIENCE, migrate: bool = True
    ) -> Database:
        """Open a database. Create or migrate it if needed.

        Args:
            location: SQLite's file, or the URL of a PostgreSQL database.
            patience: seconds to wait for a lock.
            migrate: whether it may be created or migrated.

        Raises:
            StoreFailed: it cannot be used.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="hubgate-store")
        try:
            backend = await asyncio.get_running_loop().run_in_executor(
                thread, open_backend, location, patience, migrate
            )
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(backend, thread)

    async def do(self, work: Callable[[Connection], _T]) -> _T:
        """Run `work` in one transaction, even if the caller is cancelled meanwhile.

        On PostgreSQL it may run several times, each time in a new transaction.

        Raises:
            StoreFailed: the database cannot be used. Nothing was changed, unless the connection to a server was lost
                while it committed.
        """
        try:
            return await self._in_thread(transact, self._backend, work)
        except DiskFull:
            if self.make_room is None:
                raise
            await self.make_room()
        return await self._in_thread(transact, self._backend, work)

    @property
    def is_shared(self) -> bool:
        """Whether several gateways may use it."""
        return self._backend.is_shared

    def publish(self, connection: Connection) -> None:
        """Wake the gateways that listen, once the transaction is committed."""
        self._backend.publish(connection)

    def link(self, on_publish: Callable[[], None]) -> Link:
        """See `Backend.link`."""
        return self._backend.link(on_publish)

    def try_lock(self, connection: Connection, lock: Lock) -> bool:
        """Take a lock until the end of the transaction, unless another gateway has it."""
        return self._backend.lock(connection, lock, wait=False)

    def lock(self, connection: Connection, lock: Lock) -> None:
        """Wait for a lock, and hold it until the end of the transaction."""
        self._backend.lock(connection, lock, wait=True)

    @asynccontextmanager
    async def holding(self, lock: Lock, conflict: InUse) -> AsyncIterator[None]:
        """Hold a lock over several transactions. It needs a connection of its own.

        Raises:
            InUse: `conflict`, if another gateway has it.
            StoreFailed: the database cannot be used.
        """
        held = await self._in_thread(_hold, self._backend, lock)
        if held is None:
            raise conflict
        try:
            yield
        finally:
            await self._in_thread(held.close)

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        loop = asyncio.get_running_loop()
        return await outlasting(loop.run_in_executor(self._thread, work, *arguments))

    async def close(self) -> None:
        """Finish running transactions and close the database."""
        await self._in_thread(self._backend.engine.dispose)
        self._thread.shutdown()


def open_backend(location: Path | str, patience: float = PATIENCE, migrate: bool = True) -> Backend:
    """Open a database in the calling thread: see `Database.open`."""
    backend: Backend
    if isinstance(location, Path):
        backend = SqliteFile(location, patience)
    else:
        from hubgate.store.postgres import PostgresDatabase  # noqa: PLC0415 - its driver is optional

        backend = PostgresDatabase(location, patience)
    try:
        transact(backend, lambda connection: _migrate(backend, connection, allowed=migrate))
        backend.opened()
    except BaseException:
        backend.engine.dispose()
        raise
    return backend


def transact(backend: Backend, work: Callable[[Connection], _T]) -> _T:
    """Run `work` in one transaction, and again if it collides with another one.

    Raises:
        StoreFailed: the database cannot be used.
    """
    backend.check()
    tries = 0
    while True:
        tries += 1
        try:
            with backend.engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            if tries == _TRIES or not backend.is_collision(error):
                raise backend.failure(error) from error


def insert_or_update(connection: Connection, table: Table) -> Any:
    """An INSERT with `on_conflict_do_update`, which SQLAlchemy has for each dialect separately."""
    return import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)


def _hold(backend: Backend, lock: Lock) -> Connection | None:
    connection = None
    try:
        connection = backend.engine.connect()
        if backend.lock(connection, lock, wait=False):
            return connection
    except SQLAlchemyError as error:
        if connection is not None:
            connection.close()
        raise backend.failure(error) from error
    connection.close()
    return None


def _migrate(backend: Backend, connection: Connection, *, allowed: bool) -> None:
    stored = versions.stored_versions(connection)
    outdated = versions.outdated(stored)
    if not outdated:
        return
    if not stored:
        backend.check_new()
    if not allowed:
        state = "needs a migration" if stored else "has no tables"
        raise StoreFailed(f"The database {state}.", remedy="Run `hubgate migrate`.")
    backend.lock(connection, Lock.MIGRATION, wait=True)
    stored = versions.stored_versions(connection)  # another gateway may have been first
    for schema in versions.outdated(stored):
        versions.bring_up_to_date(connection, schema, stored.get(schema.part))
