"""`hubgate alias …`: names for endpoints that an operator can move to other endpoints."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubgate.terminal.client import api, segment
from hubgate.terminal.commands import Command
from hubgate.terminal.printing import format_time, print_table

app = typer.Typer(help="Names for endpoints that you can move to other endpoints.", no_args_is_help=True)

Alias = Annotated[str, typer.Argument(metavar="NAME", help="The name of the alias.")]


@app.command("list")
def list_aliases() -> None:
    """List the aliases, each with its endpoint."""
    print_table(
        ("name", "endpoint", "task", "model", "moved"),
        [
            (
                one["name"],
                one["endpoint"],
                one["task"],
                (one["model"] or "").partition("@")[0],  # without its revision
                format_time(one["moved_at"]),
            )
            for one in api("GET", "/api/aliases")["aliases"]
        ],
    )


@app.command("set")
def set_alias(
    name: Alias,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint that answers its calls.")],
    accept_new_vectors: Annotated[
        bool,
        typer.Option(
            "--accept-new-vectors",
            help="Move it even if the vectors cannot be compared. Embed all documents again first.",
        ),
    ] = False,
) -> None:
    """Add an alias, or move it. New calls go to the endpoint at once; calls in flight finish at the old one."""
    body = {"endpoint": endpoint, "accept_new_vectors": accept_new_vectors}
    moved = api("PUT", f"/api/aliases/{segment(name)}", body)
    if moved["former"] == endpoint:
        print(f"{name} already points to {endpoint}.")
    else:
        print(f"{name} now points to {endpoint}{_before(moved)}.")
    for key in moved["keys"]["follow"]:
        print(f"Key {key} can now call {endpoint} as {name}.")
    for key in moved["keys"]["lose"]:
        print(f"Key {key} can no longer use {name}: it is limited to {moved['former']}.")


@app.command("remove")
def remove_alias(
    name: Alias,
    force: Annotated[bool, typer.Option("--force", help="Remove it even if keys use it.")] = False,
) -> None:
    """Remove an alias. Its endpoint stays."""
    api("DELETE", f"/api/aliases/{segment(name)}{'?force=true' if force else ''}")
    print(f"Removed {name}.")


def _before(moved: dict[str, Any]) -> str:
    if moved["former"] is None:
        return ""
    warning = "; their vectors cannot be compared" if moved["new_vectors"] else ""
    return f", before to {moved['former']}{warning}"


COMMANDS = (Command(40, "alias", app),)
