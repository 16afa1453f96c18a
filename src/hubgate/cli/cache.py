"""`hubgate cache …`: the vectors that the gate remembers."""

from __future__ import annotations

import typer

from hubgate.cli.client import api
from hubgate.cli.printing import print_fields, print_table, size

app = typer.Typer(help="The vectors that the gate remembers.", no_args_is_help=True)


@app.command("stats")
def cache_stats() -> None:
    """Show what is remembered, and how often that helped."""
    stats = api("GET", "/api/cache")
    if not stats["enabled"]:
        print("The gate remembers no vectors: HUBGATE_CACHE_BYTES is 0.")
        return
    print_fields(
        {
            f"{where} {place}": f"{stats[place]['entries']} vectors, {size(stats[place]['bytes'])} of {size(stats[place]['most_bytes'])}"
            for where, place in (("in", "memory"), ("on", "disk"))
        }
    )
    print_table(
        ("endpoint", "hits", "misses", "hit rate"),
        [
            (name, one["hits"], one["misses"], _rate(one["hits"], one["misses"]))
            for name, one in stats["endpoints"].items()
        ],
    )


@app.command("clear")
def clear_cache() -> None:
    """Forget all remembered vectors."""
    api("DELETE", "/api/cache")
    print("Forgot all remembered vectors.")


def _rate(hits: int, misses: int) -> str:
    return f"{hits / (hits + misses):.0%}" if hits + misses else ""
