"""The registry, the gateway keys and the notes, as rows."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    URL,
    Connection,
    Delete,
    Insert,
    Row,
    Select,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from hubgate.domain.endpoint import Endpoint, Target
from hubgate.domain.errors import (
    CallerError,
    EndpointExists,
    EndpointNotFound,
    InvalidRequest,
)
from hubgate.domain.records import Key
from hubgate.settings import Settings
from hubgate.store.audit_log import SqlAudit, difference
from hubgate.store.connections import SqlConnections
from hubgate.store.database import PATIENCE, Database
from hubgate.store.key_rows import key_of, told, values_of
from hubgate.store.sealing import TokenColumns
from hubgate.store.tables import endpoints, keys, notes
from hubgate.store.usage import SqlUsage
from hubgate.store.vault import Vault

_SETTINGS = msgspec.json.Decoder(Endpoint)

_log = logging.getLogger(__name__)


class SqlStore:
    """`hubgate.domain.ports.Store` on SQLAlchemy."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self.cache_secret = vault.derived(b"vector cache")
        """What the digests of cached texts are keyed with."""
        self._tokens = TokenColumns(vault)
        self.audit = SqlAudit(database)
        self.connections = SqlConnections(database, self._tokens, self.audit)
        self.usage = SqlUsage(database)

    @classmethod
    async def open(
        cls, settings: Settings, *, url: URL | None = None, patience: float = PATIENCE
    ) -> SqlStore:
        """Open the gate's store: its vault, and its database or the one at `url`.

        Raises:
            InvalidSetting: the secret keys of the environment are no keys.
            StoreFailed: the database or the key file cannot be used.
        """
        vault = await asyncio.to_thread(Vault.from_settings, settings)
        return cls(await Database.open(url or settings.database, patience=patience), vault)

    async def close(self) -> None:
        """Finish what was begun, and let go of the database."""
        await self._database.close()

    def when_full(self, make_room: Callable[[], Awaitable[None]]) -> None:
        """Have room made when the disk is full, and what did not fit written again."""
        self._database.make_room = make_room

    async def endpoints(self) -> Sequence[Target]:
        """All of them, with their tokens, by name.

        One that cannot be read is left out, and one whose token cannot be opened comes without it; both are
        logged, so that the gate starts with the others. A token that cannot be opened now stays where it is
        until another takes its place.
        """

        def work(connection: Connection) -> list[Target]:
            rows = connection.execute(select(endpoints).order_by(endpoints.c.name))
            return [
                Target(endpoint, self._tokens.open(row))
                for row in rows
                if (endpoint := _endpoint(row)) is not None
            ]

        return await self._database.do(work)

    async def add_endpoint(self, target: Target) -> None:
        """Store a new endpoint.

        Raises:
            EndpointExists: the name is taken.
        """
        endpoint = target.endpoint
        note = self.audit.note()

        def work(connection: Connection) -> None:
            row_id = secrets.token_hex(16)
            values = {"id": row_id, **_settings(endpoint), **self._tokens.of(target.token, row_id)}
            try:
                connection.execute(insert(endpoints).values(values))
            except IntegrityError:
                raise EndpointExists(endpoint.name) from None
            note(connection, "endpoint.add", endpoint.name, difference({}, _told(target)))

        await self._database.do(work)

    async def save_endpoint(self, target: Target) -> None:
        """Replace the endpoint of this name, and its token.

        Raises:
            EndpointNotFound: there is none of this name.
        """
        endpoint, token = target.endpoint, target.token
        note = self.audit.note()

        def work(connection: Connection) -> None:
            is_it = endpoints.c.name == endpoint.name
            row = connection.execute(select(endpoints).where(is_it)).one_or_none()
            if row is None:
                raise EndpointNotFound(endpoint.name)
            values, old, before = _settings(endpoint), self._tokens.open(row), _endpoint(row)
            # A token that cannot be opened now stays for when its key is back, but moves to no other server.
            if token is not None or old is not None or before is None or _moved(before, endpoint):
                values |= self._tokens.of(token, row.id)
            connection.execute(update(endpoints).where(is_it).values(values))
            shown = _told(Target(before, old)) if before else {}
            note(connection, "endpoint.change", endpoint.name, difference(shown, _told(target)))

        await self._database.do(work)

    async def remove_endpoint(self, name: str) -> None:
        """Forget an endpoint and its token."""
        is_it = endpoints.c.name == name
        named = select(endpoints.c.name).where(is_it)
        await self._remove(delete(endpoints).where(is_it), "endpoint.remove", named)

    async def keys(self) -> Sequence[Key]:
        """All gateway keys that are not revoked, the oldest first."""
        oldest_first = select(keys).order_by(keys.c.created_at, keys.c.id)
        return await self._database.do(lambda c: [key_of(row) for row in c.execute(oldest_first).mappings()])

    async def add_key(self, key: Key) -> None:
        """Store a new gateway key.

        Raises:
            InvalidRequest: the name is taken.
        """
        await self._put_key(key, insert(keys), "key.create")

    async def save_key(self, key: Key) -> None:
        """Replace the gateway key of this id.

        Raises:
            InvalidRequest: its new name is taken.
        """
        await self._put_key(key, update(keys).where(keys.c.id == key.id), "key.change")

    async def remove_key(self, key_id: str) -> None:
        """Revoke a gateway key."""
        is_it = keys.c.id == key_id
        await self._remove(delete(keys).where(is_it), "key.revoke", select(keys.c.name).where(is_it))

    async def touch_keys(self, last_used: Mapping[str, float]) -> None:
        """Write down when keys were last used, seconds since the epoch by key id."""
        if not last_used:
            return
        rows = [{"key_id": key_id, "at": at} for key_id, at in last_used.items()]
        touch = update(keys).where(keys.c.id == bindparam("key_id")).values(last_used_at=bindparam("at"))
        await self._database.do(lambda c: c.execute(touch, rows))

    async def note(self, name: str) -> str | None:
        """A small remembered fact about this gate."""
        return await self._database.do(
            lambda c: c.execute(select(notes.c.value).where(notes.c.name == name)).scalar()
        )

    async def set_note(self, name: str, value: str) -> None:
        """Remember a small fact about this gate."""

        def work(connection: Connection) -> None:
            changed = connection.execute(update(notes).where(notes.c.name == name).values(value=value))
            if not changed.rowcount:
                connection.execute(insert(notes).values(name=name, value=value))

        await self._database.do(work)

    async def reseal(self) -> int:
        """Seal every token under the newest secret key; how many were re-sealed."""
        return await self._database.do(self._tokens.reseal)

    async def rotate_secret(self) -> int:
        """Make a new secret key, unless a rotation was begun, and seal every token under it; how many.

        Raises:
            StoreFailed: a new key is needed, and the keys come from the environment; says what to do.
        """
        note = self.audit.note()

        def work(connection: Connection) -> int:
            resealed = self._tokens.rotate(connection)
            note(connection, "secret.rotate", "", {"resealed": [None, resealed]})
            return resealed

        return await self._database.do(work)

    async def _put_key(self, key: Key, statement: Insert | Update, verb: str) -> None:
        note = self.audit.note()

        def work(connection: Connection) -> None:
            row = connection.execute(select(keys).where(keys.c.id == key.id)).mappings().one_or_none()
            try:
                connection.execute(statement.values(values_of(key)))
            except IntegrityError:
                raise InvalidRequest(
                    f"A key named [{key.name}] exists already.",
                    remedy="Choose another name, or revoke it first.",
                ) from None
            note(connection, verb, key.name, difference(told(key_of(row)) if row else {}, told(key)))

        await self._database.do(work)

    async def _remove(self, statement: Delete, verb: str, named: Select[tuple[str]]) -> None:
        note = self.audit.note()

        def work(connection: Connection) -> None:
            row = connection.execute(named).one_or_none()
            if row is not None:
                connection.execute(statement)
                note(connection, verb, row.name, {})

        await self._database.do(work)


def _told(target: Target) -> dict[str, Any]:
    """What the audit log may tell of an endpoint."""
    token = target.token.hint if target.token else None
    told = {**msgspec.to_builtins(target.endpoint), "token": token}
    facts = told.pop("facts")
    return told | {f"learned.{name}": facts[name] for name in ("model", "revision", "dimensions")}


def _moved(before: Endpoint, now: Endpoint) -> bool:
    return (before.source, before.url, before.proxy) != (now.source, now.url, now.proxy)


def _settings(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "settings": msgspec.json.encode(endpoint).decode()}


def _endpoint(row: Row[Any]) -> Endpoint | None:
    try:
        return _SETTINGS.decode(row.settings)
    except (msgspec.MsgspecError, CallerError) as error:
        _log.error(
            "endpoint %s is left out: its stored settings cannot be read (%s). Run the hubgate that wrote them, or "
            "register it under another name.",
            row.name,
            error,
        )
        return None
