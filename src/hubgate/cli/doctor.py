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
    _print(diagnosis["steps"])
    for step in diagnosis["steps"]:
        if step["outcome"] == "failed":
            raise CommandFailed(f"{step['message']} {step['remedy']}".rstrip(), step["cause"])
    print(f"{name} is well.")


def diagnose(form: dict[str, Any]) -> None:
    """Show how far the gate gets on its way to a model that could not be registered."""
    _print(api("POST", "/api/diagnose", {key: form[key] for key in form if key != "save_anyway"})["steps"])


def _print(steps: Sequence[dict[str, Any]]) -> None:
    print_table(
        ("step", "outcome", "ms"),
        [(step["step"], step["outcome"], step["milliseconds"] or None) for step in steps],
    )
    for step in steps:
        if step["outcome"] == "passed" and "message" in step:
            print(step["message"])
