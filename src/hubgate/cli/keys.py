"""`hubgate key …`: who may call the gate."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from hubgate.cli.client import CommandFailed, NoHome, api, segment
from hubgate.cli.options import given
from hubgate.cli.printing import moment, print_table
from hubgate.domain.calls import InputType

app = typer.Typer(help="Gateway keys: who may call the gate.", no_args_is_help=True)


def _input_type(word: str) -> InputType:
    try:
        return InputType.parse(word)
    except ValueError:
        raise typer.BadParameter(f"{word!r} is none of {_INPUT_TYPES.replace('|', ', ')}.") from None


_INPUT_TYPES = "query|document|classification|clustering"
DefaultEndpoint = Annotated[str | None, typer.Option(help="Answers the routes that name no endpoint.")]
Kind = Annotated[
    InputType | None,
    typer.Option(
        "--input-type",
        parser=_input_type,
        metavar=_INPUT_TYPES,
        help="What its texts are for, where a call does not say.",
    ),
]
Endpoints = Annotated[
    list[str] | None, typer.Option("--endpoint", help="It may call this one; again for others. Else all.")
]
RequestsPerMinute = Annotated[int | None, typer.Option(help="Calls that it may make in a minute.", min=1)]
TokensPerMinute = Annotated[int | None, typer.Option(help="Tokens that it may take in a minute.", min=1)]
Expires = Annotated[
    str | None, typer.Option(help="A date or time (UTC), or in how many days: 2026-12-31, 30d.")
]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may change the gate.")] = False,
    bulk: Annotated[bool, typer.Option("--bulk", help="Its calls wait behind those of other keys.")] = False,
    default_endpoint: DefaultEndpoint = None,
    input_type: Kind = None,
    endpoint: Endpoints = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    expires: Expires = None,
) -> None:
    """Create a gateway key. It is printed this once and cannot be shown again."""
    form = given(
        default_endpoint=default_endpoint,
        input_type=input_type,
        endpoints=endpoint or None,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires_at=_moment(expires),
    )
    body = {"name": name, "admin": admin, "bulk": bulk, **(form or {})}
    print(api("POST", "/api/keys", body, no_home=NoHome.MADE)["key"])


@app.command("edit")
def edit_key(
    key: Annotated[str, typer.Argument(help="A key's id or name.")],
    name: Annotated[str | None, typer.Option(help="What it is called from now on.")] = None,
    bulk: Annotated[
        bool | None, typer.Option("--bulk/--interactive", help="Whether its calls wait behind others.")
    ] = None,
    default_endpoint: DefaultEndpoint = None,
    input_type: Kind = None,
    endpoint: Endpoints = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    expires: Expires = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="Bring a field's default back, as in docs/api.md.")
    ] = None,
) -> None:
    """Change what a key is called and may do; it stays the same key."""
    changes = given(
        name=name,
        bulk=bulk,
        default_endpoint=default_endpoint,
        input_type=input_type,
        endpoints=endpoint or None,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires_at=_moment(expires),
    )
    form = (changes or {}) | {field.replace("-", "_"): None for field in unset or ()}
    if not form:
        raise CommandFailed("Say what to change: hubgate key edit --help lists it.")
    api("PATCH", f"/api/keys/{segment(key)}", form)
    print(f"Changed {key}.")


@app.command("list")
def list_keys() -> None:
    """List the gateway keys."""
    print_table(
        ("id", "name", "rights", "endpoints", "default", "input type", "a minute", "expires", "last used"),
        [
            (
                key["id"],
                key["name"],
                ", ".join(right for right in ("admin", "bulk") if key[right]),
                ", ".join(key["endpoints"]) or "all",
                key["default_endpoint"],
                key["input_type"],
                _limits(key),
                moment(key["expires_at"]),
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


def _limits(key: dict[str, Any]) -> str:
    limits = ((key["requests_per_minute"], "requests"), (key["tokens_per_minute"], "tokens"))
    return ", ".join(f"{number} {what}" for number, what in limits if number)


def _moment(word: str | None) -> float | None:
    """A date, a time or a number of days from now, in seconds since 1970."""
    if word is None:
        return None
    from datetime import UTC, datetime, timedelta

    if re.fullmatch(r"[0-9]{1,6}d", word):
        return (datetime.now(UTC) + timedelta(days=int(word[:-1]))).timestamp()
    try:
        when = datetime.fromisoformat(word)
    except ValueError:
        raise CommandFailed("--expires is no date: write 2026-12-31, 2026-12-31T18:00, or 30d.") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
