"""`hubgate usage` and `hubgate audit`: what the gate has written down."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from hubgate.cli.client import api, print_text
from hubgate.cli.options import given
from hubgate.cli.printing import moment, print_table

_COLUMNS = {
    "requests": "requests",
    "errors": "errors",
    "texts": "texts",
    "prompt_tokens": "tokens read",
    "completion_tokens": "written",
    "cache_hits": "cache hits",
    "upstream_requests": "upstream",
    "saved_requests": "saved",
    "p50": "p50 s",
    "p99": "p99 s",
}


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
    """Show who changed what, the newest first."""
    print_table(
        ("when", "who", "what", "of", "from and to"),
        [
            (
                moment(change["at"]),
                change["who_name"],
                change["verb"],
                change["subject"],
                ", ".join(f"{name}: {old} → {new}" for name, (old, new) in change["changes"].items()),
            )
            for change in api("GET", f"/api/audit?limit={limit}")["changes"]
        ],
    )


def _short(value: float | None) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value
