"""Gateway keys: who may call the gate.

The truth is in memory, by the SHA-256 of each key, so a call never waits for the database. A change that the store
refuses is taken back; one whose asker went away meanwhile holds, in both. When keys were used is kept in memory, and
written in batches by `flush`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hubgate.domain.errors import HubgateError, InvalidRequest, NotAuthenticated, NotFound, StoreFailed
from hubgate.domain.keys import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hubgate.domain.calls import InputType
    from hubgate.domain.ports import Store

ADMIN, CLI = "admin", "cli"
_MAX_NAME_LENGTH = 100
_LIKE_A_KEY = re.compile(r"(hg|hf)_.*|[0-9a-f]{8}")
_HOW = "Send a gateway key as `Authorization: Bearer hg_…`."


class Access:
    """The gateway keys of a running gate. Used on one event loop."""

    def __init__(self, store: Store, keys: Iterable[Key], clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._keys = {key.digest: key for key in keys}
        self._used: dict[str, float] = {}

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
                id=ADMIN, name=ADMIN, digest=_digest(admin_key.encode()), created_at=clock(), admin=True
            )
            return cls(store, [*(key for key in keys if key.name != ADMIN), given], clock), None
        access = cls(store, keys, clock)
        if any(key.admin for key in keys):
            return access, None
        plain, key = _minted(ADMIN, clock(), admin=True)
        await access._add(key)
        return access, plain

    def authenticate(self, authorization: str | None) -> Key:
        """The key that a request carries.

        Args:
            authorization: the header's value, its bytes decoded as Latin-1. `Bearer key` (also doubled),
                `ApiKey key`, `ApiKey base64(id:key)`, `Basic base64(user:key)` and `Basic base64(key:)` are understood.

        Raises:
            NotAuthenticated: there is none, or it is unknown or revoked.
        """
        if not authorization:
            raise NotAuthenticated("The request carries no key.", remedy=_HOW)
        for candidate in _candidates(authorization):
            key = self._keys.get(_digest(candidate))
            if key is not None:
                self._used[key.id] = self._clock()
                return key
        raise _unknown(authorization)

    def list(self) -> Sequence[Key]:
        """The keys in force, the oldest first, with their last use to the moment."""
        keys = sorted(self._keys.values(), key=lambda key: key.created_at)
        return [self._with_last_use(key) for key in keys if key.id != CLI]

    async def create(
        self,
        name: str,
        *,
        admin: bool = False,
        default_endpoint: str | None = None,
        bulk: bool = False,
        input_type: InputType | None = None,
    ) -> tuple[Key, str]:
        """Make a key; what is stored of it, and the key itself, which can never be shown again.

        Raises:
            InvalidRequest: the name is taken, or is no good name.
            StoreFailed: it cannot be stored.
        """
        _check_name(name)
        plain, key = _minted(
            name,
            self._clock(),
            admin=admin,
            default_endpoint=default_endpoint,
            bulk=bulk,
            input_type=input_type,
        )
        await self._add(key)
        return key, plain

    async def revoke(self, which: str) -> None:
        """Put a key out of force at once, by its id or its name.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be revoked here.
            StoreFailed: the database cannot be used; the key stays in force.
        """
        key = next(
            (key for key in self._keys.values() if which in (key.id, key.name) and key.id != CLI), None
        )
        if key is None:
            raise NotFound("No key has this id or name.", remedy="`hubgate key list` shows them.")
        if key.id == ADMIN:
            raise InvalidRequest(
                "This key comes from HUBGATE_ADMIN_KEY.", remedy="Change it there, and start the gate again."
            )
        if key.admin and not any(
            other.admin for other in self._keys.values() if other.id not in (key.id, CLI)
        ):
            raise InvalidRequest("This is the last admin key.", remedy="Create another admin key first.")
        del self._keys[key.digest]
        try:
            await self._store.remove_key(key.id)
        except StoreFailed:
            self._keys[key.digest] = key
            raise

    async def flush(self) -> None:
        """Write down when keys were last used.

        Raises:
            StoreFailed: the database cannot be used; the next flush tries again.
        """
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
        digest = _digest(plain.encode())
        self._keys[digest] = Key(id=CLI, name=CLI, digest=digest, created_at=self._clock(), admin=True)

    async def _add(self, key: Key) -> None:
        self._keys[key.digest] = key
        try:
            await self._store.add_key(key)
        except HubgateError:
            del self._keys[key.digest]
            raise

    def _with_last_use(self, key: Key) -> Key:
        used = self._used.get(key.id)
        return key if used is None else replace(key, last_used_at=used)


def _minted(name: str, now: float, **what: Any) -> tuple[str, Key]:
    """A new key in plain, and what is kept of it."""
    key_id = secrets.token_hex(4)
    plain = f"hg_{key_id}_{secrets.token_urlsafe(32)}"
    return plain, Key(id=key_id, name=name, digest=_digest(plain.encode()), created_at=now, **what)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _candidates(authorization: str) -> Iterator[bytes]:
    """The keys that a header may mean, the likeliest first."""
    try:
        scheme, _, given = authorization.encode("latin-1").strip().partition(b" ")
    except UnicodeEncodeError:
        return
    scheme, given = scheme.lower(), given.lstrip()
    if scheme == b"bearer":
        doubled = given[:7].lower() == b"bearer "
        yield given[7:].lstrip() if doubled else given
    elif scheme == b"apikey":
        yield given
    if scheme in (b"apikey", b"basic"):
        user, _, password = _from_base64(given).partition(b":")
        yield password or user


def _from_base64(given: bytes) -> bytes:
    try:
        return base64.b64decode(given + b"=" * (-len(given) % 4), validate=True)
    except binascii.Error:
        return b""


def _unknown(authorization: str) -> NotAuthenticated:
    if any(candidate.startswith(b"hf_") for candidate in _candidates(authorization)):
        return NotAuthenticated("This is a Hugging Face token, not a key of this gate.", remedy=_HOW)
    return NotAuthenticated(
        "The key is unknown or was revoked.",
        remedy=f"{_HOW} `hubgate key create` makes one, and `hubgate key list` shows those in force.",
    )


def _check_name(name: str) -> None:
    if not name.isprintable() or name != name.strip() or not 0 < len(name) <= _MAX_NAME_LENGTH:
        raise InvalidRequest(
            f"A key's name must have 1 to {_MAX_NAME_LENGTH} printable characters, without spaces around it."
        )
    if name in (ADMIN, CLI):
        raise InvalidRequest(f"The name [{name}] is the gate's own.", remedy="Choose another name.")
    if _LIKE_A_KEY.fullmatch(name):
        raise InvalidRequest(
            "This name looks like a key or a key's id.", remedy="Choose a name that tells who uses the key."
        )
