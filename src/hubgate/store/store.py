"""Endpoints, gateway keys and notes as rows."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Delete,
    Double,
    Insert,
    Row,
    Select,
    Update,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from hubgate.domain.endpoint import Endpoint, InputType, Target
from hubgate.domain.endpoint_fields import changes_model
from hubgate.domain.errors import (
    CallerError,
    EndpointConflict,
    EndpointExists,
    EndpointNotFound,
    InUse,
    InvalidRequest,
    NotFound,
)
from hubgate.domain.records import Key, Kind
from hubgate.settings import Settings
from hubgate.store.audit_log import SqlAudit, difference
from hubgate.store.backend import PATIENCE, Lock
from hubgate.store.cluster.expiring_values import SqlExpiringValues
from hubgate.store.cluster.feed import SqlFeed
from hubgate.store.cluster.leases import SqlLeases
from hubgate.store.cluster.shared_files import SqlFiles
from hubgate.store.connections import SqlConnections
from hubgate.store.database import Database, insert_or_update
from hubgate.store.sealing import TokenColumns
from hubgate.store.tables import endpoints, keys, notes
from hubgate.store.vault import Vault

_SETTINGS = msgspec.json.Decoder(Endpoint)
_SALT = "console cookie salt"
"""The name of a note."""
_KEY_COLUMNS = tuple(column.name for column in keys.c)
_NOT_AUDITED = frozenset({"digest", "created_at", "last_used_at"})

_log = logging.getLogger(__name__)


class SqlStore:
    """The database. Tokens are passed in plain text and stored encrypted. Every method raises `StoreFailed`."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.cache_secret = vault.derived(b"vector cache")
        """The key of the digests of cached texts."""
        self.shared_vectors_key = vault.derived(b"shared vectors")
        """The key that authenticates vectors on a server that gateways share."""
        self._vault = vault
        self._tokens = TokenColumns(vault)
        self.audit = SqlAudit(database)
        self.feed = SqlFeed(database, vault.key_ids)
        self.connections = SqlConnections(database, self._tokens, self.audit, self.feed)
        self.checks_of_new: list[Callable[[Connection, str], None]] = []
        """Called with the name of an endpoint in the transaction that adds it; they may raise."""
        self.checks_of_removal: list[Callable[[Connection, str], None]] = []
        """The same for the transaction that removes it."""
        self.leases = SqlLeases(database)
        self.derived_key = vault.derived
        self.files = SqlFiles(database)
        self.expiring_values = SqlExpiringValues(database)

    @classmethod
    async def open(cls, settings: Settings, *, patience: float = PATIENCE) -> SqlStore:
        """Open the vault and the database of the settings.

        Raises:
            InvalidSetting: the secret keys of the environment are invalid, or the URL of the database is.
            StoreFailed: the database or the key file cannot be used.
        """
        vault = await asyncio.to_thread(Vault.from_settings, settings)
        location = settings.database_url or settings.database
        store = cls(await Database.open(location, patience=patience, migrate=settings.migrate), vault)
        if store.database.is_shared:
            await store.leases.read_clock()
        return store

    async def close(self) -> None:
        await self.feed.close()
        await self.database.close()

    def when_full(self, make_room: Callable[[], Awaitable[None]]) -> None:
        """Call this when the disk is full, then retry the transaction."""
        self.database.make_room = make_room

    async def endpoints(self) -> Sequence[Target]:
        """All endpoints with their tokens, by name.

        One that cannot be read is left out, and one whose token cannot be opened comes without it. Both are logged,
        so that hubgate starts with the others. A token that cannot be opened stays in its row until it is replaced.
        """

        def work(connection: Connection) -> list[Target]:
            rows = connection.execute(select(endpoints).order_by(endpoints.c.name))
            return [
                Target(endpoint, self._tokens.open(row), row.version, row.changed, row.limit_id)
                for row in rows
                if (endpoint := _endpoint(row)) is not None
            ]

        return await self.database.do(work)

    async def endpoint(self, name: str) -> Target:
        """One endpoint with its own token.

        Raises:
            EndpointNotFound: there is none of this name, or it cannot be read.
        """

        def work(connection: Connection) -> Target:
            row = connection.execute(select(endpoints).where(endpoints.c.name == name)).one_or_none()
            found = None if row is None else _endpoint(row)
            if row is None or found is None:
                raise EndpointNotFound(name)
            return Target(found, self._tokens.open(row), row.version, row.changed, row.limit_id)

        return await self.database.do(work)

    async def add_endpoint(self, target: Target) -> int:
        """Store a new endpoint; returns its version.

        Raises:
            EndpointExists: the name is taken.
        """
        endpoint = target.endpoint
        note = self.audit.note()

        def work(connection: Connection) -> int:
            for check in self.checks_of_new:
                check(connection, endpoint.name)
            row_id = secrets.token_hex(16)
            values = {"id": row_id, **_settings(target), **self._tokens.seal(target.token, row_id)}
            try:
                connection.execute(insert(endpoints).values(values))
            except IntegrityError:
                raise EndpointExists(endpoint.name) from None
            note(connection, "endpoint.add", endpoint.name, difference({}, _audited_endpoint(target)))
            return 1

        return await self.feed.change(Kind.ENDPOINT, endpoint.name, work)

    async def save_endpoint(self, target: Target) -> int:
        """Replace the endpoint of this name, and its token; returns its new version.

        Raises:
            EndpointNotFound: there is no endpoint of this name.
            EndpointConflict: it was changed since the version of the target.
        """
        endpoint, token = target.endpoint, target.token
        note = self.audit.note()

        def work(connection: Connection) -> int:
            is_it = endpoints.c.name == endpoint.name
            row = connection.execute(select(endpoints).where(is_it).with_for_update()).one_or_none()
            if row is None:
                raise EndpointNotFound(endpoint.name)
            if row.version != target.version:
                raise EndpointConflict(endpoint.name)
            version: int = row.version + 1
            values, old, before = _settings(target), self._tokens.open(row), _endpoint(row)
            # A token that cannot be opened now is kept for when its key is back, but not for another server.
            if token is not None or old is not None or before is None or _moved(before, endpoint):
                values |= self._tokens.seal(token, row.id)
            connection.execute(update(endpoints).where(is_it).values(**values, version=version))
            was = _audited_endpoint(Target(before, old)) if before else {}
            note(connection, "endpoint.change", endpoint.name, difference(was, _audited_endpoint(target)))
            return version

        return await self.feed.change(Kind.ENDPOINT, endpoint.name, work)

    async def mark_changed(self, endpoint: Endpoint, changed: str | None) -> int | None:
        """Store why calls are refused: another model is running. `None` if the registered one is back.

        Returns:
            The new version; `None` if the endpoint was removed or leads to another model since.
        """
        is_it = endpoints.c.name == endpoint.name

        def work(connection: Connection) -> int | None:
            row = connection.execute(select(endpoints).where(is_it).with_for_update()).one_or_none()
            stored = None if row is None else _endpoint(row)
            if row is None or stored is None or changes_model(stored, endpoint):
                return None
            version: int = row.version + 1
            connection.execute(update(endpoints).where(is_it).values(changed=changed, version=version))
            return version

        return await self.feed.change(Kind.ENDPOINT, endpoint.name, work)

    async def may_look(self, name: str, seconds: float) -> bool:
        """Whether to check which model an endpoint runs: not if another gateway did in the last `seconds`."""
        if not self.database.is_shared:
            return True
        now = time.time()
        is_due = endpoints.c.looked_at.is_(None) | (endpoints.c.looked_at < now - seconds)
        look = update(endpoints).where(endpoints.c.name == name, is_due).values(looked_at=now)
        return bool(await self.database.do(lambda connection: connection.execute(look).rowcount))

    async def remove_endpoint(self, name: str) -> None:
        """Delete an endpoint and its token.

        Raises:
            BehindAlias: an alias leads to it.
        """
        is_it = endpoints.c.name == name
        named = select(endpoints.c.name).where(is_it)
        remove = self._removal(delete(endpoints).where(is_it), "endpoint.remove", named)

        def work(connection: Connection) -> None:
            for check in self.checks_of_removal:
                check(connection, name)
            remove(connection)

        await self.feed.change(Kind.ENDPOINT, name, work)

    async def keys(self) -> Sequence[Key]:
        """All gateway keys that are not revoked, oldest first."""
        oldest_first = select(keys).order_by(keys.c.created_at, keys.c.id)
        return await self.database.do(lambda c: [_key(row) for row in c.execute(oldest_first)])

    async def add_key(self, key: Key) -> None:
        """Store a new gateway key.

        Raises:
            InvalidRequest: the name is taken.
        """
        await self._put_key(key, insert(keys).values(_key_values(key)), "key.create", None)

    async def save_key(self, key: Key, before: Key) -> None:
        """Store what differs from `before`, so that changes at other gateways stay.

        Raises:
            InvalidRequest: its new name is taken.
            NotFound: it was revoked.
        """
        old, new = _key_values(before), _key_values(key)
        changed = {name: value for name, value in new.items() if value != old[name]}
        if changed:
            await self._put_key(
                key, update(keys).where(keys.c.id == key.id).values(changed), "key.change", before
            )

    async def remove_key(self, key_id: str) -> None:
        """Revoke a gateway key."""
        is_it = keys.c.id == key_id
        work = self._removal(delete(keys).where(is_it), "key.revoke", select(keys.c.name).where(is_it))
        await self.feed.change(Kind.KEY, "", work)

    async def record_cleared_cache(self) -> None:
        """Other gateways clear their vector caches, too."""
        if not self.database.is_shared:
            await self.audit.record("cache.clear", "")
            return
        note = self.audit.note()
        await self.feed.change(Kind.CACHE, "", lambda connection: note(connection, "cache.clear", "", {}))

    async def touch_keys(self, last_used: Mapping[str, float]) -> None:
        """Store when keys were last used: seconds since the epoch by key id."""
        if not last_used:
            return
        rows = [{"key_id": key_id, "at": last_used[key_id]} for key_id in sorted(last_used)]
        at: BindParameter[float] = bindparam("at", type_=Double())
        stored = keys.c.last_used_at
        latest = case((stored > at, stored), else_=at)  # another gateway may know of a later use
        touch = update(keys).where(keys.c.id == bindparam("key_id")).values(last_used_at=latest)
        await self.database.do(lambda c: c.execute(touch, rows))

    async def note(self, name: str) -> str | None:
        """The value of a note, if there is one."""
        return await self.database.do(
            lambda c: c.execute(select(notes.c.value).where(notes.c.name == name)).scalar()
        )

    async def set_note(self, name: str, value: str) -> None:
        def work(connection: Connection) -> None:
            new = insert_or_update(connection, notes).values(name=name, value=value)
            connection.execute(
                new.on_conflict_do_update(index_elements=[notes.c.name], set_={"value": value})
            )

        await self.database.do(work)

    async def cookie_keys(self) -> Sequence[bytes]:
        """The keys of the console's cookies, one for each secret key: the same at every gateway of the database.

        They also need a salt, which is created at the first call: the secret keys alone do not sign a cookie.
        """

        def salt(connection: Connection) -> str:
            new = insert_or_update(connection, notes).values(name=_SALT, value=secrets.token_hex(32))
            connection.execute(new.on_conflict_do_nothing())
            stored: str = connection.execute(select(notes.c.value).where(notes.c.name == _SALT)).scalar_one()
            return stored

        salted = (await self.database.do(salt)).encode()
        return self._vault.derived_from_each(b"console cookies", salt=salted)

    def applying_configuration(self) -> AbstractAsyncContextManager[None]:
        """Keeps other gateways of the database from applying a configuration. Raises: InUse: one is doing it."""
        busy = InUse(
            "Another gateway is applying a configuration.",
            remedy="Wait until it has finished, then try again.",
        )
        return self.database.holding(Lock.CONFIGURATION, busy)

    async def reseal(self) -> int:
        """Re-seal every token that is not under the newest secret key; returns how many."""
        return await self.database.do(self._tokens.reseal)

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

        return await self.database.do(work)

    async def _put_key(self, key: Key, statement: Insert | Update, verb: str, before: Key | None) -> None:
        note = self.audit.note()

        def work(connection: Connection) -> None:
            try:
                stored = connection.execute(statement).rowcount
            except IntegrityError:
                raise InvalidRequest(
                    f"A key named [{key.name}] exists already.",
                    remedy="Choose another name, or revoke that key first.",
                ) from None
            if not stored:
                raise NotFound(f"The key [{key.name}] was revoked.", remedy="Create a new one.")
            was = _audited_key(before) if before else {}
            note(connection, verb, key.name, difference(was, _audited_key(key)))

        await self.feed.change(Kind.KEY, "", work)

    def _removal(
        self, statement: Delete, verb: str, named: Select[tuple[str]]
    ) -> Callable[[Connection], None]:
        note = self.audit.note()

        def work(connection: Connection) -> None:
            row = connection.execute(named).one_or_none()
            if row is not None:
                connection.execute(statement)
                note(connection, verb, row.name, {})

        return work


