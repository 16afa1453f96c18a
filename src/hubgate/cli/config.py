"""`hubgate config …`: the whole configuration as one file."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated, Any

import typer

from hubgate.terminal.client import CommandFailed, NoHome, api
from hubgate.terminal.printing import plain

app = typer.Typer(help="The whole configuration as one file.", no_args_is_help=True)

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


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
    """Apply a configuration; its ${NAME} references are read from the environment."""
    text = _read(file)
    names = set(_REFERENCE.findall(text))
    secrets = {name: value for name in sorted(names) if (value := os.environ.get(name))}
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
