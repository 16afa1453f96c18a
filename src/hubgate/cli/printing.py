"""What commands print: readable in a terminal, and whole in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNBOUNDED = 1 << 16


def print_fields(fields: Mapping[str, object]) -> None:
    """One field a line."""
    for name, value in fields.items():
        print(f"{name:>28}  {value}")


def print_endpoint(shown: Mapping[str, Any]) -> None:
    """An endpoint as `/api` shows it, then what was learned of it, then its warnings."""
    facts = dict(shown["facts"])
    warnings: Sequence[str] = facts.pop("warnings", ())
    print_fields({name: plain(value) for name, value in shown.items() if name != "facts"})
    print_fields({f"learned: {name}": plain(value) for name, value in facts.items() if value is not None})
    for warning in warnings:
        print_fields({"warning": warning})


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; in a pipe, one line a row and nothing cut off."""
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
    """Bytes, in the unit that reads best."""
    for unit, exponent in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << exponent:
            return f"{count / (1 << exponent):.1f} {unit}"
    return f"{count} bytes"


def plain(value: object) -> str:
    """A value without the marks of a programming language."""
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
