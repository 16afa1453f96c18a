"""`hubgate connection …`: stored tokens that several endpoints can use."""

from __future__ import annotations

from typing import Annotated

import typer

from hubgate.terminal import options
from hubgate.terminal.client import CommandFailed, NoHome, api, segment
from hubgate.terminal.printing import format_time, print_table

app = typer.Typer(help="Stored tokens that several endpoints can use.", no_args_is_help=True)

Connection = Annotated[str, typer.Argument(help="The connection's name.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="Host that may receive the token, such as https://gpu.example.com or https://*.example.com; "
        "repeat for more. Default: huggingface, which means the hosts of Hugging Face.",
    ),
]
_MISSING = "No token given. Use --token-env NAME or --ask-token."


@app.command("list")
def list_connections() -> None:
    """List the connections, with the last characters of each token."""
    print_table(
        ("name", "tokens", "hosts", "stored", "used by"),
        [
            (
                one["name"],
                ", ".join(one["tokens"]),
                ", ".join(one["hosts"]),
                format_time(one["created_at"]),
                ", ".join(one["endpoints"]),
            )
            for one in api("GET", "/api/connections")["connections"]
        ],
    )


@app.command("add")
def add_connection(
    name: Connection,
    token_env: options.TokenEnv = None,
    ask_token: options.AskToken = False,
    host: Hosts = None,
) -> None:
    """Store a token under a name. The environment variable can hold several, one per line."""
    token = options.read_token(token_env, ask=ask_token)
    if token is None:
        raise CommandFailed(_MISSING)
    body = {"name": name, "token": token, **({"hosts": host} if host else {})}
    api("POST", "/api/connections", body, no_home=NoHome.CREATE)
    print(f"Stored {name}.")


@app.command("replace")
def replace_connection(
    name: Connection,
    token_env: options.TokenEnv = None,
    ask_token: options.AskToken = False,
    host: Hosts = None,
) -> None:
    """Replace the token or the hosts of a connection, at once for all its endpoints. A new host requires the token, too."""
    token = options.read_token(token_env, ask=ask_token)
    body = options.given(token=token, hosts=host or None)
    if body is None:
        raise CommandFailed(f"{_MISSING} To replace only the hosts, use --host.")
    users = api("PATCH", f"/api/connections/{segment(name)}", body)["endpoints"]
    what = "token" if token else "hosts"
    print(f"Replaced the {what} of {name}{', used by ' if users else ''}{', '.join(users)}.")


@app.command("remove")
def remove_connection(name: Connection) -> None:
    """Remove a connection that no endpoint uses."""
    api("DELETE", f"/api/connections/{segment(name)}")
    print(f"Removed {name}.")
