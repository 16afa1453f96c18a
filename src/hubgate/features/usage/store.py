"""Usage of endpoints, by hour; old hours are merged into days. All sums are computed by the database."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    case,
    cast,
    delete,
    func,
    literal,
    select,
    text,
    tuple_,
)

from hubgate.domain.records import BUCKETS, COUNTS, DAY, HOUR, Latency, Slot, Tally, UsageQuery, UsageRow
from hubgate.store.backend import Lock
from hubgate.store.cluster.expiring_values import NOW
from hubgate.store.database import Database, insert_or_update
from hubgate.store.schema.versions import Schema
from hubgate.store.tables import NAMING, expiring_values

metadata = MetaData(naming_convention=NAMING)
usage = Table(
    "usage",
    metadata,
    Column("span", Integer, primary_key=True),  # seconds: an hour, or a day for older rows
    Column("at", BigInteger, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("texts", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("queue_seconds", Double, nullable=False),
    Column("cache_hits", BigInteger, nullable=False),
    Column("cache_misses", BigInteger, nullable=False),
    Column("upstream_requests", BigInteger, nullable=False),
    Column("saved_requests", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False, server_default="0"),
    *(
        column
        for kind in ("interactive", "bulk")
        for column in (
            Column(f"{kind}_fastest", Double),
            Column(f"{kind}_slowest", Double),
            *(Column(f"{kind}_{n}", BigInteger, nullable=False, server_default="0") for n in range(BUCKETS)),
        )
    ),
)

usage_causes = Table(
    "usage_causes",
    metadata,
    Column("span", Integer, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
)

SCHEMA = Schema(part="usage", metadata=metadata)

KEPT_HOURS = 35 * DAY
KEPT_DAYS = 400 * DAY
"""Seconds for which hours and days are kept."""
MAX_ROWS = 500_000
"""Of hours, and of days. With more, hours are merged and days deleted earlier."""
_KEPT_BATCH = 7 * DAY
"""Seconds for which the number of a gateway's last batch is kept."""

_CLASSES = ("interactive", "bulk")
_BUCKETS = {kind: tuple(f"{kind}_{n}" for n in range(BUCKETS)) for kind in _CLASSES}
_SUMS = {usage: (*COUNTS, *_BUCKETS["interactive"], *_BUCKETS["bulk"]), usage_causes: ("requests",)}
_MINIMA = {usage: tuple(f"{kind}_fastest" for kind in _CLASSES), usage_causes: ()}
_MAXIMA = {usage: tuple(f"{kind}_slowest" for kind in _CLASSES), usage_causes: ()}


class SqlUsage:
    """Stored usage. All methods are atomic and raise `StoreFailed`."""

    def __init__(self, database: Database, *, max_rows: int = MAX_ROWS) -> None:
        self._database = database
        self._max_rows = max_rows
        self._writer = secrets.token_hex(8)

    async def add(self, tallies: Mapping[Slot, Tally], batch: int | None = None) -> None:
        """Add to the hourly tallies.

        Args:
            tallies: what to add.
            batch: a number that grows with each batch. A batch that was added before is not added again: if a call
                failed, it may have been added nevertheless.
        """

        def work(connection: Connection) -> None:
            if batch is not None and not self._is_new(connection, batch):
                return
            _add(connection, usage, [_row(slot, tally) for slot, tally in tallies.items()])
            causes = [
                {**_place(slot), "cause": cause, "requests": requests}
                for slot, tally in tallies.items()
                for cause, requests in tally.causes.items()
            ]
            _add(connection, usage_causes, causes)

        await self._database.do(work)

    async def read(
        self, query: UsageQuery, limit: int, after: tuple[str | int, ...] | None = None
    ) -> Sequence[UsageRow]:
        """Usage by group, in the order of the groups, after the group `after`."""
        table = usage_causes if "cause" in query.by else usage
        groups = [_group(table, name).label(f"by_{n}") for n, name in enumerate(query.by)]
        rows = select(*groups, *_totals(table)).where(*_conditions(table, query)).limit(limit)
        if groups:
            rows = rows.group_by(*groups).order_by(*groups)
        if after:  # a group is a function of its rows, so earlier groups are not summed again
            places = [_group(table, name) for name in query.by]
            values = [literal(value, place.type) for value, place in zip(after, places, strict=True)]
            rows = rows.where(tuple_(*places) > tuple_(*values))

        def work(connection: Connection) -> list[UsageRow]:
            return [
                UsageRow(tuple(row[: len(groups)]), _tally(row._mapping))  # noqa: SLF001 - SQLAlchemy's name
                for row in connection.execute(rows)
                if row.requests is not None  # a sum of nothing
            ]

        return await self._database.do(work)

    async def roll(self, now: float) -> None:
        """Merge old hours into days, and delete old days, unless another gateway is doing it."""
        today = int(now) // DAY * DAY

        def work(connection: Connection) -> None:
            if not self._database.try_lock(connection, Lock.USAGE):
                return
            _keep_writers_away(connection)
            _to_days(connection, today - KEPT_HOURS)
            while (oldest := self._too_many(connection, HOUR)) is not None and oldest < today:
                _to_days(connection, oldest + DAY)
            _delete(connection, DAY, today - KEPT_DAYS)
            while (oldest := self._too_many(connection, DAY)) is not None:
                _delete(connection, DAY, oldest + DAY)

        await self._database.do(work)

    def _is_new(self, connection: Connection, batch: int) -> bool:
        """Whether a batch was not added yet. A server can lose the connection after a commit; a file cannot."""
        if connection.dialect.name == "sqlite":
            return True
        new = insert_or_update(connection, expiring_values).values(
            name=f"usage {self._writer}", value="", number=batch, until=NOW + literal(_KEPT_BATCH)
        )
        later = new.on_conflict_do_update(
            index_elements=[expiring_values.c.name],
            set_={"number": new.excluded.number, "until": new.excluded.until},
            where=expiring_values.c.number < new.excluded.number,
        )
        return connection.execute(later.returning(expiring_values.c.number)).first() is not None

    def _too_many(self, connection: Connection, span: int) -> int | None:
        """The oldest day, if there are too many rows."""
        measure = select(func.count(), func.min(usage.c.at)).where(usage.c.span == span)
        rows, oldest = connection.execute(measure).one()
        return int(oldest) // DAY * DAY if rows > self._max_rows else None


