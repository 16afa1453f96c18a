"""Formats the output of commands: tables fit a terminal, and are complete in a pipe."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PIPE_WIDTH = 1 << 16
"""Columns: enough that no table is truncated."""
_EMBEDDING_ONLY = frozenset(
    {"similarity", "prefixes", "prompt_names", "cache", "chunking_settings", "chunk_fit", "pooling"}
)
_UNUSED_BY_TASK = {
    "sparse_embedding": frozenset({"similarity"}),
    "rerank": _EMBEDDING_ONLY,
    "completion": _EMBEDDING_ONLY,
    "chat_completion": _EMBEDDING_ONLY,
}
"""By task: settings and facts that it does not use, and which are not shown."""
_PREFIX_SOURCES = {
    "operator": "set by the operator",
    "model": "from the model's files",
    "table": "from hubgate's table, by the model's name",
    "server": "the model's server adds its own",
    "none": "none is known",
}


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one field per line."""
    for name, value in fields.items():
        print(f"{name:>28}  {value}")


def print_endpoint(shown: Mapping[str, Any]) -> None:
    """Print an endpoint's settings, detected facts and warnings, without those that its task does not use."""
    unused = _UNUSED_BY_TASK.get(shown["task"], frozenset()) | {
        "facts",
        "prefix_sources",
        "replicas",
        "gateways",
    }
    if shown.get("prefix_sources"):
        unused |= {"prefixes"}
    facts = {
        name: value
        for name, value in shown["facts"].items()
        if name not in {*unused, "warnings", "prefixes", "prefix_source", "prompts"}
    }
    print_fields({name: plain(value) for name, value in shown.items() if name not in unused})
    print_prefixes(shown)
    if "prefixes" not in _UNUSED_BY_TASK.get(shown["task"], frozenset()):
        print_prompts(shown["facts"].get("prompts") or {})
    print_fields({f"detected: {name}": plain(value) for name, value in facts.items() if value is not None})
    for replica in shown.get("replicas", ()):
        described = " ".join(filter(None, (replica["state"], replica.get("cause"), replica["engine"])))
        print_fields({"replica": f"{replica['name']}  {described}, {replica['requests']} requests"})
    for gateway, part in shown.get("gateways", {}).items():
        described = " ".join(filter(None, (part["state"], part.get("cause"))))
        numbers = f"{part['queued_calls']} queued, {part['in_flight']} in flight"
        if limit := part.get("concurrency_limit"):
            numbers += f" (limit {limit})"
        print_fields({"gateway": f"{gateway}  {described}, {numbers}"})
    _print_warnings(shown)


def print_result(action: str, shown: Mapping[str, Any]) -> None:
    """Print a summary of a changed endpoint, after an `action` such as "Added"."""
    name, facts = shown["name"], shown["facts"]
    dimensions, limit = facts.get("dimensions"), shown.get("max_input_tokens")
    details = (
        shown["task"],
        facts.get("model") or shown.get("model") or shown.get("url"),
        " ".join(filter(None, (facts.get("engine"), facts.get("engine_version")))),
        f"{dimensions} dimensions" if dimensions else None,
        f"up to {limit} tokens" if limit else None,
        None if shown["enabled"] else "disabled",
    )
    print(f"{action} {name}: {', '.join(filter(None, details))}.")
    if failure := shown.get("failure"):
        print(f"Its test failed ({failure['cause']}): {failure['message']} {failure['remedy']}".rstrip())
    print(f"`hubgate show {name}` shows all settings.")
    _print_warnings(shown)


def print_prefixes(shown: Mapping[str, Any]) -> None:
    """Print what is prepended to the texts of each input type, and where that is known from."""
    for kind, source in shown.get("prefix_sources", {}).items():
        prefix = shown["prefixes"].get(kind)
        text = json.dumps(prefix, ensure_ascii=False) if prefix else "none"
        print_fields({f"prefix for {kind}": f"{text} ({_PREFIX_SOURCES[source]})"})


def print_card_prefixes(shown: Mapping[str, Any]) -> None:
    """The same for a model on the Hub, as a registration would find it."""
    source = shown.get("prefix_source")
    if source is None:
        return
    for kind, prefix in shown["prefixes"].items():
        text = json.dumps(prefix, ensure_ascii=False)
        print_fields({f"prefix for {kind}": f"{text} ({_PREFIX_SOURCES[source]})"})
    if not shown["prefixes"]:
        print_fields({"prefixes": f"none ({_PREFIX_SOURCES[source]})"})


def print_prompts(prompts: Mapping[str, str]) -> None:
    """Print a model's own prompts by name."""
    for name, text in prompts.items():
        print_fields({f"prompt {name}": json.dumps(text, ensure_ascii=False)})


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
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def format_time(seconds: float | None) -> str:
    """A time in seconds since the epoch as date and time in UTC; empty for `None`."""
    from datetime import UTC, datetime

    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def format_bytes(count: int) -> str:
    """A number of bytes with a suitable unit."""
    for unit, exponent in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << exponent:
            return f"{count / (1 << exponent):.1f} {unit}"
    return f"{count} bytes"


def plain(value: object) -> str:
    """A value of JSON as text for people: `none`, `yes`, lists with commas."""
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
