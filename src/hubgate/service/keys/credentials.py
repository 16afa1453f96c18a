"""Gateway keys in plain: how they are made, and where they stand in a request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterator
from typing import Any

from hubgate.domain.errors import NotAuthenticated
from hubgate.domain.records import Key

_KEY_ID = re.compile(rb"hg_([0-9a-f]{8})_")
HOW = "Send a gateway key as `Authorization: Bearer hg_…`."


def minted(name: str, now: float, **what: Any) -> tuple[str, Key]:
    """A new key in plain, and what is kept of it."""
    key_id = secrets.token_hex(4)
    plain = f"hg_{key_id}_{secrets.token_urlsafe(32)}"
    return plain, Key(id=key_id, name=name, digest=digest_of(plain.encode()), created_at=now, **what)


def digest_of(key: bytes) -> bytes:
    """What a key is found by."""
    return hashlib.sha256(key).digest()


def candidates(authorization: str) -> Iterator[bytes]:
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


def claimed_id(authorization: str | None) -> str:
    """The id of the key that a header shows, whether or not it exists; empty if it shows none."""
    found = (_KEY_ID.match(candidate) for candidate in candidates(authorization or ""))
    return next((match[1].decode() for match in found if match), "")


def unknown(authorization: str) -> NotAuthenticated:
    """The error of a header in which no key in force stands."""
    if any(candidate.startswith(b"hf_") for candidate in candidates(authorization)):
        return NotAuthenticated("This is a Hugging Face token, not a key of this gate.", remedy=HOW)
    return NotAuthenticated(
        "The key is unknown or was revoked.",
        remedy=f"{HOW} `hubgate key create` makes one, and `hubgate key list` shows those in force.",
    )


def _from_base64(given: bytes) -> bytes:
    try:
        return base64.b64decode(given + b"=" * (-len(given) % 4), validate=True)
    except binascii.Error:
        return b""
