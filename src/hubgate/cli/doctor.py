"""What is wrong with an endpoint, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from hubgate.cli.client import CommandFailed, api, segment
from hubgate.cli.printing import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence


def doctor(name: Annotated[str, Argument(help="The endpoint's name.")]) -> None:
    """Go the way to an endpoint's model step by step, and say what fails, why, and what to do."""
    diagnosis = api("POST", f"/api/endpoints/{segment(name)}/diagnose")
    print_steps(diagnosis["steps"])
    if not diagnosis["well"]:
        raise CommandFailed(f"{name} is not well.")
    print(f"{name} is well.")


def print_steps(steps: Sequence[dict[str, Any]]) -> None:
    """A line a step, and under them the one that failed."""
    print_table(
        ("step", "outcome", "ms"),
        [(step["step"], step["outcome"], step["milliseconds"] or None) for step in steps],
    )
    for step in steps:
        if step["outcome"] == "failed":
            print(f"\n{step['message']}\n{step['remedy']}".rstrip())
