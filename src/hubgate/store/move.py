"""Moving a SQLite database to PostgreSQL. Rows keep their ids, so that sealed tokens open with the same secret key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Table, func, insert, select

from hubgate.domain.errors import StoreFailed
from hubgate.store.backend import Lock
from hubgate.store.database import open_backend, transact
from hubgate.store.schema.versions import schemas
from hubgate.store.sealing import TokenColumns
from hubgate.store.tables import (
    audit,
    changes,
    connections,
    endpoints,
    feed,
    gateways,
    keys,
    notes,
    schema_versions,
)
from hubgate.store.vault import Vault

_NOTE = "moved from"
_ROWS = 500
"""Rows that are copied at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    rows: Mapping[str, int]
    """How many, by table."""
    unreadable: Sequence[str]
    """Endpoints and connections whose tokens cannot be decrypted."""
    before: bool
    """Whether an earlier move did it, and this one changed nothing."""


def move(file: Path, url: str, vault: Vault) -> Moved:
    """Copy a SQLite database into an empty PostgreSQL database, in one transaction.

    Raises:
        StoreFailed: a database cannot be used, or the second one is not empty. Nothing was changed.
    """
    source, target = open_backend(file), open_backend(url)
    try:

        def read(old: Connection) -> Moved:
            mark = _identity(old)

            def write(new: Connection) -> Moved:
                target.lock(new, Lock.MIGRATION, wait=True)
                earlier = new.execute(select(notes.c.value).where(notes.c.name == _NOTE)).scalar()
                if earlier != mark:
                    _require_empty(new)
                    for table in _copied():
                        _copy(old, new, table)
                    new.execute(insert(notes).values(name=_NOTE, value=mark))
                return Moved(
                    rows={table.name: _count(old, table) for table in _copied()},
                    unreadable=_unreadable(new, vault),
                    before=earlier == mark,
                )

            return transact(target, write)

        return transact(source, read)
    finally:
        source.engine.dispose()
        target.engine.dispose()


def _copied() -> list[Table]:
    tables = (table for schema in schemas() for table in schema.metadata.sorted_tables)
    return [table for table in tables if table not in (schema_versions, feed, changes, gateways)]


def _identity(connection: Connection) -> str:
    """Of the data: a digest of the ids of everything that has a random one."""
    digest = hashlib.sha256()
    for table in (endpoints, connections, keys):
        for row_id in connection.execute(select(table.c.id).order_by(table.c.id)).scalars():
            digest.update(f"{table.name} {row_id}\n".encode())
    return digest.hexdigest()


def _require_empty(connection: Connection) -> None:
    filled = [table.name for table in _copied() if connection.execute(select(table).limit(1)).first()]
    if filled:
        raise StoreFailed(
            f"The PostgreSQL database is not empty: there are rows in {', '.join(filled)}.",
            remedy="Move to a new database, or drop this one and create it again.",
        )


def _copy(old: Connection, new: Connection, table: Table) -> None:
    for rows in _batches(old, table):
        new.execute(insert(table), rows)
    copied, expected = _count(new, table), _count(old, table)
    if copied != expected:
        raise StoreFailed(
            f"{copied} of {expected} rows of {table.name} arrived.", remedy="Nothing was changed. Try again."
        )
    if table is audit and copied:
        newest = select(func.setval(func.pg_get_serial_sequence("audit", "id"), func.max(audit.c.id)))
        new.execute(newest)


def _batches(connection: Connection, table: Table) -> Iterator[list[dict[str, object]]]:
    with closing(connection.execute(select(table))) as result:
        for rows in result.mappings().partitions(_ROWS):
            yield [dict(row) for row in rows]


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _unreadable(connection: Connection, vault: Vault) -> list[str]:
    tokens = TokenColumns(vault)
    return [
        f"{kind} {row.name}"
        for kind, table in (("endpoint", endpoints), ("connection", connections))
        for row in connection.execute(
            select(table).where(table.c.token_box.is_not(None)).order_by(table.c.name)
        )
        if tokens.open(row, kind) is None
    ]
