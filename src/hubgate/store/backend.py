"""What the database needs of each kind of database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from hubgate.domain.errors import StoreFailed

PATIENCE = 5.0
"""Seconds that a transaction waits for a lock of another program."""


class Lock(IntEnum):
    """What only one gateway of a shared database does at a time. All versions of hubgate must agree on the values."""

    MIGRATION = 1
    USAGE = 2
    CONFIGURATION = 3
    DEPLOYMENTS = 4
    NAMES = 5
    """An endpoint is added or removed, or an alias is changed."""


class Link(Protocol):
    """A connection for short statements beside the transactions, which takes little CPU time."""

    async def ask(self, statement: str, *arguments: str | float | bool) -> Sequence[Sequence[str]]:
        """Execute a statement with $1 for its first argument; returns its rows as text. Raises: StoreFailed."""
        ...

    async def close(self) -> None: ...


class Backend(Protocol):
    """What is specific to a kind of database. Used in one thread."""

    engine: Engine
    is_shared: bool
    """Whether several gateways may use it."""

    def check(self) -> None:
        """Called before each transaction. Raises: StoreFailed: what it writes would be lost."""
        ...

    def check_new(self) -> None:
        """Called if the database has no tables. Raises: StoreFailed: it should have some."""
        ...

    def opened(self) -> None:
        """Called when the tables are there."""
        ...

    def lock(self, connection: Connection, lock: Lock, *, wait: bool) -> bool:
        """Take a lock until the end of the transaction; returns whether this gateway has it."""
        ...

    def publish(self, connection: Connection) -> None:
        """Wake the gateways that listen, once the transaction is committed. Only if it is shared."""
        ...

    def link(self, on_publish: Callable[[], None]) -> Link:
        """A link that listens. Only if it is shared.

        Args:
            on_publish: called when it listens, then after each transaction that has published. It may miss some.
        """
        ...

    def failure(self, error: SQLAlchemyError) -> StoreFailed:
        """The error in plain words, without values and without secrets."""
        ...

    def is_collision(self, error: SQLAlchemyError) -> bool:
        """Whether the transaction collided with another one and can be run again at once."""
        ...
