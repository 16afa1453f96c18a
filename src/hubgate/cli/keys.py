"""`hubgate key …`: keys of the gateway."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from hubgate.domain.endpoint import InputType
from hubgate.terminal.client import CommandFailed, NoHome, api, api_list, segment
from hubgate.terminal.options import given
from hubgate.terminal.printing import format_time, print_table

app = typer.Typer(help="Gateway keys: who can call the gateway.", no_args_is_help=True)


def _input_type(name: str) -> InputType:
    try:
        return InputType.parse(name)
    except ValueError:
        raise typer.BadParameter(f"{name!r} is not one of {_INPUT_TYPES.replace('|', ', ')}.") from None


_INPUT_TYPES = "query|document|classification|clustering"
DefaultEndpoint = Annotated[str | None, typer.Option(help="Endpoint for routes that name none.")]
InputTypeOption = Annotated[
    InputType | None,
    typer.Option(
        "--input-type",
        parser=_input_type,
        metavar=_INPUT_TYPES,
        help="Input type of calls that do not specify one.",
    ),
]
Endpoints = Annotated[
    list[str] | None, typer.Option("--endpoint", help="Endpoint it may call; repeat for more. Default: all.")
]
RequestsPerMinute = Annotated[int | None, typer.Option(help="Max calls per minute.", min=1)]
TokensPerMinute = Annotated[int | None, typer.Option(help="Max tokens per minute.", min=1)]
Expires = Annotated[str | None, typer.Option(help="Date or time (UTC), or number of days: 2026-12-31, 30d.")]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may administer the gateway.")] = False,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="Its calls have lower priority than those of other keys.")
    ] = False,
    default_endpoint: DefaultEndpoint = None,
    input_type: InputTypeOption = None,
    endpoint: Endpoints = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    expires: Expires = None,
) -> None:
    """Create a gateway key. It is printed once and cannot be shown again."""
    form = given(
        default_endpoint=default_endpoint,
        input_type=input_type,
        endpoints=endpoint or None,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires_at=_timestamp(expires),
    )
    body = {"name": name, "admin": admin, "bulk": bulk, **(form or {})}
    print(api("POST", "/api/keys", body, no_home=NoHome.CREATE)["key"])


@app.command("edit")
def edit_key(
    key: Annotated[str, typer.Argument(help="A key's id or name.")],
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    bulk: Annotated[
        bool | None,
        typer.Option("--bulk/--interactive", help="Whether its calls have lower priority than others."),
    ] = None,
    default_endpoint: DefaultEndpoint = None,
    input_type: InputTypeOption = None,
    endpoint: Endpoints = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    expires: Expires = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="Restore the default of a field, by its name in docs/api.md.")
    ] = None,
) -> None:
    """Change the name and the rights of a key; the key itself stays the same."""
    changes = given(
        name=name,
        bulk=bulk,
        default_endpoint=default_endpoint,
        input_type=input_type,
        endpoints=endpoint or None,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires_at=_timestamp(expires),
    )
    form = (changes or {}) | {field.replace("-", "_"): None for field in unset or ()}
    if not form:
        raise CommandFailed("No settings given. `hubgate key edit --help` lists them.")
    api("PATCH", f"/api/keys/{segment(key)}", form)
    print(f"Changed {key}.")


@app.command("list")
def list_keys() -> None:
    """List the gateway keys."""
    print_table(
        ("id", "name", "rights", "endpoints", "default", "input type", "per minute", "expires", "last used"),
        [
            (
                key["id"],
                key["name"],
                ", ".join(right for right in ("admin", "bulk") if key[right]),
                ", ".join(key["endpoints"]) or "all",
                key["default_endpoint"],
                key["input_type"],
                _limits(key),
                format_time(key["expires_at"]),
                format_time(key["last_used_at"]),
            )
            for key in api_list("/api/keys", "keys", "id")
        ],
    )


@app.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="A key's id or name.")]) -> None:
    """Revoke a gateway key. It stops working at once."""
    api("DELETE", f"/api/keys/{segment(key)}")
    print(f"Revoked {key}.")


@app.command("rotate-secret")
def rotate_secret() -> None:
    """Re-encrypt every stored token with the newest secret key."""
    resealed = api("POST", "/api/secret/rotate")["resealed"]
    print(f"Re-encrypted {resealed} token{'' if resealed == 1 else 's'} with the newest secret key.")


def _limits(key: dict[str, Any]) -> str:
    limits = ((key["requests_per_minute"], "requests"), (key["tokens_per_minute"], "tokens"))
    return ", ".join(f"{number} {what}" for number, what in limits if number)


def _timestamp(text: str | None) -> float | None:
    """A date, a time, or a number of days from now, in seconds since 1970."""
    if text is None:
        return None
    from datetime import UTC, datetime, timedelta

    if re.fullmatch(r"[0-9]{1,6}d", text):
        return (datetime.now(UTC) + timedelta(days=int(text[:-1]))).timestamp()
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed("Invalid --expires. Use 2026-12-31, 2026-12-31T18:00, or 30d.") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
