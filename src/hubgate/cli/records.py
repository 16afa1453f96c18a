"""`hubgate audit`, `hubgate gates` and `hubgate cache …`: what the gateway has counted and recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Option, Typer

from hubgate.terminal.client import CommandFailed, api, lacks_cache
from hubgate.terminal.printing import format_bytes, format_time, plain, print_fields, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

cache = Typer(help="The vector cache.", no_args_is_help=True)
_IDENTIFYING = (
    *("source", "task", "url", "model", "learned.dimensions", "connection", "token"),
    *("admin", "bulk", "endpoints", "expires_at"),
)
"""Settings that distinguish an endpoint, connection or key from others, besides its name."""
_MAX_VALUE_LENGTH = 50


def audit(
    limit: Annotated[int, Option(help="Max number of changes.", min=1, max=1000)] = 50,
) -> None:
    """Show who changed what, newest first. Values are shortened; /api/audit returns them in full."""
    print_table(
        ("when", "who", "what", "of", "how"),
        [
            (
                format_time(change["at"]),
                change["who_name"],
                change["verb"],
                change["subject"],
                _describe(change["verb"], change["changes"]),
            )
            for change in api("GET", f"/api/audit?limit={limit}")["changes"]
        ],
    )


def gates() -> None:
    """Show the gateways that share the database, and whether they follow the newest change."""
    reply = api("GET", "/api/gates")
    if not reply["gates"]:
        print("No gateway runs on a shared database. With HUBGATE_DATABASE_URL, several can.")
        return
    print_table(
        ("gateway", "state", "behind", "hubgate", "revision", "secret keys", "started", "last seen"),
        [
            (
                gate["name"],
                gate["state"],
                max(0, reply["version"] - gate["version"]),
                gate["hubgate"],
                gate["revision"],
                ", ".join(gate["secret_keys"]),
                format_time(gate["started_at"]),
                f"{gate['silent_seconds']:g} s ago",
            )
            for gate in reply["gates"]
        ],
    )


@cache.command("stats")
def cache_stats() -> None:
    """Show the size and the hit rate of the vector cache."""
    if lacks_cache():
        raise CommandFailed(
            "Each gateway has a vector cache of its own. Run this on the machine of a gateway."
        )
    stats = api("GET", "/api/cache")
    if not stats["enabled"]:
        print("The vector cache is off: HUBGATE_CACHE_BYTES is 0.")
        return
    fields = {
        place: f"{stats[key]['entries']} vectors, {format_bytes(stats[key]['bytes'])} of {format_bytes(stats[key]['most_bytes'])}"
        for place, key in (("in memory", "memory"), ("on disk", "disk"))
        if key in stats
    }
    if shared := stats.get("shared"):
        most = f" of {format_bytes(shared['most_bytes'])}" if shared["most_bytes"] else ""
        size = f"{format_bytes(shared['bytes'])}{most} in use"
        fields["shared"] = f"{shared['server']}, {size if shared['available'] else 'not available'}"
    print_fields(fields)
    print_table(
        ("endpoint", "hits", "misses", "hit rate"),
        [
            (name, one["hits"], one["misses"], _rate(one["hits"], one["misses"]))
            for name, one in stats["endpoints"].items()
        ],
    )


@cache.command("clear")
def clear_cache() -> None:
    """Delete all cached vectors."""
    api("DELETE", "/api/cache")
    print("Deleted all cached vectors.")


def _rate(hits: int, misses: int) -> str:
    return f"{hits / (hits + misses):.0%}" if hits + misses else ""


def _describe(verb: str, changes: Mapping[str, Sequence[Any]]) -> str:
    """The changed settings; of something new, only those that distinguish it."""
    if verb.endswith((".add", ".create")):
        changes = {name: changes[name] for name in _IDENTIFYING if name in changes and changes[name][1]}
    if verb.endswith(".change"):
        settings = (f"{name}: {_cut(name, old)} → {_cut(name, new)}" for name, (old, new) in changes.items())
    else:
        settings = (f"{name}: {_cut(name, new)}" for name, (_, new) in changes.items())
    return ", ".join(settings)


def _cut(name: str, value: object) -> str:
    text = format_time(value) if isinstance(value, float) and name.endswith("_at") else plain(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"
