"""The templates of the console: how they are loaded, and the filters that they use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from hubgate.web.console.folders import folders
from hubgate.web.console.languages import DEFAULT, languages
from hubgate.web.console.static_files import static_url

if TYPE_CHECKING:
    from jinja2 import Environment

_PAGES = {"GET /v1/models": "The Models page", "GET /api/connections": "The Settings page"}
_FIELD = re.compile(r"\[([a-z_]+)\]")


def in_console_words(sentence: str) -> str:
    """An English error message with the console's labels in place of API fields and routes."""
    for route, page in _PAGES.items():
        sentence = sentence.replace(route, page)
    return _FIELD.sub(lambda found: _labels().get(found[1], found[0]), sentence)


def setting(value: object) -> str:
    """The value of a setting on one line, as in a configuration file; a dash for none."""
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
    """The English labels of form fields, by their names in the API."""
    messages = languages()[DEFAULT].messages
    labels = {
        key.removeprefix("field."): f"“{label}”"
        for key, label in messages.items()
        if key.startswith("field.")
    }
    return {**labels, "source": f"“{messages['field.where']}”"}


def templates() -> Environment:
    """The templates of all pages. Those of a feature are below the name of its folder."""
    return _templates(folders())


@cache
def _templates(folders: Sequence[Path]) -> Environment:
    from jinja2 import (  # noqa: PLC0415 - only the console needs it
        ChoiceLoader,
        Environment,
        FileSystemLoader,
        PrefixLoader,
        StrictUndefined,
    )

    console, *features = folders
    own = {folder.name: FileSystemLoader(folder / "templates") for folder in features}
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(console / "templates"), PrefixLoader(own)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(in_console_words=in_console_words, setting=setting)
    environment.globals.update(static_url=static_url, quote=lambda text: quote(str(text), safe=""))
    return environment
