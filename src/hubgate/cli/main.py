"""The commands of `hubgate`. Each imports what it needs when it runs, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from io import TextIOWrapper
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hubgate import __version__, features
from hubgate.cli import config, connection_commands, database, endpoints, hub, keys, records
from hubgate.cli.chunk import chunk_command
from hubgate.cli.compare import compare_command
from hubgate.domain.errors import HubgateError
from hubgate.settings import InvalidSetting, Settings
from hubgate.terminal import client
from hubgate.terminal.client import CommandFailed
from hubgate.terminal.commands import Command
from hubgate.terminal.memory import tune_for_imports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from hubgate.web.app import Application

app = typer.Typer(
    name="hubgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would take half of the time of `--help`
)


@app.command()
def serve(
    workers: Annotated[
        int,
        typer.Option(min=1, max=256, help="Processes that share the port; more than one needs PostgreSQL."),
    ] = 1,
) -> None:
    """Run the gateway until Ctrl-C. Settings come from environment variables, listed in docs/settings.md."""
    settings = Settings.from_env()
    if workers > 1:
        from hubgate.cli.server.workers import run_workers

        raise typer.Exit(run_workers(settings, workers))
    from hubgate.cli.server.serve import run

    run(settings)


_COMMANDS = (
    Command(10, "add", endpoints.add),
    Command(11, "edit", endpoints.edit),
    Command(12, "enable", endpoints.enable),
    Command(13, "disable", endpoints.disable),
    Command(14, "clone", endpoints.clone),
    Command(15, "list", endpoints.list_endpoints),
    Command(16, "show", endpoints.show),
    Command(17, "check", endpoints.check),
    Command(18, "accept", endpoints.accept),
    Command(19, "doctor", endpoints.doctor),
    Command(20, "remove", endpoints.remove),
    Command(30, "key", keys.app),
    Command(50, "connection", connection_commands.app),
    Command(60, "config", config.app),
    Command(71, "audit", records.audit),
    Command(72, "gates", records.gates),
    Command(74, "cache", records.cache),
    Command(100, "migrate", database.migrate),
    Command(101, "move", database.move),
    Command(110, "search", hub.search),
    Command(111, "card", hub.card),
    Command(112, "chunk", chunk_command),
    Command(113, "compare", compare_command),
)
for _command in sorted([*_COMMANDS, *features.commands()], key=attrgetter("order")):
    _command.add_to(app)


def _print_version(requested: bool) -> None:
    if requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A gateway between applications and the open models of Hugging Face."""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@asynccontextmanager
async def _open_application(settings: Settings) -> AsyncIterator[Application]:
    from hubgate.wiring import open_application

    async with open_application(settings) as application:
        yield application


def _ensure_gateway(settings: Settings) -> AbstractContextManager[bool]:
    from hubgate.cli.server.own import ensure_gateway

    return ensure_gateway(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default the one of the command line. Errors are printed as one line, with exit code 1."""
    tune_for_imports()
    client.open_application.set(_open_application)
    client.own_gateway.set(_ensure_gateway)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # some terminals cannot show every character
    try:
        app(arguments)
    except (CommandFailed, HubgateError, InvalidSetting) as error:
        _fail(str(error))
    except Exception as error:
        if os.environ.get("HUBGATE_LOG_LEVEL", "").lower() == "debug":
            raise
        _fail(
            f"Internal error ({type(error).__name__}). Run it again with HUBGATE_LOG_LEVEL=debug for the traceback."
        )


def _fail(message: str) -> NoReturn:
    print(f"hubgate: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
