"""Gateway keys: authenticating requests, and managing keys.

Keys are in memory, by their SHA-256, so a call never waits for the database. A change that cannot be stored is undone,
except for a revocation, which stays in force and is stored later. `flush` stores when keys were last used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hubgate.core.off_loop import shielded
from hubgate.domain.errors import (
    HubgateError,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    StoreFailed,
    TooManyWrongKeys,
    UnknownKey,
)
from hubgate.domain.records import Key
from hubgate.service.keys.credentials import (
    ADMIN,
    CLI,
    SEND_A_KEY,
    Credentials,
    check_name,
    check_rights,
    digest_of,
    new_key,
    unknown_key_error,
)
from hubgate.service.keys.key_ring import KeyRing
from hubgate.service.keys.limits import WrongKeys
from hubgate.service.keys.shared_limits import SharedKeyLimits
from hubgate.service.rounds import Rounds
from hubgate.service.shared_values import SharedValues
from hubgate.store.store import SqlStore


class Access:
    """The gateway keys. Used on one event loop."""

    def __init__(
        self, store: SqlStore, keys: Iterable[Key], clock: Callable[[], float], shared: SharedValues
    ) -> None:
        self._store = store
        self._clock = clock
        self._keys = KeyRing(keys)
        self._used: dict[str, float] = {}
        self._unstored: dict[str, Key] = {}
        """Revoked keys whose removal is not stored yet, by id."""
        self._changing = asyncio.Lock()
        """Held from a change in memory until it is stored or undone."""
        self.limits = SharedKeyLimits()
        self.rounds = Rounds()
        """In which keys of other gateways become known."""
        self._wrong_keys = WrongKeys(clock, shared)

    @classmethod
    async def load(
        cls,
        store: SqlStore,
        admin_key: str | None,
        clock: Callable[[], float] = time.time,
        shared: SharedValues | None = None,
        *,
        is_gateway: bool = True,
    ) -> tuple[Access, str | None]:
        """Load the stored keys. If there is no admin key, also create and return one, to be shown only once.

        Args:
            store: where the keys are.
            admin_key: an admin key from the settings. It is never stored; for this run it replaces the stored key
                named `admin`.
            clock: seconds since the epoch.
            shared: where wrong keys are counted for all gateways.
            is_gateway: not if it is a command that works on the database of gateways: these may have an admin key of
                their settings, so it creates none.

        Raises:
            StoreFailed: the database cannot be used.
        """
        shared = shared or SharedValues()
        keys = await store.keys()
        if admin_key is not None:
            from_settings = Key(
                id=ADMIN, name=ADMIN, digest=digest_of(admin_key.encode()), created_at=clock(), admin=True
            )
            return cls(
                store, [*(key for key in keys if key.name != ADMIN), from_settings], clock, shared
            ), None
        access = cls(store, keys, clock, shared)
        if not is_gateway or any(key.admin for key in keys):
            return access, None
        plain, key = new_key(ADMIN, clock(), admin=True)
        try:
            await access._add(key)
        except InvalidRequest:  # the name is taken
            keys = await store.keys()
            if any(key.admin for key in keys):  # another gateway that starts on this database was first
                return cls(store, keys, clock, shared), None
            raise
        return access, plain

    def accept(self, credentials: Credentials | None) -> Key:
        """Return the key of a request. A wrong key should be counted with `count_wrong_key`.

        Raises:
            NotAuthenticated: the key is missing or expired.
            UnknownKey: it is unknown or revoked.
        """
        if credentials is None:
            raise NotAuthenticated("The request has no key.", remedy=SEND_A_KEY)
        for digest in credentials.digests:
            key = self._keys.get(digest)
            if key is not None:
                now = self._clock()
                if key.expires_at is not None and now >= key.expires_at:
                    raise _expired_error(key, key.expires_at)
                self._used[key.id] = now
                return key
        raise unknown_key_error(credentials)

    def accept_known(self, credentials: Credentials | None, now: float) -> Key | None:
        """As `accept`, but returns `None` where changes of other gateways may matter: see `accept_new`.

        Args:
            credentials: of the request.
            now: seconds on the monotonic clock.
        """
        if now >= self.rounds.stale_at:
            return None
        try:
            return self.accept(credentials)
        except UnknownKey:
            return None

    async def accept_new(self, credentials: Credentials | None, address: str) -> Key:
        """As `accept`, after what other gateways have changed: they may just have created the key, or revoked it.

        Unknown keys of clients over the limit of wrong keys are refused at once.
        """
        if credentials is not None:
            is_known = any(self._keys.get(digest) for digest in credentials.digests)
            if is_known or not self._wrong_keys.is_exceeded(address, credentials.claimed_id):
                await self.rounds.next()
        return self.accept(credentials)

    async def count_wrong_key(self, error: UnknownKey, claimed_id: str, address: str) -> NotAuthenticated:
        """Count a wrong key of a client with this IP address; `claimed_id` as in `Credentials`.

        Returns the error itself, or `TooManyWrongKeys`, which has the seconds to wait. A valid key is always accepted.
        """
        wait = await self._wrong_keys.count(address, claimed_id)
        if not wait:
            return error
        return TooManyWrongKeys(remedy=f"{SEND_A_KEY} A valid key is accepted at once.", retry_after=wait)

    def list(self, limit: int | None = None, after: str | None = None) -> Sequence[Key]:
        """The valid keys, oldest first, with their last use.

        Args:
            limit: the most keys to return.
            after: the id of a key: only those after it.

        Raises:
            NotFound: no key has this id.
        """
        keys = self._keys.page(limit, after)
        if keys is None:
            raise NotFound("No key has the id in [after].", remedy="Start with the first page again.")
        return [self._with_last_use(key) for key in keys]

    def search(self, text: str) -> Sequence[str]:
        """The ids of the keys with this text in their name or as their id, oldest first."""
        ids, names, text = self._keys.ids(), self._keys.names, text.casefold()
        return [one for one in ids if text in names[one].casefold() or text == one] if text else ids

    @property
    def names(self) -> Mapping[str, str]:
        """The name of each key by its id, always as it is now."""
        return self._keys.names

    def find(self, id_or_name: str) -> Key:
        """A key with its last use. Raises: NotFound."""
        key = self._keys.find(id_or_name)
        if key is None or key.id == CLI:
            raise NotFound("No key has this id or name.", remedy="`hubgate key list` lists them.")
        return self._with_last_use(key)

    def valid_key(self, key_id: str) -> Key | None:
        """The key with an id, for work in its name; `None` if it was revoked or has expired."""
        key = self._keys.by_id(key_id)
        return None if key is None or self.has_expired(key.expires_at) else key

    def has_expired(self, expires_at: float | None) -> bool:
        return expires_at is not None and self._clock() >= expires_at

    def draft(self, name: str, **rights: Any) -> tuple[str, Key]:
        """Return a new key without accepting or storing it, to preview `create`.

        Raises:
            InvalidRequest: the name is invalid, or the rights are inconsistent.
        """
        check_name(name)
        now = self._clock()
        plain, key = new_key(name, now, **rights)
        while self._keys.by_id(key.id):
            plain, key = new_key(name, now, **rights)
        check_rights(key, now)
        return plain, key

    async def create(self, name: str, **rights: Any) -> tuple[Key, str]:
        """Create a key; returns its record, and the key itself, which can never be shown again.

        Args:
            name: who uses it.
            rights: values of `Key.admin` and the fields after it.

        Raises:
            InvalidRequest: the name is taken or invalid, or the rights are inconsistent.
            StoreFailed: it cannot be stored.
        """
        plain, key = self.draft(name, **rights)
        await self._add(key)
        return key, plain

    async def change(self, id_or_name: str, **rights: Any) -> Key:
        """Change a key's name and rights. The key itself stays the same.

        Args:
            id_or_name: the key.
            rights: fields of `Key` other than its id, digest and times of creation and use.

        Raises:
            NotFound, InvalidRequest: see `changed`.
            StoreFailed: the database cannot be used; the key stays as it was.
        """
        async with self._changing:
            changed = self.changed(id_or_name, **rights)
            old = self._changeable(id_or_name)
            self._keys.put(changed)
            await shielded(self._store_or_undo(self._store.save_key(changed, old), changed, old))
        return changed

    def changed(self, id_or_name: str, **rights: Any) -> Key:
        """Return a key as it would be after `change`, without changing it.

        Raises:
            NotFound: there is no such key.
            InvalidRequest: it cannot be changed, or its new name or rights are invalid.
        """
        old = self._changeable(id_or_name)
        changed = replace(old, **rights)
        if changed.name != old.name:
            check_name(changed.name)
        check_rights(changed, self._clock() if changed.expires_at != old.expires_at else None)
        return changed

    async def revoke(self, id_or_name: str) -> None:
        """Revoke a key at once.

        Raises:
            NotFound: there is no such key.
            InvalidRequest: it cannot be revoked.
            StoreFailed: it is revoked, but that could not be stored; `flush` tries again.
        """
        async with self._changing:
            if unstored := [key for key in self._unstored.values() if id_or_name in (key.id, key.name)]:
                await self._store_revocation(unstored[0])
                return
            key = self._changeable(id_or_name)
            others = (other for other in self._keys if other.id not in (key.id, CLI))
            if key.admin and not any(
                other.admin and not self.has_expired(other.expires_at) for other in others
            ):
                raise InvalidRequest("This is the last admin key.", remedy="Create another admin key first.")
            self._keys.remove(key)
            self.limits.forget(key.id)
            self._unstored[key.id] = key
            await shielded(self._store_revocation(key))

    async def follow(self) -> None:
        """Accept the keys that are stored now, which other gateways may have changed.

        Raises:
            StoreFailed: the database cannot be used; the keys stay as they were.
        """
        async with self._changing:
            stored = [key for key in await self._store.keys() if key.id not in self._unstored]
            own = [key for key in self._keys if key.id in (ADMIN, CLI)]
            if any(key.id == ADMIN for key in own):
                stored = [key for key in stored if key.name != ADMIN]
            keys = KeyRing([*stored, *own])
            for revoked in self._keys.names.keys() - keys.names.keys():
                self.limits.forget(revoked)
            self._keys = keys

    async def flush(self) -> None:
        """Store when keys were last used, and revocations that could not be stored before.

        Raises:
            StoreFailed: the database cannot be used; the next flush tries again.
        """
        async with self._changing:
            for revoked in list(self._unstored.values()):
                await self._store_revocation(revoked)
        for key_id in self._used:
            if (key := self._keys.by_id(key_id)) is not None:
                self._keys.put(self._with_last_use(key))
        used, self._used = self._used, {}
        try:
            await self._store.touch_keys(used)
        except BaseException:
            self._used = used | self._used
            raise

    def admit_cli(self, plain: str) -> None:
        """Accept the key of the command line until the process ends. It is never stored."""
        digest = digest_of(plain.encode())
        self._keys.put(Key(id=CLI, name=CLI, digest=digest, created_at=self._clock(), admin=True))

    async def _add(self, key: Key) -> None:
        async with self._changing:
            self._keys.put(key)
            await shielded(self._store_or_undo(self._store.add_key(key), key, None))

    async def _store_or_undo(self, storing: Awaitable[None], key: Key, before: Key | None) -> None:
        try:
            await storing
        except HubgateError as error:
            if before is None or isinstance(error, NotFound):
                self._keys.remove(key)
            else:
                self._keys.put(before)
            raise

    async def _store_revocation(self, key: Key) -> None:
        try:
            await self._store.remove_key(key.id)
        except StoreFailed as error:
            raise StoreFailed(
                f"The key [{key.name}] is revoked, but this could not be stored: {error.message}",
                remedy=f"{error.remedy} hubgate tries again every few seconds. If it is restarted before that "
                "succeeds, the key works again.",
            ) from error
        del self._unstored[key.id]

    def _changeable(self, id_or_name: str) -> Key:
        key = self.find(id_or_name)
        if key.id == ADMIN:
            raise InvalidRequest(
                "This key comes from HUBGATE_ADMIN_KEY.", remedy="Change it there, and restart hubgate."
            )
        return key

    def _with_last_use(self, key: Key) -> Key:
        used = self._used.get(key.id)
        return key if used is None else replace(key, last_used_at=used)


def _expired_error(key: Key, at: float) -> NotAuthenticated:
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return NotAuthenticated(f"The key [{key.name}] expired at {when}.", remedy="Ask an admin for a new one.")
