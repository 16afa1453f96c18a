"""Endpoints, gateway keys and notes as rows."""

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
    RowMapping,
    Select,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from hubgate.domain.calls import InputType
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
from hubgate.store.sealing import TokenColumns
from hubgate.store.tables import endpoints, keys, notes
from hubgate.store.usage import SqlUsage
from hubgate.store.vault import Vault

_SETTINGS = msgspec.json.Decoder(Endpoint)
_NOT_AUDITED = frozenset({"digest", "created_at", "last_used_at"})

_log = logging.getLogger(__name__)


class SqlStore:
    """`hubgate.domain.ports.Store` on SQLAlchemy."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self.cache_secret = vault.derived(b"vector cache")
        """The key of the digests of cached texts."""
        self._tokens = TokenColumns(vault)
        self.audit = SqlAudit(database)
        self.connections = SqlConnections(database, self._tokens, self.audit)
        self.usage = SqlUsage(database)

    @classmethod
    async def open(
        cls, settings: Settings, *, url: URL | None = None, patience: float = PATIENCE
    ) -> SqlStore:
        """Open the vault, and the database of the settings or the one at `url`.

        Raises:
            InvalidSetting: the secret keys of the environment are invalid.
            StoreFailed: the database or the key file cannot be used.
        """
        vault = await asyncio.to_thread(Vault.from_settings, settings)
        return cls(await Database.open(url or settings.database, patience=patience), vault)

    async def close(self) -> None:
        await self._database.close()

    def when_full(self, make_room: Callable[[], Awaitable[None]]) -> None:
        """Call this when the disk is full, then retry the transaction."""
        self._database.make_room = make_room

    async def endpoints(self) -> Sequence[Target]:
        """All endpoints with their tokens, by name.

        One that cannot be read is left out, and one whose token cannot be opened comes without it. Both are logged,
        so that hubgate starts with the others. A token that cannot be opened stays in its row until it is replaced.
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
            values = {"id": row_id, **_settings(endpoint), **self._tokens.seal(target.token, row_id)}
            try:
                connection.execute(insert(endpoints).values(values))
            except IntegrityError:
                raise EndpointExists(endpoint.name) from None
            note(connection, "endpoint.add", endpoint.name, difference({}, _audited_endpoint(target)))

        await self._database.do(work)

    async def save_endpoint(self, target: Target) -> None:
        """Replace the endpoint of this name, and its token.

        Raises:
            EndpointNotFound: there is no endpoint of this name.
        """
        endpoint, token = target.endpoint, target.token
        note = self.audit.note()

        def work(connection: Connection) -> None:
            is_it = endpoints.c.name == endpoint.name
            row = connection.execute(select(endpoints).where(is_it)).one_or_none()
            if row is None:
                raise EndpointNotFound(endpoint.name)
            values, old, before = _settings(endpoint), self._tokens.open(row), _endpoint(row)
            # A token that cannot be opened now is kept for when its key is back, but not for another server.
            if token is not None or old is not None or before is None or _moved(before, endpoint):
                values |= self._tokens.seal(token, row.id)
            connection.execute(update(endpoints).where(is_it).values(values))
            was = _audited_endpoint(Target(before, old)) if before else {}
            note(connection, "endpoint.change", endpoint.name, difference(was, _audited_endpoint(target)))

        await self._database.do(work)

    async def remove_endpoint(self, name: str) -> None:
        """Delete an endpoint and its token."""
        is_it = endpoints.c.name == name
        named = select(endpoints.c.name).where(is_it)
        await self._remove(delete(endpoints).where(is_it), "endpoint.remove", named)

    async def keys(self) -> Sequence[Key]:
        """All gateway keys that are not revoked, oldest first."""
        oldest_first = select(keys).order_by(keys.c.created_at, keys.c.id)
        return await self._database.do(lambda c: [_key(row) for row in c.execute(oldest_first).mappings()])

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
        """Store when keys were last used: seconds since the epoch by key id."""
        if not last_used:
            return
        rows = [{"key_id": key_id, "at": at} for key_id, at in last_used.items()]
        touch = update(keys).where(keys.c.id == bindparam("key_id")).values(last_used_at=bindparam("at"))
        await self._database.do(lambda c: c.execute(touch, rows))

    async def note(self, name: str) -> str | None:
        """The value of a note, if there is one."""
        return await self._database.do(
            lambda c: c.execute(select(notes.c.value).where(notes.c.name == name)).scalar()
        )

    async def set_note(self, name: str, value: str) -> None:
        def work(connection: Connection) -> None:
            changed = connection.execute(update(notes).where(notes.c.name == name).values(value=value))
            if not changed.rowcount:
                connection.execute(insert(notes).values(name=name, value=value))

        await self._database.do(work)

    async def reseal(self) -> int:
        """Re-seal every token that is not under the newest secret key; returns how many."""
        return await self._database.do(self._tokens.reseal)

    async def rotate_secret(self) -> int:
        """Re-seal every token under a new secret key, or finish a rotation that was begun; returns how many.

        Raises:
            StoreFailed: a new key is needed, and the keys come from the environment.
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
                connection.execute(statement.values(_key_values(key)))
            except IntegrityError:
                raise InvalidRequest(
                    f"A key named [{key.name}] exists already.",
                    remedy="Choose another name, or revoke that key first.",
                ) from None
            note(
                connection,
                verb,
                key.name,
                difference(_audited_key(_key(row)) if row else {}, _audited_key(key)),
            )

        await self._database.do(work)

    async def _remove(self, statement: Delete, verb: str, named: Select[tuple[str]]) -> None:
        note = self.audit.note()

        def work(connection: Connection) -> None:
            row = connection.execute(named).one_or_none()
            if row is not None:
                connection.execute(statement)
                note(connection, verb, row.name, {})

        await self._database.do(work)


def _audited_endpoint(target: Target) -> dict[str, Any]:
    token = target.token.hint if target.token else None
    values = {**msgspec.to_builtins(target.endpoint), "token": token}
    facts = values.pop("facts")
    return values | {f"learned.{name}": facts[name] for name in ("model", "revision", "dimensions")}


def _moved(before: Endpoint, now: Endpoint) -> bool:
    return _destination(before) != _destination(now)


def _destination(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.source, endpoint.url, endpoint.urls, endpoint.proxy, endpoint.is_replicated


def _settings(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "settings": msgspec.json.encode(endpoint).decode()}


def _endpoint(row: Row[Any]) -> Endpoint | None:
    try:
        return _SETTINGS.decode(row.settings)
    except (msgspec.MsgspecError, CallerError) as error:
        _log.error(
            "endpoint %s is left out: its stored settings cannot be read (%s). Run the version of hubgate that wrote "
            "them, or register the endpoint under another name.",
            row.name,
            error,
        )
        return None


def _key(row: RowMapping) -> Key:
    values = dict(row)
    if values["input_type"] is not None:
        values["input_type"] = InputType(values["input_type"])
    values["endpoints"] = tuple(msgspec.json.decode(values["endpoints"] or "[]"))
    return Key(**values)


def _key_values(key: Key) -> dict[str, Any]:
    values = {column.name: getattr(key, column.name) for column in keys.c}
    values["endpoints"] = msgspec.json.encode(key.endpoints).decode() if key.endpoints else None
    return values


def _audited_key(key: Key) -> dict[str, Any]:
    values = {name: value for name, value in _key_values(key).items() if name not in _NOT_AUDITED}
    return values | {"endpoints": list(key.endpoints) or None}
