"""`hubgate config …`: the whole configuration as one file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubgate.terminal.client import CommandFailed, NoHome, api
from hubgate.terminal.printing import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = typer.Typer(help="The whole configuration as one file.", no_args_is_help=True)


@app.command("export")
def export_config(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
) -> None:
    """Print the configuration as YAML, without secrets."""
    from urllib.parse import urlencode

    parameters = {"format": "json", **({} if endpoint is None else {"endpoint": endpoint})}
    print(api("GET", f"/api/config?{urlencode(parameters)}")["yaml"], end="")


@app.command("apply")
def apply_config(
    file: Annotated[str, typer.Argument(help="YAML file; - reads standard input.")],
    allow_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Send this environment variable to the hosts that the file names, and no other variable. Can be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete anything not in this file, in the sections that it has.")
    ] = False,
    accept_new_vectors: Annotated[
        bool,
        typer.Option(
            "--accept-new-vectors",
            help="Move aliases even to vectors that cannot be compared with those before.",
        ),
    ] = False,
) -> None:
    """Apply a configuration. Its ${NAME} tokens are read from the environment, if that is confirmed or allowed."""
    text = _read(file)
    secrets = _tokens(text, allow_env, dry_run=dry_run) if "${" in text else {}
    form = {"yaml": text, "secrets": secrets, "dry_run": dry_run, "prune": prune}
    if accept_new_vectors:  # a running gateway may be older than the field
        form["accept_new_vectors"] = True
    reply = api("POST", "/api/config", form, no_home=NoHome.TEMPORARY if dry_run else NoHome.CREATE)
    for step in reply["steps"]:
        _print_step(step)
    if not reply["steps"]:
        print("Nothing to change.")
    if reply["failed"]:
        raise CommandFailed(f"{reply['failed']} of {len(reply['steps'])} changes failed.")


def _tokens(text: str, allowed: Sequence[str] | None, *, dry_run: bool) -> Mapping[str, str]:
    """The values of the references. The gateway sends them to hosts that the file names, so the operator decides.

    A dry run needs no permission: the gateway sends nothing.

    Raises:
        CommandFailed: the operator refuses, or cannot be asked.
        InvalidRequest: the text is not a configuration.
    """
    from hubgate.web.schemas.config_yaml import token_hosts

    hosts = {name: " and ".join(where) for name, where in token_hosts(text).items() if os.environ.get(name)}
    if allowed:
        for name in sorted(hosts.keys() - set(allowed)):
            typer.echo(f"hubgate: {name} is not used. It would be sent to {hosts.pop(name)}.", err=True)
    elif dry_run:
        for name, where in hosts.items():
            typer.echo(f"hubgate: {name} would be sent to {where}.", err=True)
    elif hosts:
        _confirm(hosts)
    return {name: os.environ[name] for name in hosts}


def _confirm(hosts: Mapping[str, str]) -> None:
    if not sys.stdin.isatty():
        sent = "; ".join(f"{name} to {where}" for name, where in hosts.items())
        options = " ".join(f"--allow-env {name}" for name in hosts)
        raise CommandFailed(f"The file sends environment variables: {sent}. To allow that, add: {options}")
    typer.echo("The file sends environment variables:", err=True)
    for name, where in hosts.items():
        typer.echo(f"    {name} to {where}", err=True)
    if not typer.confirm("Send them?", err=True):
        raise CommandFailed("Nothing was changed.")


def _print_step(step: dict[str, Any]) -> None:
    print(f"{step['action']} {step['kind']} {step['name']}")
    for name, (before, after) in step.get("changes", {}).items():
        change = f"{plain(before)} → {plain(after)}" if step["action"] == "change" else plain(after)
        print(f"    {name}: {change}")
    if "key" in step:
        print(f"    the key, shown only this once: {step['key']}")
    if "failure" in step:
        print(f"    failed: {step['failure']['message']} {step['failure']['remedy']}".rstrip())


def _read(file: str) -> str:
    from pathlib import Path

    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandFailed(f"Cannot read {file}: {reason}.") from None
