"""`hubgate search` and `hubgate card`: models on the Hub that can be registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from hubgate.domain.endpoint import Task
from hubgate.terminal.client import NoHome, api
from hubgate.terminal.printing import plain, print_card_prefixes, print_fields, print_prompts, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMITS = {"non_commercial": "no commercial use", "own_terms": "read its terms"}
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
        ("model", "tasks", "served by", "max input", "parameters", "downloads", "likes", "license", "access"),
        [_row(model) for model in models],
    )
    typer.echo(_how_to_add(models, task), err=True)


def card(
    model: Annotated[str, typer.Argument(help="Its name on the Hub, as org/name, or a link.")],
) -> None:
    """Show the card of a model on the Hub: license, languages, dimensions, prompts, prefixes and benchmark scores."""
    found = api("GET", f"/api/hub/models/{quote(model, safe='')}", no_home=NoHome.TEMPORARY)
    length, prompts = found.get("max_input_tokens"), found.get("prompts")
    shown = {
        "model": found["name"],
        "tasks": plain(found["tasks"]),
        "license": _license(found),
        "languages": plain(found["languages"]),
        "dimensions": plain(found.get("dimensions")),
        "max input": f"{length} tokens" if length else "none",
        "parameters": _short(found.get("parameters")) or "none",
        "updated": plain(found.get("updated_at")),
    }
    print_fields({name: "unknown" if value == "none" else value for name, value in shown.items()})
    print_prompts(prompts["texts"] if prompts else {})
    print_card_prefixes(found)
    for score in found["scores"]:
        print_fields(
            {f"MTEB {score['task']}": f"{score['score']} ({_datasets(score['datasets'])} on its card)"}
        )


def _datasets(count: int) -> str:
    return f"mean of {count} datasets" if count > 1 else "one dataset"


def _license(model: Mapping[str, Any]) -> str:
    """The name of a license, and what it restricts."""
    name = model.get("license_name") or model.get("license") or "none named"
    limit = _LIMITS.get(model.get("license_limit", ""))
    return f"{name} ({limit})" if limit else str(name)


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
        _license(model),
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
    ways.append(f"See the license and the scores of a model: hubgate card {models[0]['name']}")
    ways.append("Use your own Inference Endpoint: hubgate add NAME --url URL --token-env VARIABLE")
    return "\n".join(ways)


def _add(model: Mapping[str, Any], task_name: str | None, where: str) -> str:
    # Providers serve chat, which is the last task of a model that both completes and chats.
    task = Task(task_name or model["tasks"][-1])
    option = "" if task is Task.TEXT_EMBEDDING else f" --task {task}"
    return f"hubgate add NAME {where} {model['name']}{option}"
