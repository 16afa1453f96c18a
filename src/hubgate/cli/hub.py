"""`hubgate search`: models of the Hub that can be registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from hubgate.cli.client import NoHome, api
from hubgate.cli.printing import print_table
from hubgate.domain.endpoint import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

_RUN_HERE = frozenset({Task.TEXT_EMBEDDING, Task.RERANK})


def search(
    text: Annotated[str, typer.Argument(help="A part of the model's name.", show_default=False)] = "",
    task: Annotated[
        str | None, typer.Option(help="In the gate's words (rerank) or Hugging Face's (text-ranking).")
    ] = None,
    served: Annotated[
        bool | None,
        typer.Option(
            "--served/--not-served",
            help="Only those that an Inference Provider serves now, or only the others.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=100)] = 20,
) -> None:
    """Search the Hub for models that the gate can serve, trending first."""
    asked = {"search": text, "task": task or "", "limit": limit}
    if served is not None:
        asked["served"] = "true" if served else "false"
    path = f"/api/hub/models?{urlencode(asked)}"
    models = api("GET", path, no_home=NoHome.BORROWED)["models"]
    if not models:
        print("The Hub has no such model. Try fewer letters, another task, or without --served.")
        return
    print_table(
        ("model", "tasks", "served by", "reads", "parameters", "downloads", "likes", "access"),
        [_row(model) for model in models],
    )
    typer.echo(_how_to_add(models, task), err=True)


def _row(model: Mapping[str, Any]) -> tuple[object, ...]:
    providers = [one["provider"] for one in model["served_by"] if one["status"] == "live"]
    access = [word for word in ("gated", "private") if model[word]]
    length = model.get("max_input_tokens")
    return (
        model["name"],
        ", ".join(model["tasks"]),
        ", ".join(providers),
        f"{length} tokens" if length else None,
        _short(model.get("parameters")),
        _short(model.get("downloads")),
        model.get("likes"),
        ", ".join(access),
    )


def _short(count: int | None) -> str | None:
    """A count in the unit that reads best."""
    if count is None:
        return None
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _how_to_add(models: list[Mapping[str, Any]], task: str | None) -> str:
    """The command for the first model that can be had in each way."""
    ways = []
    served = next((model for model in models if model["served"]), None)
    if served is not None:
        command = f"{_add(served, task, '--hosted')} --token-env NAME_OF_VARIABLE"
        ways.append(f"One that an Inference Provider serves: {command}")
    here = next((model for model in models if not _RUN_HERE.isdisjoint(model["tasks"])), None)
    if here is not None:
        ways.append(f"Run one on this machine: {_add(here, task, '--local')}")
    ways.append(
        "One on an Inference Endpoint of yours: hubgate add NAME --url URL --token-env NAME_OF_VARIABLE"
    )
    return "\n".join(ways)


def _add(model: Mapping[str, Any], asked: str | None, where: str) -> str:
    # Of a model that completes and chats, chat comes last: it is what providers serve.
    task = Task(asked or model["tasks"][-1])
    option = "" if task is Task.TEXT_EMBEDDING else f" --task {task}"
    return f"hubgate add NAME {where} {model['name']}{option}"
