"""Gateway keys: who may call the gate.

The truth is in memory, by the SHA-256 of each key, so a call never waits for the database. A change that the store
refuses is taken back; one whose asker went away meanwhile holds, in both. When keys were used is kept in memory, and
written in batches by `flush`. A revocation is not taken back: it holds in memory until the store takes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hubgate.domain.errors import (
    HubgateError,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    StoreFailed,
    TooManyWrongKeys,
)
from hubgate.domain.ports import Store
from hubgate.domain.records import Key
from hubgate.service.keys.credentials import HOW, candidates, claimed_id, digest_of, minted, unknown
from hubgate.service.keys.limits import KeyLimits
from hubgate.service.keys.rules import ADMIN, CLI, check_name, check_rights
from hubgate.service.keys.wrong_keys import WrongKeys
from hubgate.service.shielded import shielded


class Access:
    """The gateway keys of a running gate. Used on one event loop."""

    def __init__(self, store: Store, keys: Iterable[Key], clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._keys = {key.digest: key for key in keys}
        self._used: dict[str, float] = {}
        self._unwritten: dict[str, Key] = {}
        """Keys whose revocation the store has yet to take, by their id."""
        self._changing = asyncio.Lock()
        """Held from a change in memory until it is stored or taken back."""
        self.limits = KeyLimits()
        self._wrong_keys = WrongKeys(clock)

    @classmethod
    async def load(
        cls, store: Store, admin_key: str | None, clock: Callable[[], float] = time.time
    ) -> tuple[Access, str | None]:
        """The stored keys, and a new admin key if there is none: to be shown this once, only its digest is stored.

        Args:
            store: where the keys are.
            admin_key: an admin key that the operator gave. It is never stored, and for this run it takes the place
                of the stored key named `admin`.
            clock: seconds since the epoch.

        Raises:
            StoreFailed: the database cannot be used.
        """
        keys = await store.keys()
        if admin_key is not None:
            given = Key(
                id=ADMIN, name=ADMIN, digest=digest_of(admin_key.encode()), created_at=clock(), admin=True
            )
            return cls(store, [*(key for key in keys if key.name != ADMIN), given], clock), None
        access = cls(store, keys, clock)
        if any(key.admin for key in keys):
            return access, None
        plain, key = minted(ADMIN, clock(), admin=True)
        await access._add(key)
        return access, plain

    def authenticate(self, authorization: str | None, address: str = "-") -> Key:
        """The key that a request carries.

        Args:
            authorization: the header's value, its bytes decoded as Latin-1. `Bearer key` (also doubled),
                `ApiKey key`, `ApiKey base64(id:key)`, `Basic base64(user:key)` and `Basic base64(key:)` are understood.
            address: the client's.

        Raises:
            NotAuthenticated: there is none, or it is unknown, revoked or expired.
            TooManyWrongKeys: it is wrong, as were too many before it. A right key is never refused for that.
        """
        if not authorization:
            raise NotAuthenticated("The request carries no key.", remedy=HOW)
        for candidate in candidates(authorization):
            key = self._keys.get(digest_of(candidate))
            if key is not None:
                now = self._clock()
                if key.expires_at is not None and now >= key.expires_at:
                    raise _expired(key, key.expires_at)
                self._used[key.id] = now
                return key
        raise self._refusal(authorization, address)

    def list(self) -> Sequence[Key]:
        """The keys in force, the oldest first, with their last use to the moment."""
        keys = sorted(self._keys.values(), key=lambda key: key.created_at)
        return [self._with_last_use(key) for key in keys if key.id != CLI]

    def find(self, which: str) -> Key:
        """The key of this id or name, with its last use.

        Raises:
            NotFound: there is none.
        """
        for key in self._keys.values():
            if which in (key.id, key.name) and key.id != CLI:
                return self._with_last_use(key)
        raise NotFound("No key has this id or name.", remedy="`hubgate key list` shows them.")

    def is_over(self, expires_at: float | None) -> bool:
        """Whether a key that ends then lets nobody in any more."""
        return expires_at is not None and self._clock() >= expires_at

    def draft(self, name: str, **rights: Any) -> tuple[str, Key]:
        """A key that could be made, which is in force nowhere.

        Raises:
            InvalidRequest: it is no good name; or the rights do not fit together.
        """
        check_name(name)
        now = self._clock()
        plain, key = minted(name, now, **rights)
        check_rights(key, now)
        return plain, key

    async def create(self, name: str, **rights: Any) -> tuple[Key, str]:
        """Make a key; what is stored of it, and the key itself, which can never be shown again.

        Args:
            name: who uses it.
            rights: fields of `Key`, from `admin` on.

        Raises:
            InvalidRequest: the name is taken, or is no good name; or the rights do not fit together.
            StoreFailed: it cannot be stored.
        """
        plain, key = self.draft(name, **rights)
        await self._add(key)
        return key, plain

    async def change(self, which: str, **rights: Any) -> Key:
        """Change what a key is called and may do, at once; it stays the same key.

        Args:
            which: its id or name.
            rights: fields of `Key` but its id, digest and times of making and use.

        Raises:
            NotFound, InvalidRequest: see `changed`.
            StoreFailed: the database cannot be used; the key stays as it was.
        """
        async with self._changing:
            changed = self.changed(which, **rights)
            old, self._keys[changed.digest] = self._keys[changed.digest], changed
            await shielded(self._keep(self._store.save_key(changed), old.digest, old))
        return changed

    def changed(self, which: str, **rights: Any) -> Key:
        """A key as `change` would leave it; nothing is changed.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be changed here, or not so.
        """
        old = self._changeable(which)
        changed = replace(old, **rights)
        if changed.name != old.name:
            check_name(changed.name)
        check_rights(changed, self._clock() if changed.expires_at != old.expires_at else None)
        return changed

    async def revoke(self, which: str) -> None:
        """Put a key out of force at once, by its id or its name.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be revoked here.
            StoreFailed: the revocation holds, but could not be written down; `flush` tries again.
        """
        async with self._changing:
            if unwritten := [key for key in self._unwritten.values() if which in (key.id, key.name)]:
                await self._write_revocation(unwritten[0])
                return
            key = self._changeable(which)
            others = (other for other in self._keys.values() if other.id not in (key.id, CLI))
            if key.admin and not any(other.admin and not self.is_over(other.expires_at) for other in others):
                raise InvalidRequest("This is the last admin key.", remedy="Create another admin key first.")
            del self._keys[key.digest]
            self.limits.forget(key.id)
            self._unwritten[key.id] = key
            await shielded(self._write_revocation(key))

    async def flush(self) -> None:
        """Write down when keys were last used, and revocations that could not be written down before.

        Raises:
            StoreFailed: the database cannot be used; the next flush tries again.
        """
        async with self._changing:
            for revoked in list(self._unwritten.values()):
                await self._write_revocation(revoked)
        for digest, key in self._keys.items():
            self._keys[digest] = self._with_last_use(key)
        used, self._used = self._used, {}
        try:
            await self._store.touch_keys(used)
        except BaseException:
            self._used = used | self._used
            raise

    def admit_cli(self, plain: str) -> None:
        """Let the command line in with the key of this run's lock, which is kept in memory only."""
        digest = digest_of(plain.encode())
        self._keys[digest] = Key(id=CLI, name=CLI, digest=digest, created_at=self._clock(), admin=True)

    def _refusal(self, authorization: str, address: str) -> NotAuthenticated:
        """The error of a wrong key, which is counted."""
        wait = self._wrong_keys.count(address, claimed_id(authorization))
        if not wait:
            return unknown(authorization)
        return TooManyWrongKeys(remedy=f"{HOW} A valid key is accepted at once.", retry_after=wait)

    async def _add(self, key: Key) -> None:
        self._keys[key.digest] = key
        await shielded(self._keep(self._store.add_key(key), key.digest, None))

    async def _keep(self, storing: Awaitable[None], digest: bytes, before: Key | None) -> None:
        """Store what was changed in memory, or take it back there."""
        try:
            await storing
        except HubgateError:
            if before is None:
                del self._keys[digest]
            else:
                self._keys[digest] = before
            raise

    async def _write_revocation(self, key: Key) -> None:
        try:
            await self._store.remove_key(key.id)
        except StoreFailed as error:
            raise StoreFailed(
                f"The key [{key.name}] is revoked, but this could not be written down: {error.message}",
                remedy=f"{error.remedy} hubgate tries again every few seconds; if it is restarted before that "
                "succeeds, the key works again.",
            ) from error
        del self._unwritten[key.id]

    def _changeable(self, which: str) -> Key:
        key = self.find(which)
        if key.id == ADMIN:
            raise InvalidRequest(
                "This key comes from HUBGATE_ADMIN_KEY.", remedy="Change it there, and start the gate again."
            )
        return key

    def _with_last_use(self, key: Key) -> Key:
        used = self._used.get(key.id)
        return key if used is None else replace(key, last_used_at=used)


def _expired(key: Key, at: float) -> NotAuthenticated:
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return NotAuthenticated(f"The key [{key.name}] expired at {day}.", remedy="Ask for a new one.")
