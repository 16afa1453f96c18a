"""`hubgate key …`: who may call the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from hubgate.cli.client import api, segment
from hubgate.cli.printing import moment, print_table
from hubgate.domain.calls import InputType

app = typer.Typer(help="Gateway keys: who may call the gate.", no_args_is_help=True)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may change the gate.")] = False,
    bulk: Annotated[bool, typer.Option("--bulk", help="Its calls wait behind those of other keys.")] = False,
    default_endpoint: Annotated[
        str | None, typer.Option(help="Answers the routes that name no endpoint.")
    ] = None,
    input_type: Annotated[
        InputType | None,
        typer.Option(
            parser=InputType.parse,
            metavar="query|document|classification|clustering",
            help="What its texts are for, where a call does not say.",
        ),
    ] = None,
) -> None:
    """Create a gateway key. It is printed this once and cannot be shown again."""
    form = {
        "name": name,
        "admin": admin,
        "bulk": bulk,
        "default_endpoint": default_endpoint,
        "input_type": input_type,
    }
    print(api("POST", "/api/keys", form)["key"])


@app.command("list")
def list_keys() -> None:
    """List the gateway keys."""
    print_table(
        ("id", "name", "rights", "default endpoint", "input type", "created", "last used"),
        [
            (
                key["id"],
                key["name"],
                ", ".join(right for right in ("admin", "bulk") if key[right]),
                key["default_endpoint"],
                key["input_type"],
                moment(key["created_at"]),
                moment(key["last_used_at"]),
            )
            for key in api("GET", "/api/keys")["keys"]
        ],
    )


@app.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="A key's id or name.")]) -> None:
    """Revoke a gateway key; it stops at once."""
    api("DELETE", f"/api/keys/{segment(key)}")
    print(f"Revoked {key}.")


@app.command("rotate-secret")
def rotate_secret() -> None:
    """Seal every stored token under a new secret key."""
    resealed = api("POST", "/api/secret/rotate")["resealed"]
    print(f"Sealed {resealed} token{'' if resealed == 1 else 's'} under the newest secret key.")
