"""The commands of `hubgate`. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hubgate import __version__
from hubgate.cli import cache, config, connection_commands, endpoints, hub, keys, records
from hubgate.cli.chunk import chunk_command
from hubgate.cli.client import CommandFailed
from hubgate.cli.jobs import commands as jobs
from hubgate.domain.errors import HubgateError
from hubgate.settings import InvalidSetting, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="hubgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would be half of what `--help` costs
)


@app.command()
def serve() -> None:
    """Serve the gate until Ctrl-C. Settings come from the environment: docs/settings.md lists them."""
    from hubgate.cli.server.serve import run

    run(Settings.from_env())


app.command("add")(endpoints.add)
app.command("edit")(endpoints.edit)
app.command("enable")(endpoints.enable)
app.command("disable")(endpoints.disable)
app.command("clone")(endpoints.clone)
app.command("list")(endpoints.list_endpoints)
app.command("show")(endpoints.show)
app.command("check")(endpoints.check)
app.command("accept")(endpoints.accept)
app.command("doctor")(endpoints.doctor)
app.command("remove")(endpoints.remove)
app.add_typer(keys.app, name="key")
app.add_typer(connection_commands.app, name="connection")
app.add_typer(config.app, name="config")
app.command("usage")(records.usage)
app.command("audit")(records.audit)
app.add_typer(cache.app, name="cache")
app.add_typer(jobs.app, name="job")
app.command("search")(hub.search)
app.command("chunk")(chunk_command)


def _tell_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """The gate between applications and the open models of Hugging Face."""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, by default that of the command line; whatever goes wrong is one plain line, and exit code 1."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal knows every letter
    try:
        app(arguments)
    except (CommandFailed, HubgateError, InvalidSetting) as error:
        _fail(str(error))
    except Exception as error:
        if os.environ.get("HUBGATE_LOG_LEVEL", "").lower() == "debug":
            raise
        _fail(f"This is a mistake in hubgate ({type(error).__name__}). HUBGATE_LOG_LEVEL=debug tells where.")


def _fail(message: str) -> NoReturn:
    print(f"hubgate: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
