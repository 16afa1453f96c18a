"""How a gateway key is written in JSON and YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hubgate.domain.calls import InputType
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.records import Key
from hubgate.web.schemas.validation import convert, merge


class KeyForm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is sent to create a gateway key: see `hubgate.domain.records.Key` for the fields."""

    name: str
    admin: bool = False
    default_endpoint: str | None = None
    bulk: bool = False
    input_type: InputType | None = None
    endpoints: list[str] = []
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, key: Key) -> KeyForm:
        """The form that makes such a key."""
        same = {name: getattr(key, name) for name in cls.__struct_fields__ if name != "endpoints"}
        return cls(**same, endpoints=list(key.endpoints))

    def rights(self) -> dict[str, Any]:
        """The fields of a `Key` made of it, but its name."""
        rights = msgspec.structs.asdict(self) | {"endpoints": tuple(dict.fromkeys(self.endpoints))}
        del rights["name"]
        return rights


def edited_key(key: Key, given: Mapping[str, Any]) -> KeyForm:
    """The form of a key with some of its fields changed.

    Raises:
        InvalidRequest: a field is unknown, does not fit, or cannot be changed.
    """
    if given.get("admin", key.admin) != key.admin:
        raise InvalidRequest(
            "A key does not become an admin key, nor does one cease to be.",
            remedy="Create another; then revoke this one.",
        )
    return convert(merge(msgspec.to_builtins(KeyForm.of(key)), given, KeyForm), KeyForm)
