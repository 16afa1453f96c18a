"""`hubgate connection …`: stored tokens, for endpoints that have none of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from hubgate.cli import options
from hubgate.cli.client import CommandFailed, NoHome, api, segment
from hubgate.cli.printing import moment, print_table

app = typer.Typer(help="Stored tokens, for endpoints that have none of their own.", no_args_is_help=True)

Connection = Annotated[str, typer.Argument(help="The connection's name.")]


@app.command("list")
def list_connections() -> None:
    """List the connections, each token as its last characters."""
    print_table(
        ("name", "tokens", "stored", "used by"),
        [
            (one["name"], ", ".join(one["tokens"]), moment(one["created_at"]), ", ".join(one["endpoints"]))
            for one in api("GET", "/api/connections")["connections"]
        ],
    )


@app.command("add")
def add_connection(
    name: Connection, token_env: options.TokenEnv = None, ask_token: options.AskToken = False
) -> None:
    """Store a token under a name; several stand one a line in the environment variable."""
    body = {"name": name, "token": _needed(token_env, ask=ask_token)}
    api("POST", "/api/connections", body, no_home=NoHome.MADE)
    print(f"Stored {name}.")


@app.command("replace")
def replace_connection(
    name: Connection, token_env: options.TokenEnv = None, ask_token: options.AskToken = False
) -> None:
    """Replace a connection's token; the endpoints that use it use the new one at once."""
    body = {"token": _needed(token_env, ask=ask_token)}
    users = api("PATCH", f"/api/connections/{segment(name)}", body)["endpoints"]
    print(f"Replaced the token of {name}{', used by ' if users else ''}{', '.join(users)}.")


@app.command("remove")
def remove_connection(name: Connection) -> None:
    """Forget a connection that no endpoint uses."""
    api("DELETE", f"/api/connections/{segment(name)}")
    print(f"Removed {name}.")


def _needed(variable: str | None, *, ask: bool) -> str:
    token = options.token(variable, ask=ask)
    if token is None:
        raise CommandFailed("Say where the token is: --token-env NAME or --ask-token.")
    return token
