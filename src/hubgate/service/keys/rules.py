"""Which names and rights a gateway key may have."""

from __future__ import annotations

import re

from hubgate.domain.errors import InvalidRequest
from hubgate.domain.records import Key

ADMIN, CLI = "admin", "cli"
MOST_A_MINUTE = {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000_000}
"""What is no limit any more; what each request takes in memory stays bounded by it."""
_MAX_NAME_LENGTH = 100
_LAST_MOMENT = 253_402_300_799.0
"""Of the year 9999: what lies beyond it, as milliseconds do, is no date."""
_LIKE_A_KEY = re.compile(r"(hg|hf)_.*|[0-9a-f]{8}")


def check_name(name: str) -> None:
    """See whether a new key can have a name.

    Raises:
        InvalidRequest: no; says why.
    """
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


def check_rights(key: Key, now: float | None) -> None:
    """See whether a key's rights fit together; without `now` its end may be in the past.

    Raises:
        InvalidRequest: they do not; says which.
    """
    if key.admin and key.endpoints:
        raise InvalidRequest(
            "An admin key reaches every endpoint.", remedy="Leave out [endpoints], or make it no admin key."
        )
    if key.endpoints and key.default_endpoint is not None and not key.may_call(key.default_endpoint):
        raise InvalidRequest(
            f"The key's default endpoint [{key.default_endpoint}] is none that it may call.",
            remedy="Add it to [endpoints].",
        )
    for label, most in MOST_A_MINUTE.items():
        limit = getattr(key, label)
        if limit is not None and not 0 < limit <= most:
            raise InvalidRequest(f"[{label}] is a whole number from 1 to {most}; leave it out for no limit.")
    if now is not None and key.expires_at is not None and not now < key.expires_at <= _LAST_MOMENT:
        if key.expires_at <= now:
            raise InvalidRequest("[expires_at] is in the past.")
        raise InvalidRequest(
            "[expires_at] is no moment before the year 10000.", remedy="It is seconds since 1970, in UTC."
        )
