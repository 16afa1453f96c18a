"""Fields of decoded JSON from servers that may send anything: a field of the wrong type counts as missing.

A missing field is `None`, unless the docstring says otherwise.
"""

from __future__ import annotations

from typing import Any


def field_of(value: object, key: str) -> Any:
    """A field of any type; also `None` if `value` is not an object."""
    return value.get(key) if isinstance(value, dict) else None


def dict_of(value: object, key: str) -> dict[str, Any]:
    """A field that is an object; `{}` if it is missing."""
    found = field_of(value, key)
    return found if isinstance(found, dict) else {}


def list_of(value: object, key: str) -> list[Any]:
    """A field that is a list; `[]` if it is missing."""
    return as_list(field_of(value, key))


def as_list(value: object) -> list[Any]:
    """The value if it is a list, otherwise `[]`."""
    return value if isinstance(value, list) else []


def text_of(value: object, key: str) -> str | None:
    """A field that is a non-empty string."""
    found = field_of(value, key)
    return found if isinstance(found, str) and found else None


def number_of(value: object, key: str) -> float | None:
    """A field that is a number."""
    found = field_of(value, key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def count_of(value: object, key: str) -> int | None:
    """A field that is an integer of 0 or more."""
    found = field_of(value, key)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def size_of(value: object, key: str) -> int | None:
    """A field that is an integer of 1 or more."""
    return count_of(value, key) or None
