"""What msgspec says of data that does not fit its type, told in sentences for the person who sent it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from hubgate.domain.errors import InvalidRequest

T = TypeVar("T")
BODY = "The request body"
_LONGEST_NAME = 200
_LONGEST_WORDS = 500
# Where msgspec found the fault, at the end of its words: `$.input[0].text`, `$.prefixes[...]` or `key` in `$.prefixes`.
_PLACE = re.compile(r" - at (`key` in )?`\$([^`]*)`\Z")
_STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?:\d+|\.\.\.)\]")
_WANTED = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_GOT = {**_WANTED, "int": "a number", "float": "a number with a decimal point", "bool": "a boolean"}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def fit(value: object, kind: type[T], *, field: str = "", whole: str = BODY) -> T:
    """Data as a type.

    Args:
        value: what was read from JSON or YAML.
        kind: the type.
        field: the name of the field that holds the data, if one does.
        whole: what the data is called where no field holds it.

    Raises:
        InvalidRequest: it does not fit; says what, and what would.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(misfit(error, kind, field=field, whole=whole)) from None


def merged(fields: Mapping[str, Any], given: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Fields with those that are given in their places; `None` takes one away, but stays where `fit` is to refuse it.

    Args:
        fields: what is there.
        given: what changes.
        kind: the type that they are to fit.
    """
    both = {**fields, **given}
    return {
        name: value for name, value in both.items() if value is not None or name not in kind.__struct_fields__
    }


def misfit(error: msgspec.ValidationError, kind: Any, *, field: str = "", whole: str = BODY) -> str:
    """A sentence for what msgspec found; its own words, where they are of no known pattern.

    Args:
        error: what it raised.
        kind: the type that was wanted.
        field: the name of the field that holds the data, if one does.
        whole: what the data is called where no field holds it.
    """
    place = _PLACE.search(str(error))
    said = str(error)[: place.start()] if place else str(error)
    key, path = place.groups("") if place else ("", "")
    fault = _Fault(field=field, path=path, in_key=bool(key), whole=whole, kind=kind)
    for pattern, tell in _PATTERNS:
        if (found := pattern.fullmatch(said)) and (told := tell(fault, *found.groups())):
            return told
    words = str(error)[:_LONGEST_WORDS]
    return f"[{field}] cannot be used: {words}." if field else f"{words}."


class _Fault(msgspec.Struct, frozen=True):
    """Where the fault lies: `path` is msgspec's, without its `$`."""

    field: str
    path: str
    in_key: bool
    whole: str
    kind: Any

    def name(self, last: str = "") -> str:
        """The field, as a client would write it; empty for the whole."""
        return f"{self.field}{self.path}{'.' if last else ''}{last}".removeprefix(".")

    def subject(self) -> str:
        name = self.name().removesuffix("[...]")
        inside = f"[{name}]" if name else self.whole.lower()
        if self.in_key:
            return f"A name in {inside}"
        if self.path.endswith("[...]"):
            return f"A value in {inside}"
        return inside if name else self.whole

    def unknown(self, given: str) -> str | None:
        known = next((_fields(one) for one in self._types() if isinstance(one, inspect.StructType)), None)
        if known is None:
            return None
        given = given[:_LONGEST_NAME]  # before it is compared, for a client may name a field with megabytes
        near = get_close_matches(given, known, n=1)
        where = f" in [{self.name()}]" if self.name() else ""
        meant = f" Did you mean [{near[0]}]?" if near else ""
        return f"Unknown field [{given}]{where}.{meant} The fields are {_listed(known)}."

    def missing(self, name: str) -> str:
        return f"[{self.name(name)}] is missing."

    def no_choice(self, given: str) -> str | None:
        words = next((choices for one in self._types() if (choices := _choices(one))), None)
        if words is None:
            return None
        return f"{self.subject()} must be one of {_listed(words)}, not {given[:_LONGEST_NAME]}."

    def wrong_type(self, wanted: str, got: str | None) -> str | None:
        kinds = wanted.split(" | ")
        kinds = [one for one in kinds if one != "null"] or kinds
        if got not in (None, *_GOT) or not _WANTED.keys() >= set(kinds):
            return None
        if got and (told := self.no_choice(_GOT[got])):
            return told
        *others, last = (_WANTED[one] for one in kinds)
        either = f"{', '.join(others)} or {last}" if others else last
        return f"{self.subject()} must be {either}{f', not {_GOT[got]}' if got else ''}."

    def out_of_range(self, bound: str, limit: str) -> str:
        return f"{self.subject()} must be {_BOUNDS[bound]} {limit}."

    def too_large(self) -> str:
        return f"{self.subject()} is a larger number than can be read."

    def _types(self) -> list[inspect.Type]:
        """What may stand there."""
        types = _alternatives(_type_info(self.kind))
        for step in _STEP.finditer(self.path):
            types = [found for one in types for found in _inside(one, step["field"])]
        return [one.key_type for one in types if isinstance(one, inspect.DictType)] if self.in_key else types


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[..., str | None]], ...] = (
    (re.compile(r"Object contains unknown field `(.*)`", re.DOTALL), _Fault.unknown),
    (re.compile(r"Object missing required field `([^`]*)`"), _Fault.missing),
    (re.compile(r"Invalid enum value (.*)", re.DOTALL), _Fault.no_choice),
    (re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?"), _Fault.wrong_type),
    (re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)"), _Fault.out_of_range),
    (re.compile(r"(?:Number|Integer value) out of range"), _Fault.too_large),
)


_type_info = functools.cache(inspect.type_info)
"""It takes a millisecond, and the gate has but a few types."""


def _inside(one: inspect.Type, field: str | None) -> list[inspect.Type]:
    """What may stand in a field, or, without one, as an item or a value."""
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


def _fields(one: inspect.StructType) -> list[str]:
    return [each.encode_name for each in one.fields]


def _choices(one: inspect.Type) -> list[str]:
    if isinstance(one, inspect.EnumType):
        return [str(each.value) for each in one.cls]
    return [str(each) for each in one.values] if isinstance(one, inspect.LiteralType) else []


def _listed(names: Iterable[str]) -> str:
    return f"[{', '.join(names)}]"
