"""`hubgate usage`."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from hubgate.terminal.client import api, print_text
from hubgate.terminal.commands import Command
from hubgate.terminal.options import given
from hubgate.terminal.printing import print_table

_COLUMNS = {
    "requests": "requests",
    "errors": "errors",
    "cancelled": "cancelled",
    "texts": "texts",
    "prompt_tokens": "tokens read",
    "completion_tokens": "written",
    "cache_hits": "cache hits",
    "upstream_requests": "upstream",
    "saved_requests": "saved",
    "p50": "p50 s",
    "p95": "p95 s",
    "p99": "p99 s",
    "bulk_p95": "bulk p95 s",
}
_UNKNOWN = "(unknown)"
"""In place of an endpoint or key of requests that named none, or one that does not exist."""


def usage(
    by: Annotated[
        str | None, Option(help="Any of endpoint, key, day, hour, cause, separated by commas.")
    ] = "endpoint",
    start: Annotated[
        str | None, Option("--from", help="Start date or time, UTC (default: 7 days ago).")
    ] = None,
    end: Annotated[
        str | None, Option("--to", help="End date or time, UTC, exclusive (default: now).")
    ] = None,
    endpoint: Annotated[str | None, Option(help="Only this endpoint.")] = None,
    key: Annotated[str | None, Option(help="Only the key with this id or name.")] = None,
    as_csv: Annotated[bool, Option("--csv", help="Print all numbers as CSV.")] = False,
) -> None:
    """Show usage: requests, tokens, errors and latency."""
    from urllib.parse import urlencode

    parameters = given(by=by, to=end, endpoint=endpoint, key=key, **{"from": start}) or {}
    if as_csv:
        print_text(f"/api/usage?{urlencode({**parameters, 'format': 'csv'})}")
        return
    reply = api("GET", f"/api/usage?{urlencode(parameters)}")
    rows: list[dict[str, Any]] = reply["rows"]
    groups = ["key_name" if word == "key" else word for word in reply["by"]]
    numbers = [name for name in _COLUMNS if not rows or name in rows[0]]
    print_table(
        [*(group.removesuffix("_name") for group in groups), *(_COLUMNS[name] for name in numbers)],
        [
            [row[group] or _UNKNOWN for group in groups] + [_short(row[name]) for name in numbers]
            for row in rows
        ],
    )


def _short(value: float | None) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value


COMMANDS = (Command(70, "usage", usage),)
