"""Words that are the same in every language of the console: hubgate's own error sentences, and values of settings.

The sentences name fields and routes of the API, which have labels here. Values are written as in a configuration file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import msgspec

from hubgate.web.console.languages import DEFAULT, languages

_ROUTES = {
    "GET /v1/models lists the names": "The Models page lists the names",
    "GET /v1/models lists those that it may call": "The Keys page lists those that it may call",
    "GET /v1/models lists them": "The Models page lists them",
    "GET /api/connections": "The Settings page",
    "an endpoint of source [router]": "it as Hosted Inference API",
}
_FIELD = re.compile(r"\[([a-z_]+)\]")


def in_console_words(sentence: str) -> str:
    """An English sentence with the labels of fields in place of their names in the API."""
    for route, words in _ROUTES.items():
        sentence = sentence.replace(route, words)
    return _FIELD.sub(lambda found: _labels().get(found[1], found[0]), sentence)


def setting(value: object) -> str:
    """The value of a setting, in one line; a dash for none."""
    plain = msgspec.to_builtins(value)
    if plain is None or plain in ("", [], {}):
        return "–"
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, dict):
        return ", ".join(f"{name}: {setting(part)}" for name, part in plain.items() if part is not None)
    return ", ".join(map(setting, plain)) if isinstance(plain, list) else str(plain)


@cache
def _labels() -> Mapping[str, str]:
    """By the name of a field in the API."""
    words = languages()[DEFAULT].words
    fields = {
        key.removeprefix("field."): f"“{label}”" for key, label in words.items() if key.startswith("field.")
    }
    return {**fields, "source": f"“{words['field.where']}”"}
