"""Output of the commands: readable in a terminal, not truncated in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNBOUNDED = 1 << 16
_EMBEDDING_ONLY = frozenset({"similarity", "prefixes", "cache", "chunking_settings", "chunk_fit", "pooling"})
_UNUSED = {
    "sparse_embedding": frozenset({"similarity"}),
    "rerank": _EMBEDDING_ONLY,
    "completion": _EMBEDDING_ONLY,
    "chat_completion": _EMBEDDING_ONLY,
}
"""Settings and facts that a task does not use."""


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one field per line."""
    for name, value in fields.items():
        print(f"{name:>28}  {value}")


def print_endpoint(shown: Mapping[str, Any]) -> None:
    """Print the settings of an endpoint, what was detected, and warnings; only what its task uses."""
    unused = _UNUSED.get(shown["task"], frozenset()) | {"facts"}
    facts = {name: value for name, value in shown["facts"].items() if name not in {*unused, "warnings"}}
    print_fields({name: plain(value) for name, value in shown.items() if name not in unused})
    print_fields({f"detected: {name}": plain(value) for name, value in facts.items() if value is not None})
    _print_warnings(shown)


def print_result(done: str, shown: Mapping[str, Any]) -> None:
    """Print the result of a change in one line, and warnings."""
    name, facts = shown["name"], shown["facts"]
    dimensions, limit = facts.get("dimensions"), shown.get("max_input_tokens")
    details = (
        shown["task"],
        facts.get("model") or shown.get("model") or shown.get("url"),
        " ".join(filter(None, (facts.get("engine"), facts.get("engine_version")))),
        f"{dimensions} dimensions" if dimensions else None,
        f"up to {limit} tokens" if limit else None,
        None if shown["enabled"] else "switched off",
    )
    print(f"{done} {name}: {', '.join(filter(None, details))}.")
    if failure := shown.get("failure"):
        print(f"Its test failed ({failure['cause']}): {failure['message']} {failure['remedy']}".rstrip())
    print(f"`hubgate show {name}` shows all settings.")
    _print_warnings(shown)


def _print_warnings(shown: Mapping[str, Any]) -> None:
    for warning in shown["facts"].get("warnings", ()):
        print_fields({"warning": warning})


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; in a pipe, one line per row and nothing truncated."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else _UNBOUNDED
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def moment(seconds: float | None) -> str:
    """Seconds since the epoch as date and time, UTC; empty for never."""
    from datetime import UTC, datetime

    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """A number of bytes with a suitable unit."""
    for unit, exponent in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << exponent:
            return f"{count / (1 << exponent):.1f} {unit}"
    return f"{count} bytes"


def plain(value: object) -> str:
    """A value in plain text, without the syntax of a programming language."""
    match value:
        case dict():
            return ", ".join(f"{name}: {plain(part)}" for name, part in value.items()) or "none"
        case list():
            return ", ".join(map(plain, value)) or "none"
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
