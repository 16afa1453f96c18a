"""Error messages for data that does not match its msgspec type.

msgspec's own messages name types in Python's terms and neither list the valid choices nor suggest a field. They are
parsed here, and the rest is looked up in the type. A message with an unknown pattern is passed on as it is, so a new
version of msgspec can make messages worse, but not wrong; the tests then fail.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from hubgate.domain.errors import InvalidRequest

T = TypeVar("T")
BODY = "The request body"
_MAX_NAME_LENGTH = 200
_MAX_MESSAGE_LENGTH = 500
# Where msgspec found the problem: `$.input[0].text`, `$.prefixes[...]` or `key` in `$.prefixes`.
_LOCATION = re.compile(r" - at (`key` in )?`\$([^`]*)`\Z")
_STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?:\d+|\.\.\.)\]")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING_FIELD = re.compile(r"Object missing required field `([^`]*)`")
_INVALID_CHOICE = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?")
_OUT_OF_RANGE = re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)")
_TOO_LARGE = re.compile(r"(?:Number|Integer value) out of range")
_EXPECTED = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_RECEIVED = {**_EXPECTED, "int": "a number", "float": "a decimal number"}
_FIRST_USE = threading.Lock()
"""msgspec crashes when several threads are the first to use a type; a configuration is read in a thread."""
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def convert(value: object, kind: type[T], *, field: str = "", whole: str = BODY) -> T:
    """Convert data that was read from JSON or YAML to a type.

    Args:
        value: the data.
        kind: the type.
        field: the name of the field that holds the data, if any.
        whole: what messages call the data if no field holds it.

    Raises:
        InvalidRequest: the data does not match the type.
    """
    try:
        with _FIRST_USE:
            return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(validation_message(error, kind, field=field, whole=whole)) from None


def merge(
    fields: Mapping[str, Any], changes: Mapping[str, Any], kind: type[msgspec.Struct]
) -> dict[str, Any]:
    """Apply changes to fields; `None` removes a field of the type, and so restores its default."""
    return {
        name: value
        for name, value in {**fields, **changes}.items()
        if value is not None or name not in kind.__struct_fields__
    }


def validation_message(
    error: msgspec.ValidationError, kind: Any, *, field: str = "", whole: str = BODY
) -> str:
    """A sentence about what msgspec found.

    Args:
        error: what msgspec raised.
        kind: the expected type.
        field: the name of the field that holds the data, if any.
        whole: what the data is called if no field holds it.
    """
    location = _LOCATION.search(str(error))
    problem = str(error)[: location.start()] if location else str(error)
    key, path = location.groups("") if location else ("", "")
    if message := _Location(field=field, path=path, in_key=bool(key), whole=whole, kind=kind).describe(
        problem
    ):
        return message
    original = str(error)[:_MAX_MESSAGE_LENGTH]
    return f"[{field}] is not valid: {original}." if field else f"{original}."


class _Location(msgspec.Struct, frozen=True):
    """Where the problem is; `path` is msgspec's, without its `$`."""

    field: str
    path: str
    in_key: bool
    whole: str
    kind: Any

    def describe(self, problem: str) -> str | None:
        """The message, or `None` if msgspec's message has no known pattern."""
        if match := _UNKNOWN_FIELD.fullmatch(problem):
            return self._unknown_field(match[1][:_MAX_NAME_LENGTH])
        if match := _MISSING_FIELD.fullmatch(problem):
            return f"[{self._name(match[1])}] is required."
        if match := _INVALID_CHOICE.fullmatch(problem):
            return self._invalid_choice(match[1][:_MAX_NAME_LENGTH])
        if match := _WRONG_TYPE.fullmatch(problem):
            return self._wrong_type(match[1].split(" | "), match[2])
        if match := _OUT_OF_RANGE.fullmatch(problem):
            return f"{self._subject()} must be {_BOUNDS[match[1]]} {match[2]}."
        return f"{self._subject()} is too large a number." if _TOO_LARGE.fullmatch(problem) else None

    def _name(self, last: str = "") -> str:
        """The field as a client would write it; empty for the whole."""
        return f"{self.field}{self.path}{'.' if last else ''}{last}".removeprefix(".")

    def _subject(self) -> str:
        name = self._name().removesuffix("[...]")
        container = f"[{name}]" if name else self.whole.lower()
        if self.in_key:
            return f"A name in {container}"
        if self.path.endswith("[...]"):
            return f"A value in {container}"
        return container if name else self.whole

    def _unknown_field(self, given: str) -> str | None:
        struct = next((one for one in self._types() if isinstance(one, inspect.StructType)), None)
        if struct is None:
            return None
        if instead := getattr(struct.cls, "REMOVED", {}).get(given):
            return f"Unknown field [{given}]: {instead}"
        known = [each.encode_name for each in struct.fields]
        similar = get_close_matches(given, known, n=1)
        where = f" in [{self._name()}]" if self._name() else ""
        suggestion = f" Did you mean [{similar[0]}]?" if similar else ""
        return f"Unknown field [{given}]{where}.{suggestion} Valid fields: {_listed(known)}."

    def _invalid_choice(self, given: str) -> str | None:
        choices = next((choices for one in self._types() if (choices := _choices(one))), None)
        return (
            None if choices is None else f"{self._subject()} must be one of {_listed(choices)}, not {given}."
        )

    def _wrong_type(self, expected: list[str], received: str | None) -> str | None:
        expected = [one for one in expected if one != "null"] or expected
        if received not in (None, *_RECEIVED) or not _EXPECTED.keys() >= set(expected):
            return None
        if received and (message := self._invalid_choice(_RECEIVED[received])):
            return message
        *others, last = (_EXPECTED[one] for one in expected)
        either = f"{', '.join(others)} or {last}" if others else last
        return f"{self._subject()} must be {either}{f', not {_RECEIVED[received]}' if received else ''}."

    def _types(self) -> list[inspect.Type]:
        """The types that are valid here."""
        types = _alternatives(_type_info(self.kind))
        for step in _STEP.finditer(self.path):
            types = [found for one in types for found in _inside(one, step["field"])]
        return [one.key_type for one in types if isinstance(one, inspect.DictType)] if self.in_key else types


_type_info = functools.cache(inspect.type_info)  # it takes a millisecond, and there are few types


def _inside(one: inspect.Type, field: str | None) -> list[inspect.Type]:
    """The types of a field, or without a name those of an item or a value."""
    inner: inspect.Type | None = None
    if isinstance(one, inspect.StructType):
        inner = next((each.type for each in one.fields if each.encode_name == field), None)
    elif isinstance(one, inspect.ListType):
        inner = one.item_type
    elif isinstance(one, inspect.DictType):
        inner = one.value_type
    return _alternatives(inner) if inner is not None else []


def _alternatives(one: inspect.Type) -> list[inspect.Type]:
    one = one.type if isinstance(one, inspect.Metadata) else one
    return list(one.types) if isinstance(one, inspect.UnionType) else [one]


def _choices(one: inspect.Type) -> list[str]:
    if isinstance(one, inspect.EnumType):
        return [str(each.value) for each in one.cls]
    return [str(each) for each in one.values] if isinstance(one, inspect.LiteralType) else []


def _listed(names: Iterable[str]) -> str:
    return f"[{', '.join(names)}]"
