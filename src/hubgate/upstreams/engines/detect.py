"""Which server is behind a URL, and which model it serves: found out with GETs, except for the toolkit and llama.cpp.

Hugging Face's toolkit does not describe itself, so its reply to one POST decides. llama.cpp does not report whether it
embeds or reranks, and one POST shows it. An engine that the operator chose
takes precedence; the facts still come from the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from hubgate.core.models.names import listed_names, matching_names
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Engine, Facts, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, UpstreamUnreadable
from hubgate.upstreams.engines.descriptions import (
    DetectedServer,
    decode,
    get,
    get_json,
    tasks_by_capabilities,
)
from hubgate.upstreams.engines.embeddings import OPENAI_EMBEDDINGS
from hubgate.upstreams.engines.specs import SPECS, engine_of_entry, spec_of
from hubgate.upstreams.json_values import field_of, list_of, size_of, text_of
from hubgate.upstreams.server import Server
from hubgate.upstreams.urls import host_of


async def detect(endpoint: Endpoint, server: Server) -> Facts:
    """The facts of the server at the endpoint's URL.

    Raises:
        UpstreamError: unreachable, asleep, paused, the wrong token, or an unknown server.
        InvalidEndpoint: a server of another task; or the URL cannot be used.
    """
    found = await _search(endpoint, server)
    if endpoint.engine is not None:
        return _chosen(endpoint, endpoint.engine, found)
    if found is None:
        raise UpstreamUnreadable(
            f"{host_of(server.base)} responds, but not as any server that hubgate supports.",
            remedy="Check the URL. If it is right, choose its engine yourself: "
            + ", ".join(sorted(engine for engine, spec in SPECS.items() if spec.tasks))
            + ".",
            cause=Cause.NOT_AN_API,
        )
    _check_task(endpoint, found)
    return _with_batch_limit(found.facts)


def _chosen(endpoint: Endpoint, engine: Engine, found: DetectedServer | None) -> Facts:
    if found is None:
        warning = f"The server does not report what it is; it is treated as {engine.value}, as you chose."
        return _with_batch_limit(Facts(engine=engine, warnings=(warning,)))
    if found.facts.engine is engine:
        _check_task(endpoint, found)
        return _with_batch_limit(found.facts)
    warning = f"The server reports that it is {found.name}; it is treated as {engine.value}, as you chose."
    embed = SPECS[engine].embed
    route = found.facts.route if embed and embed.path == OPENAI_EMBEDDINGS else None
    warnings = (*found.facts.warnings, warning)
    return _with_batch_limit(replace(found.facts, engine=engine, route=route, warnings=warnings))


def _with_batch_limit(facts: Facts) -> Facts:
    return replace(facts, max_batch_texts=facts.max_batch_texts or spec_of(facts.engine).max_batch_texts)


def _check_task(endpoint: Endpoint, found: DetectedServer) -> None:
    wanted = GENERATION_TASKS if endpoint.task in GENERATION_TASKS else {endpoint.task}
    if found.tasks is not None and not wanted & found.tasks:
        does = ", ".join(sorted(found.tasks)) or "none of the tasks that hubgate supports"
        raise InvalidEndpoint(
            f"The server is {found.name}, which does {does}, not {endpoint.task.value}.",
            remedy="Register the URL of a server whose model does that task, or choose the task that it does.",
            cause=Cause.WRONG_TASK,
        )


async def _search(endpoint: Endpoint, server: Server) -> DetectedServer | None:
    """Request one description after the other, from the most specific to the most general."""
    found = await _recognise(endpoint, server)
    details = spec_of(found.facts.engine).details if found else None
    return await details(found, endpoint, server) if found and details else found


async def _recognise(endpoint: Endpoint, server: Server) -> DetectedServer | None:
    if found := from_info(await get_json(server, "/info")):
        return found
    below_root = {Task.TEXT_EMBEDDING: "/embeddings", Task.RERANK: "/rerank"}.get(endpoint.task)
    for path, route in (("/v1/models", None), ("/models", below_root)):
        found = from_models(
            await get_json(server, path),
            endpoint.model or endpoint.hub_model,
            route,
            endpoint.task,
            may_be_unlisted=endpoint.engine is not None,
        )
        if found:
            return found
    reply = await get(server, "/health")
    if reply is None:
        return None
    health = decode(reply) or reply.body.decode(errors="replace").strip()
    for engine, spec in SPECS.items():
        if spec.health == health:
            return DetectedServer(Facts(engine=engine), spec.title, spec.tasks)
    return None


def from_info(info: Any) -> DetectedServer | None:
    """A server that is recognised by its reply to `GET /info`."""
    readers = [spec.read_info for spec in SPECS.values() if spec.read_info]
    readings = (read(info) for read in readers) if isinstance(info, dict) else iter(())
    return next((found for found in readings if found), None)


def from_models(
    models: Any,
    wanted: str | None,
    route: str | None,
    task: Task | None = None,
    *,
    may_be_unlisted: bool = False,
) -> DetectedServer | None:
    """A server with OpenAI's list of models.

    Args:
        models: the decoded reply to `GET /v1/models` or `/models`.
        wanted: the model that the operator named, by its name there or on the Hub. Without one, the first model that
            reports the capability for the task is taken, or else the first model.
        route: of the task, if the list was not at its usual place.
        task: of the endpoint.
        may_be_unlisted: whether the server is called with the wanted name if several other models are listed.

    Raises:
        InvalidEndpoint: several models are listed, and not exactly one of them fits the wanted name.
    """
    entries = [entry for entry in list_of(models, "data") if isinstance(entry, dict)]
    if not entries:
        return None
    spec = SPECS[engine_of_entry(entries[0])]
    unlisted = {"id": wanted, "owned_by": spec.owned_by}
    warnings: tuple[str, ...] = ()
    if wanted is None:
        entry, warnings = _first(entries, task)
    elif may_be_unlisted or spec.loads_models:
        entry = _named(entries, wanted) or (entries[0] if len(_names(entries)) == 1 else unlisted)
    else:
        entry = _named(entries, wanted) or _only(entries, wanted)
    engine = engine_of_entry(entries[0] if entry is unlisted else entry)
    spec = SPECS[engine]
    facts = Facts(
        engine=engine,
        model=text_of(entry, "id"),
        max_input_tokens=size_of(entry, "max_model_len") or size_of(field_of(entry, "meta"), "n_ctx_train"),
        auto_truncate=spec.auto_truncate,
        route=route,
        warnings=warnings,
    )
    reported = spec.lists_capabilities and isinstance(entry.get("capabilities"), list)
    return DetectedServer(
        facts,
        f"{spec.title} with the model {facts.model}",
        tasks_by_capabilities(entry) if reported else None,
    )


_Entry: TypeAlias = dict[str, Any]


def _first(entries: Sequence[_Entry], task: Task | None) -> tuple[_Entry, tuple[str, ...]]:
    able = [entry for entry in entries if task in tasks_by_capabilities(entry)] or entries
    names = _names(able)
    if len(names) < 2:
        return able[0], ()
    warning = f"The server has several models, and [{names[0]}] is used: {listed_names(names)}. Set [model] to choose one."
    return able[0], (warning,)


def _named(entries: Sequence[_Entry], wanted: str) -> _Entry | None:
    """The entry that fits the wanted name; `None` if none does, or several fit equally well."""
    for key in (
        "id",
        "root",
    ):  # vLLM can be started with a name for its model, and reports the repository, too
        fitting = matching_names(wanted, _names(entries, key))
        if len(fitting) == 1:
            return next(entry for entry in entries if entry.get(key) == fitting[0])
    return None


def _only(entries: Sequence[_Entry], wanted: str) -> _Entry:
    """The entry of a server with one model, which it may call anything."""
    names = _names(entries)
    if len(names) < 2:
        return entries[0]
    fitting = matching_names(wanted, names)
    found = f"several models that fit [{wanted[:200]}]" if fitting else f"no model [{wanted[:200]}]"
    raise InvalidEndpoint(
        f"The server has {found}. Its models: {listed_names(fitting or names)}.",
        remedy="Set [model] to one of these names, and [hub_model] to its name on the Hub if that is another.",
        cause=Cause.MODEL_NOT_FOUND,
    )


def _names(entries: Sequence[_Entry], key: str = "id") -> list[str]:
    return list(dict.fromkeys(name for entry in entries if (name := text_of(entry, key))))
