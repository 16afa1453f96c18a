"""Features: what has state of its own, each in a folder with its tables, routes, pages and commands.

A feature is a folder with `feature.py`, which has `FEATURE`, and its name in `NAMES`. If it has commands, they are in
`commands.py`, as `COMMANDS`; its templates and messages are in `templates/` and `locales/`. Features import the layers below
and never each other, and nothing but the wiring imports a feature: what one offers to others is in `hubgate.service.ports`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.features.feature import Feature
    from hubgate.terminal.commands import Command

NAMES = ("aliases", "bulk", "deployments", "usage")


@cache
def load() -> Sequence[Feature]:
    """All features. Their tables, templates and messages are known from then on."""
    features = [import_module(f"{__name__}.{name}.feature").FEATURE for name in NAMES]
    for feature in features:
        feature.register()
    return features


def commands() -> Sequence[Command]:
    """The commands of all features."""
    modules = [f"{__name__}.{name}.commands" for name in NAMES]
    return [command for module in modules if find_spec(module) for command in import_module(module).COMMANDS]
