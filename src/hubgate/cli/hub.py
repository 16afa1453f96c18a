"""`hubgate search`: models on the Hub that can be registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from hubgate.cli.client import NoHome, api
from hubgate.cli.printing import print_table
from hubgate.domain.endpoint import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCAL_TASKS = frozenset({Task.TEXT_EMBEDDING, Task.RERANK})


def search(
    text: Annotated[str, typer.Argument(help="Part of the model's name.", show_default=False)] = "",
    task: Annotated[
        str | None,
        typer.Option(help="A task as hubgate names it (rerank) or as Hugging Face does (text-ranking)."),
    ] = None,
    served: Annotated[
        bool | None,
        typer.Option(
            "--served/--not-served",
            help="Only models that an Inference Provider serves now, or only the others.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Max number of models.", min=1, max=100)] = 20,
) -> None:
    """Search the Hub for models that hubgate can serve, trending first."""
    parameters = {"search": text, "task": task or "", "limit": limit}
    if served is not None:
        parameters["served"] = "true" if served else "false"
    path = f"/api/hub/models?{urlencode(parameters)}"
    models = api("GET", path, no_home=NoHome.TEMPORARY)["models"]
    if not models:
        print("No models found. Try a shorter search text, another task, or omit --served.")
        return
    print_table(
        ("model", "tasks", "served by", "max input", "parameters", "downloads", "likes", "access"),
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
    if count is None:
        return None
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _how_to_add(models: list[Mapping[str, Any]], task: str | None) -> str:
    """For each way to run a model, the command that registers the first one found."""
    ways = []
    served = next((model for model in models if model["served"]), None)
    if served is not None:
        command = f"{_add(served, task, '--hosted')} --token-env VARIABLE"
        ways.append(f"Use an Inference Provider: {command}")
    here = next((model for model in models if not _LOCAL_TASKS.isdisjoint(model["tasks"])), None)
    if here is not None:
        ways.append(f"Run it on this machine: {_add(here, task, '--local')}")
    ways.append("Use your own Inference Endpoint: hubgate add NAME --url URL --token-env VARIABLE")
    return "\n".join(ways)


def _add(model: Mapping[str, Any], task_name: str | None, where: str) -> str:
    # Providers serve chat, which is the last task of a model that both completes and chats.
    task = Task(task_name or model["tasks"][-1])
    option = "" if task is Task.TEXT_EMBEDDING else f" --task {task}"
    return f"hubgate add NAME {where} {model['name']}{option}"
