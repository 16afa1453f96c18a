"""Files and batches of OpenAI's API as rows. Which gateway works on a batch is a claim with an end, in its row.

Claims begin and end by the clock of the database. A batch that was given back keeps the time in `owned_until`, without an
owner; an owner whose time is over was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from hubgate.features.bulk.batches.model import (
    UNFINISHED,
    Batch,
    BatchStatus,
    ClaimLost,
    Held,
    Page,
    StoredFile,
    Turns,
)
from hubgate.store.cluster.expiring_values import database_time
from hubgate.store.database import Database, insert_or_update
from hubgate.store.schema.versions import Schema
from hubgate.store.tables import NAMING

metadata = MetaData(naming_convention=NAMING)
batch_files = Table(
    "batch_files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", Text, nullable=False),
    Column("folder", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", Text, nullable=False),
    Column("folder", String(32), nullable=False),
    Column("input_file", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("run", Integer, nullable=False),
    Column("owner", String(32)),  # the gateway process that works on it
    Column("owned_until", Double),
    Column("cancel_at", Double),
    Column("notify_at", Double),
    Column("state", Text, nullable=False),  # a Batch in JSON; the columns take precedence
)

SCHEMA = Schema(part="bulk", metadata=metadata)

_COLUMNS = ("id", "key", "folder", "input_file", "created_at", "status", "run", "cancel_at", "notify_at")
_CANDIDATES = 20
_STATE = msgspec.json.Decoder(Batch)
_unfinished = batches.c.status.in_(sorted(UNFINISHED))


class SqlBatches:
    """Stored files and batches. All methods raise `StoreFailed`; `key` is `None` for all keys."""

    def __init__(self, database: Database, clock: Callable[[Connection], float] = database_time) -> None:
        self._database = database
        self._clock = clock

    async def add_file(self, file: StoredFile) -> None:
        """Add a file, or replace one with the same id."""
        values = msgspec.to_builtins(file)

        def work(connection: Connection) -> None:
            new = insert_or_update(connection, batch_files).values(values)
            connection.execute(new.on_conflict_do_update(index_elements=[batch_files.c.id], set_=values))

        await self._database.do(work)

    async def file(self, file_id: str) -> StoredFile | None:
        found = select(batch_files).where(batch_files.c.id == file_id)

        def work(connection: Connection) -> StoredFile | None:
            row = connection.execute(found).mappings().one_or_none()
            return _file(row) if row else None

        return await self._database.do(work)

    async def files(
        self, page: Page, now: float, *, key: str | None = None, purpose: str | None = None
    ) -> Sequence[StoredFile]:
        """Files that have not expired."""
        wanted = _page(batch_files, page, key).where(batch_files.c.expires_at > now)
        if purpose is not None:
            wanted = wanted.where(batch_files.c.purpose == purpose)
        return await self._database.do(lambda c: [_file(row) for row in c.execute(wanted).mappings()])

    async def remove_file(self, file_id: str) -> None:
        await self._database.do(lambda c: c.execute(delete(batch_files).where(batch_files.c.id == file_id)))

    async def expired_files(self, folder: str, now: float) -> Sequence[StoredFile]:
        """Files that expired, but not the input of an unfinished batch."""
        files = batch_files.c
        is_read = exists().where(batches.c.input_file == files.id, _unfinished)
        expired = select(batch_files).where(files.folder == folder, files.expires_at <= now, ~is_read)
        return await self._database.do(lambda c: [_file(row) for row in c.execute(expired).mappings()])

    async def held(self, folder: str) -> Mapping[str, Held]:
        """The files in a folder, by the id of their key."""
        files = batch_files.c
        sums = select(files.key, func.count(), func.sum(files.size)).where(files.folder == folder)
        rows = sums.group_by(files.key)
        return await self._database.do(
            lambda c: {key: Held(count, int(size)) for key, count, size in c.execute(rows)}
        )

    async def add_batch(self, batch: Batch, most: int) -> bool:
        """Add a batch, unless its key has that many that have not ended; returns whether it was added."""
        of_key = select(func.count()).select_from(batches).where(batches.c.key == batch.key, _unfinished)

        def work(connection: Connection) -> bool:
            if connection.execute(of_key).scalar_one() >= most:
                return False
            connection.execute(insert(batches).values(_values(batch)))
            return True

        return await self._database.do(work)

    async def batch(self, batch_id: str) -> Batch | None:
        found = select(batches).where(batches.c.id == batch_id)

        def work(connection: Connection) -> Batch | None:
            row = connection.execute(found).mappings().one_or_none()
            return _batch(row) if row else None

        return await self._database.do(work)

    async def batches(self, page: Page, key: str | None = None) -> Sequence[Batch]:
        wanted = _page(batches, page, key)
        return await self._database.do(lambda c: [_batch(row) for row in c.execute(wanted).mappings()])

    async def unfinished_input(self, file_id: str) -> str | None:
        """The id of an unfinished batch that reads this file."""
        found = select(batches.c.id).where(batches.c.input_file == file_id, _unfinished).limit(1)
        return await self._database.do(lambda c: c.execute(found).scalar())

    async def request_cancel(self, batch_id: str, at: float) -> None:
        """Note that an unfinished batch is to be cancelled, unless that is noted already."""
        is_it = and_(batches.c.id == batch_id, _unfinished, batches.c.cancel_at.is_(None))
        await self._database.do(lambda c: c.execute(update(batches).where(is_it).values(cancel_at=at)))

    async def restart_batch(self, batch: Batch) -> bool:
        """Store a finished batch as unfinished again. `False` if another gateway did so first."""
        is_it = and_(batches.c.id == batch.id, ~_unfinished, batches.c.run == batch.run)
        change = update(batches).where(is_it).values(**_values(batch), owner=None, owned_until=None)
        return await self._database.do(lambda c: c.execute(change).rowcount == 1)

    async def claim(
        self, owner: str, folder: str, now: float, seconds: float, leave_out: Collection[str] = ()
    ) -> Batch | None:
        """Take up a batch that needs work and that no gateway is working on.

        Keys take turns: the batch of the key with the fewest claims is taken, and of those the one that has waited the
        longest since it was given back.

        Args:
            owner: who claims it.
            folder: which has the files of the batch.
            now: for webhooks that are due.
            seconds: until the claim ends.
            leave_out: what this gateway is working on: its claims may have ended by the clock.
        """

        def work(connection: Connection) -> Batch | None:
            here = self._clock(connection)
            is_free = or_(batches.c.owner.is_(None), batches.c.owned_until <= here)
            needs_work = and_(_needs_work(folder, now), is_free, batches.c.id.not_in(sorted(leave_out)))
            claims = _claims(here).subquery()
            order = (func.coalesce(claims.c.held, 0), _served, batches.c.created_at)
            by_turn = select(batches).outerjoin(claims, claims.c.key == batches.c.key).where(needs_work)
            for row in connection.execute(by_turn.order_by(*order).limit(_CANDIDATES)).mappings().all():
                batch = msgspec.structs.replace(_batch(row), run=row["run"] + 1)
                if row["owner"] is not None:  # whoever worked on it did not give it back
                    batch = msgspec.structs.replace(batch, unclean=batch.unclean + 1, record=0)
                take = update(batches).where(batches.c.id == batch.id, is_free)
                changes = {**_values(batch), "owner": owner, "owned_until": here + seconds}
                if connection.execute(take.values(changes)).rowcount:
                    return batch
            return None

        return await self._database.do(work)

    async def turns(self, folder: str, now: float) -> Mapping[str, Turns]:
        """How many batches each key has that are worked on, and that wait to be taken up."""

        def work(connection: Connection) -> Mapping[str, Turns]:
            here = self._clock(connection)
            is_held = and_(batches.c.owner.is_not(None), batches.c.owned_until > here)
            held = func.sum(case((is_held, 1), else_=0))
            counts = select(batches.c.key, held, func.count()).where(_needs_work(folder, now))
            rows = connection.execute(counts.group_by(batches.c.key)).all()
            return {key: Turns(int(held), int(total) - int(held)) for key, held, total in rows}

        return await self._database.do(work)

    async def save_batch(self, batch: Batch, owner: str, seconds: float | None) -> float | None:
        """Store the progress of a claimed batch and extend the claim by `seconds` from now, or end it with `None`.

        Returns `Batch.cancel_at`.

        Raises:
            ClaimLost: another gateway has taken it up.
        """
        is_mine = and_(batches.c.id == batch.id, batches.c.owner == owner, batches.c.run == batch.run)
        values = {name: value for name, value in _values(batch).items() if name != "cancel_at"}
        values["owner"] = None if seconds is None else owner

        def work(connection: Connection) -> float | None:
            until = self._clock(connection) + (seconds or 0.0)
            change = update(batches).where(is_mine).values({**values, "owned_until": until})
            if not connection.execute(change).rowcount:
                raise ClaimLost
            found = select(batches.c.cancel_at).where(batches.c.id == batch.id)
            at: float | None = connection.execute(found).scalar()
            return at

        return await self._database.do(work)

    async def end_claims(self) -> None:
        """End all claims: this is the only gateway of the database, and it starts."""
        owned = batches.c.owner.is_not(None)
        await self._database.do(lambda c: c.execute(update(batches).where(owned).values(owned_until=0.0)))

    async def forget_batches(self, before: float) -> None:
        """Delete finished batches that were created before a time."""
        old = and_(batches.c.created_at < before, ~_unfinished)
        await self._database.do(lambda c: c.execute(delete(batches).where(old)))


_served = func.coalesce(batches.c.owned_until, 0.0)
"""When a batch was given back, or its claim ended."""


def _needs_work(folder: str, now: float) -> ColumnElement[bool]:
    return and_(batches.c.folder == folder, or_(_unfinished, batches.c.notify_at <= now))


def _claims(here: float) -> Select[Any]:
    """How many batches of each key are worked on."""
    is_held = and_(batches.c.owner.is_not(None), batches.c.owned_until > here)
    return select(batches.c.key, func.count().label("held")).where(is_held).group_by(batches.c.key)


def _page(table: Table, page: Page, key: str | None) -> Select[Any]:
    """The items of a page, newest first unless it says otherwise. An unknown `after` gives an empty page."""
    place: Any = tuple_(table.c.created_at, table.c.id)
    order = [table.c.created_at.asc(), table.c.id.asc()]
    if not page.oldest_first:
        order = [table.c.created_at.desc(), table.c.id.desc()]
    wanted = select(table).order_by(*order).limit(page.limit)
    if key is not None:
        wanted = wanted.where(table.c.key == key)
    if page.after is not None:
        last = table.alias("last")
        mark = select(last.c.created_at, last.c.id).where(last.c.id == page.after).scalar_subquery()
        is_later: ColumnElement[bool] = place > mark if page.oldest_first else place < mark
        wanted = wanted.where(is_later)
    return wanted


def _file(row: Mapping[Any, Any]) -> StoredFile:
    return StoredFile(**row)


def _batch(row: Mapping[Any, Any]) -> Batch:
    columns = {name: row[name] for name in _COLUMNS} | {"status": BatchStatus(row["status"])}
    return msgspec.structs.replace(_STATE.decode(row["state"]), **columns)


def _values(batch: Batch) -> dict[str, Any]:
    return {
        **{name: getattr(batch, name) for name in _COLUMNS},
        "state": msgspec.json.encode(batch).decode(),
    }