def _place(slot: Slot) -> dict[str, Any]:
    return {"span": HOUR, **slot._asdict()}


def _row(slot: Slot, tally: Tally) -> dict[str, Any]:
    row = {**_place(slot), **{name: getattr(tally, name) for name in COUNTS}}
    for kind, latency in zip(_CLASSES, (tally.latency, tally.bulk_latency), strict=True):
        row |= zip(_BUCKETS[kind], latency.counts, strict=True)
        row |= {f"{kind}_fastest": latency.fastest, f"{kind}_slowest": latency.slowest}
    return row


def _tally(row: Mapping[Any, Any]) -> Tally:
    counts = {name: row[name] for name in COUNTS if name in row}
    if len(counts) < len(COUNTS):  # rows by cause have requests alone
        return Tally(**counts)
    latency, bulk = (
        Latency([row[name] for name in _BUCKETS[kind]], row[f"{kind}_fastest"], row[f"{kind}_slowest"])
        for kind in _CLASSES
    )
    return Tally(**counts, latency=latency, bulk_latency=bulk)


def _add(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        # In the order of the key, so that gateways that add at the same time wait for each other instead of deadlocking.
        key = [column.name for column in table.primary_key]
        connection.execute(
            _adding(connection, table), sorted(rows, key=lambda row: [row[name] for name in key])
        )


def _adding(connection: Connection, table: Table, source: Select[Any] | None = None) -> Any:
    """An insert that adds its values to an existing row."""
    statement = insert_or_update(connection, table)
    if source is not None:
        statement = statement.from_select(source.selected_columns.keys(), source)
    added = {name: table.c[name] + statement.excluded[name] for name in _SUMS[table]}
    for name in (*_MINIMA[table], *_MAXIMA[table]):
        old, new = table.c[name], statement.excluded[name]
        stays = old < new if name in _MINIMA[table] else old > new
        added[name] = case((stays, old), else_=func.coalesce(new, old))
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=added)


def _keep_writers_away(connection: Connection) -> None:
    """Let no other gateway add to hours that are merged and then deleted. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        names = ", ".join(table.name for table in _SUMS)
        connection.execute(text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))


def _to_days(connection: Connection, before: int) -> None:
    """Merge the hours before the start of a day."""
    for table in _SUMS:
        span, day = literal(DAY).label("span"), table.c.at - table.c.at % DAY
        kept = [column for column in table.primary_key if column.name not in {"span", "at"}]
        old = (table.c.span == HOUR, table.c.at < before)
        if connection.execute(select(table.c.at).where(*old).limit(1)).first() is None:
            continue  # compiling the statement takes longer than everything else at a start
        days = select(span, day.label("at"), *kept, *_totals(table)).where(*old).group_by(day, *kept)
        connection.execute(_adding(connection, table, days))
    _delete(connection, HOUR, before)


def _totals(table: Table) -> list[ColumnElement[Any]]:
    """The aggregate of each number of a table."""
    how = ((_sum, _SUMS), (func.min, _MINIMA), (func.max, _MAXIMA))
    return [of(table.c[name]).label(name) for of, names in how for name in names[table]]


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A sum of the column's own type: PostgreSQL's sum of integers is a decimal number."""
    return cast(func.sum(column), column.type) if isinstance(column.type, BigInteger) else func.sum(column)


def _delete(connection: Connection, span: int, before: int) -> None:
    for table in _SUMS:
        connection.execute(delete(table).where(table.c.span == span, table.c.at < before))


def _conditions(table: Table, query: UsageQuery) -> list[ColumnElement[bool]]:
    conditions = [table.c.at >= query.start, table.c.at < query.end]
    for name in ("endpoint", "key"):
        wanted = getattr(query, name)
        if wanted is not None:
            conditions.append(table.c[name] == wanted)
    return conditions


def _group(table: Table, name: str) -> ColumnElement[Any]:
    if name == "hour":
        return table.c.at
    if name == "day":
        return table.c.at - table.c.at % DAY
    return table.c[name]
