"""`hubgate usage` and `hubgate audit`: what the gate has written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from hubgate.cli.client import api, print_text
from hubgate.cli.options import given
from hubgate.cli.printing import moment, plain, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


_TELLING = (
    *("source", "task", "url", "model", "learned.dimensions", "connection", "token"),
    *("admin", "bulk", "endpoints", "expires_at"),
)
"""What tells an endpoint, a connection or a key from others, beside its name."""
_LONGEST = 50
"""Letters of a value in the table of changes."""


def usage(
    by: Annotated[
        str | None, Option(help="Some of endpoint, key, day, hour, cause, with commas between.")
    ] = "endpoint",
    start: Annotated[
        str | None, Option("--from", help="A date or time, UTC; 7 days ago unless told.")
    ] = None,
    end: Annotated[str | None, Option("--to", help="The same, excluded; now unless told.")] = None,
    endpoint: Annotated[str | None, Option(help="Only of this endpoint.")] = None,
    key: Annotated[str | None, Option(help="Only of the key of this id or name.")] = None,
    as_csv: Annotated[bool, Option("--csv", help="All numbers, as CSV.")] = False,
) -> None:
    """Show how much was used."""
    from urllib.parse import urlencode

    asked = given(by=by, to=end, endpoint=endpoint, key=key, **{"from": start}) or {}
    if as_csv:
        print_text(f"/api/usage?{urlencode({**asked, 'format': 'csv'})}")
        return
    told = api("GET", f"/api/usage?{urlencode(asked)}")
    rows: list[dict[str, Any]] = told["rows"]
    groups = ["key_name" if word == "key" else word for word in told["by"]]
    numbers = [name for name in _COLUMNS if not rows or name in rows[0]]
    print_table(
        [*(group.removesuffix("_name") for group in groups), *(_COLUMNS[name] for name in numbers)],
        [[row[group] for group in groups] + [_short(row[name]) for name in numbers] for row in rows],
    )


def audit(
    limit: Annotated[int, Option(help="How many of the newest changes.", min=1, max=1000)] = 50,
) -> None:
    """Show who changed what, the newest first, in short: /api/audit tells all of it."""
    print_table(
        ("when", "who", "what", "of", "how"),
        [
            (
                moment(change["at"]),
                change["who_name"],
                change["verb"],
                change["subject"],
                _told(change["verb"], change["changes"]),
            )
            for change in api("GET", f"/api/audit?limit={limit}")["changes"]
        ],
    )


def _told(verb: str, changes: Mapping[str, Sequence[Any]]) -> str:
    """What was changed from what to what; of a new thing only what tells it from others."""
    if verb.endswith((".add", ".create")):
        changes = {name: changes[name] for name in _TELLING if name in changes and changes[name][1]}
    if verb.endswith(".change"):
        told = (f"{name}: {_cut(name, old)} → {_cut(name, new)}" for name, (old, new) in changes.items())
    else:
        told = (f"{name}: {_cut(name, new)}" for name, (_, new) in changes.items())
    return ", ".join(told)


def _cut(name: str, value: object) -> str:
    text = moment(value) if isinstance(value, float) and name.endswith("_at") else plain(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _short(value: float | None) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value