def _audited_endpoint(target: Target) -> dict[str, Any]:
    token = target.token.hint if target.token else None
    values = {**msgspec.to_builtins(target.endpoint), "token": token}
    facts = values.pop("facts")
    return values | {f"learned.{name}": facts[name] for name in ("model", "revision", "dimensions")}


def _moved(before: Endpoint, now: Endpoint) -> bool:
    return _destination(before) != _destination(now)


def _destination(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.source, endpoint.url, endpoint.urls, endpoint.proxy, endpoint.is_replicated


def _settings(target: Target) -> dict[str, Any]:
    endpoint = target.endpoint
    settings = msgspec.json.encode(endpoint).decode()
    return {"name": endpoint.name, "settings": settings, "changed": target.changed, "limit_id": target.limit}


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


def _key(row: Row[Any]) -> Key:
    values = dict(zip(_KEY_COLUMNS, row, strict=True))  # row._mapping takes four times as long
    if values["input_type"] is not None:
        values["input_type"] = InputType(values["input_type"])
    values["endpoints"] = tuple(msgspec.json.decode(values["endpoints"])) if values["endpoints"] else ()
    return Key(**values)


def _key_values(key: Key) -> dict[str, Any]:
    values = {column.name: getattr(key, column.name) for column in keys.c}
    values["endpoints"] = msgspec.json.encode(key.endpoints).decode() if key.endpoints else None
    return values


def _audited_key(key: Key) -> dict[str, Any]:
    values = {name: value for name, value in _key_values(key).items() if name not in _NOT_AUDITED}
    return values | {"endpoints": list(key.endpoints) or None}
