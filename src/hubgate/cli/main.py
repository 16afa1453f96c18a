"""The commands of `hubgate`. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from hubgate import __version__
from hubgate.cli.chunk import chunk_command
from hubgate.settings import InvalidSetting, Settings

app = typer.Typer(
    name="hubgate",
    help="The gate between applications and the open models of Hugging Face.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="Gateway keys: who may call the gate.", no_args_is_help=True)
app.add_typer(keys, name="key")
app.command("chunk")(chunk_command)

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]


def main() -> None:
    """Run one command; an error that hubgate foresees is one plain line, and exit code 1."""
    from hubgate.domain.errors import HubgateError

    try:
        app()
    except (InvalidSetting, HubgateError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(f"hubgate: {message}", file=sys.stderr)
    sys.exit(1)


def _api(method: str, path: str, body: object = None) -> Any:
    from hubgate.cli.client import CommandFailed, call

    try:
        return call(Settings.from_env(), method, path, body)
    except CommandFailed as error:
        _fail(str(error))


@app.command()
def serve() -> None:
    """Serve the gate until Ctrl-C. Settings come from the environment: docs/settings.md lists them."""
    from hubgate.cli.serve import run

    run(Settings.from_env())


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def add(
    name: Name,
    url: Annotated[str | None, typer.Option(help="Of an Inference Endpoint, or any such server.")] = None,
    local: Annotated[
        str | None, typer.Option(help="A model's folder or Hub repository, run on this machine.")
    ] = None,
    fake: Annotated[
        bool, typer.Option(help="Deterministic vectors without a model, to try things out.")
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help="The server behind the URL, if it is not to be detected.")
    ] = None,
    token_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds the access token.")
    ] = None,
    ask_token: Annotated[bool, typer.Option("--ask-token", help="Ask for the access token.")] = False,
    requests_per_minute: Annotated[int | None, typer.Option(help="The allowance.", min=1)] = None,
) -> None:
    """Register a model: it is called before it is stored, and what it is gets printed."""
    if (url is not None) + (local is not None) + fake != 1:
        _fail("Say where the model runs: one of --url, --local or --fake.")
    form = {
        "name": name,
        "source": "fake" if fake else "local" if local else "dedicated",
        "url": url,
        "model": local,
        "engine": engine,
        "token": _token(token_env, ask=ask_token),
        "rate_limit": requests_per_minute and {"requests_per_minute": requests_per_minute},
    }
    added = _api("POST", "/api/endpoints", {key: value for key, value in form.items() if value is not None})
    _print_endpoint(added)


def _token(variable: str | None, *, ask: bool) -> str | None:
    """The token, never from the command line itself: every user of a machine can read that."""
    if variable is not None:
        token = os.environ.get(variable)
        if not token:
            _fail(f"The environment variable {variable} is not set.")
        return token
    return typer.prompt("Access token", hide_input=True) if ask else None


@app.command("list")
def list_endpoints() -> None:
    """List the endpoints."""
    _print_table(
        ("name", "task", "source", "engine", "dimensions", "model or URL"),
        [
            (
                e["name"],
                e["task"],
                e["source"],
                e["facts"].get("engine"),
                e.get("dimensions"),
                e.get("url") or e.get("model"),
            )
            for e in _api("GET", "/api/endpoints")["endpoints"]
        ],
    )


@app.command()
def show(name: Name) -> None:
    """Show an endpoint."""
    _print_endpoint(_api("GET", f"/api/endpoints/{_quoted(name)}"))


@app.command()
def remove(name: Name) -> None:
    """Forget an endpoint and its token."""
    _api("DELETE", f"/api/endpoints/{_quoted(name)}")
    print(f"Removed {name}.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may change the gate.")] = False,
    default_endpoint: Annotated[
        str | None, typer.Option(help="Answers the routes that name no endpoint.")
    ] = None,
) -> None:
    """Create a gateway key. It is printed this once and cannot be shown again."""
    made = _api("POST", "/api/keys", {"name": name, "admin": admin, "default_endpoint": default_endpoint})
    print(made["key"])


@keys.command("list")
def list_keys() -> None:
    """List the gateway keys."""
    _print_table(
        ("id", "name", "admin", "default endpoint", "created", "last used"),
        [
            (
                k["id"],
                k["name"],
                "yes" if k["admin"] else "",
                k["default_endpoint"],
                _time(k["created_at"]),
                _time(k["last_used_at"]),
            )
            for k in _api("GET", "/api/keys")["keys"]
        ],
    )


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="A key's id or name.")]) -> None:
    """Revoke a gateway key; it stops at once."""
    _api("DELETE", f"/api/keys/{_quoted(key)}")
    print(f"Revoked {key}.")


@keys.command("rotate-secret")
def rotate_secret() -> None:
    """Seal every stored token under a new secret key."""
    resealed = _api("POST", "/api/secret/rotate")["resealed"]
    print(f"Sealed {resealed} token{'' if resealed == 1 else 's'} under the newest secret key.")


def _quoted(part: str) -> str:
    from urllib.parse import quote

    return quote(part, safe="")


def _time(seconds: float | None) -> str:
    from datetime import UTC, datetime

    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _print_endpoint(endpoint: dict[str, Any]) -> None:
    facts = endpoint.pop("facts")
    warnings = facts.pop("warnings", ())
    learned = {f"learned: {key}": value for key, value in facts.items() if value is not None}
    for key, value in (endpoint | learned).items():
        print(f"{key:>28}  {value}")
    for warning in warnings:
        print(f"{'warning':>28}  {warning}")


def _print_table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200  # a pipe has no width to fit into
    Console(width=width).print(table)
