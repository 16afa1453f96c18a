"""`hubgate config …`: the whole configuration as one file."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated, Any

import typer

from hubgate.cli.client import CommandFailed, NoHome, api
from hubgate.cli.printing import plain

app = typer.Typer(help="The whole configuration as one file.", no_args_is_help=True)

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@app.command("export")
def export_config(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
) -> None:
    """Print the configuration as YAML, without secrets."""
    from urllib.parse import urlencode

    asked = {"format": "json", **({} if endpoint is None else {"endpoint": endpoint})}
    print(api("GET", f"/api/config?{urlencode(asked)}")["yaml"], end="")


@app.command("apply")
def apply_config(
    file: Annotated[str, typer.Argument(help="YAML; - reads standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be changed.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what does not stand in it, in the parts that do.")
    ] = False,
) -> None:
    """Bring about what a configuration says; its ${NAME} are taken from the environment."""
    text = _read(file)
    names = set(_REFERENCE.findall(text))
    secrets = {name: value for name in sorted(names) if (value := os.environ.get(name))}
    form = {"yaml": text, "secrets": secrets, "dry_run": dry_run, "prune": prune}
    told = api("POST", "/api/config", form, no_home=NoHome.BORROWED if dry_run else NoHome.MADE)
    for step in told["steps"]:
        _tell(step)
    if not told["steps"]:
        print("Nothing to change.")
    if told["failed"]:
        raise CommandFailed(f"{told['failed']} of {len(told['steps'])} changes failed.")


def _tell(step: dict[str, Any]) -> None:
    """One line a step, one line each setting."""
    print(f"{step['action']} {step['kind']} {step['name']}")
    for name, (before, after) in step.get("changes", {}).items():
        told = f"{plain(before)} → {plain(after)}" if step["action"] == "change" else plain(after)
        print(f"    {name}: {told}")
    if "key" in step:
        print(f"    the key, shown only this once: {step['key']}")
    if "failure" in step:
        print(f"    failed: {step['failure']['message']} {step['failure']['remedy']}".rstrip())


def _read(file: str) -> str:
    from pathlib import Path

    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise CommandFailed(f"{file} cannot be read: {reason}.") from None
