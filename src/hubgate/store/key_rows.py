"""A gateway key as a row."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from hubgate.domain.calls import InputType
from hubgate.domain.records import Key
from hubgate.store.tables import keys

_UNTOLD = frozenset({"digest", "created_at", "last_used_at"})


def key_of(row: RowMapping) -> Key:
    """The key that a row holds."""
    values = dict(row)
    if values["input_type"] is not None:
        values["input_type"] = InputType(values["input_type"])
    values["endpoints"] = tuple(msgspec.json.decode(values["endpoints"] or "[]"))
    return Key(**values)


def values_of(key: Key) -> dict[str, Any]:
    """What its row holds."""
    values = {column.name: getattr(key, column.name) for column in keys.c}
    values["endpoints"] = msgspec.json.encode(key.endpoints).decode() if key.endpoints else None
    return values


def told(key: Key) -> dict[str, Any]:
    """What the audit log may tell of it."""
    values = {name: value for name, value in values_of(key).items() if name not in _UNTOLD}
    return values | {"endpoints": list(key.endpoints) or None}
