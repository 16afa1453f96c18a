"""Gateway keys: creating them, reading them from requests, and validating their names and rights."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

from hubgate.domain.errors import InvalidRequest, UnknownKey
from hubgate.domain.records import Key

ADMIN, CLI = "admin", "cli"
MAX_PER_MINUTE = {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000_000}
"""Highest limits of a key. They bound the memory that its log of calls takes."""
SEND_A_KEY = "Send a gateway key as `Authorization: Bearer hg_…`."
_KEY_ID = re.compile(rb"hg_([0-9a-f]{8})_")
_MAX_NAME_LENGTH = 100
_END_OF_9999 = 253_402_300_799.0
"""The latest expiry that is accepted. A time in milliseconds is later, and so rejected."""
_LOOKS_LIKE_KEY = re.compile(r"(hg|hf)_.*|[0-9a-f]{8}")


class Credentials(NamedTuple):
    """What an `Authorization` header has, without the key itself."""

    digests: tuple[bytes, ...]
    """SHA-256 of what may be the key, most likely first."""
    claimed_id: str
    """The id in the key, whether or not that key exists; empty if there is none."""
    is_hugging_face_token: bool


def read_credentials(authorization: str | None) -> Credentials | None:
    """Read the header's value, decoded as Latin-1; `None` if there is none or it is empty.

    It may be `Bearer key`, `Bearer Bearer key` (a common mistake), `ApiKey key`, `ApiKey base64(id:key)`,
    `Basic base64(user:key)` or `Basic base64(key:)`.
    """
    if not authorization:
        return None
    candidates = tuple(_keys_in(authorization))
    ids = (match[1].decode() for one in candidates if (match := _KEY_ID.match(one)))
    return Credentials(
        digests=tuple(digest_of(one) for one in candidates),
        claimed_id=next(ids, ""),
        is_hugging_face_token=any(one.startswith(b"hf_") for one in candidates),
    )


def new_key(name: str, now: float, **rights: Any) -> tuple[str, Key]:
    """Create a key; returns it in plain text, and its record."""
    key_id = secrets.token_hex(4)
    plain = f"hg_{key_id}_{secrets.token_urlsafe(32)}"
    return plain, Key(id=key_id, name=name, digest=digest_of(plain.encode()), created_at=now, **rights)


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _keys_in(authorization: str) -> Iterator[bytes]:
    """The strings in an `Authorization` header that may be the key, most likely first."""
    try:
        scheme, _, credentials = authorization.encode("latin-1").strip().partition(b" ")
    except UnicodeEncodeError:
        return
    scheme, credentials = scheme.lower(), credentials.lstrip()
    if scheme == b"bearer":
        is_doubled = credentials[:7].lower() == b"bearer "
        yield credentials[7:].lstrip() if is_doubled else credentials
    elif scheme == b"apikey":
        yield credentials
    if scheme in (b"apikey", b"basic"):
        user, _, password = _from_base64(credentials).partition(b":")
        yield password or user


def unknown_key_error(credentials: Credentials) -> UnknownKey:
    if credentials.is_hugging_face_token:
        return UnknownKey("This is a Hugging Face token, not a gateway key.", remedy=SEND_A_KEY)
    return UnknownKey(
        "The key is unknown or was revoked.",
        remedy=f"{SEND_A_KEY} `hubgate key create` creates one, and `hubgate key list` lists the valid ones.",
    )


def check_name(name: str) -> None:
    """Raises: InvalidRequest."""
    if not name.isprintable() or name != name.strip() or not 0 < len(name) <= _MAX_NAME_LENGTH:
        raise InvalidRequest(
            f"A key's name must have 1 to {_MAX_NAME_LENGTH} printable characters, without surrounding spaces."
        )
    if name in (ADMIN, CLI):
        raise InvalidRequest(f"The name [{name}] is reserved.", remedy="Choose another name.")
    if _LOOKS_LIKE_KEY.fullmatch(name):
        raise InvalidRequest(
            "This name looks like a key or a key's id.",
            remedy="Choose a name that describes who uses the key.",
        )


def check_rights(key: Key, now: float | None) -> None:
    """Check that a key's rights are consistent. If `now` is `None`, its expiry is not checked.

    Raises:
        InvalidRequest: they are not.
    """
    if key.admin and key.endpoints:
        raise InvalidRequest("An admin key can access every endpoint.", remedy="Omit [endpoints] or [admin].")
    if key.endpoints and key.default_endpoint is not None and not key.may_call(key.default_endpoint):
        raise InvalidRequest(
            f"The key may not call its default endpoint [{key.default_endpoint}].",
            remedy="Add it to [endpoints].",
        )
    for field, maximum in MAX_PER_MINUTE.items():
        limit = getattr(key, field)
        if limit is not None and not 0 < limit <= maximum:
            raise InvalidRequest(
                f"[{field}] must be a whole number from 1 to {maximum}; omit it for no limit."
            )
    if now is not None and key.expires_at is not None and not now < key.expires_at <= _END_OF_9999:
        if key.expires_at <= now:
            raise InvalidRequest("[expires_at] is in the past.")
        raise InvalidRequest(
            "[expires_at] must be before the year 10000.", remedy="Use seconds since 1970, in UTC."
        )


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""
