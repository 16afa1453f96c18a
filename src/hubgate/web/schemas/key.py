"""The JSON and YAML of gateway keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.records import Key
from hubgate.web.schemas.validation import convert, merge


class KeyForm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The settings of a gateway key; only `name` is required."""

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
        """The form that describes this key."""
        same = {name: getattr(key, name) for name in cls.__struct_fields__ if name != "endpoints"}
        return cls(**same, endpoints=list(key.endpoints))

    def rights(self) -> dict[str, Any]:
        """The fields of a `Key` except its name."""
        rights = msgspec.structs.asdict(self) | {"endpoints": tuple(dict.fromkeys(self.endpoints))}
        del rights["name"]
        return rights


def edit_key(key: Key, changes: Mapping[str, Any]) -> KeyForm:
    """Change some fields of a key.

    Raises:
        InvalidRequest: a field is unknown, has the wrong type, or cannot be changed.
    """
    if changes.get("admin", key.admin) != key.admin:
        raise InvalidRequest(
            "[admin] of a key cannot be changed.",
            remedy="Create another key, then revoke this one.",
        )
    return convert(merge(msgspec.to_builtins(KeyForm.of(key)), changes, KeyForm), KeyForm)
