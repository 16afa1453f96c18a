"""Reads what servers report about themselves (`/info`, `/version`, OpenAPI, lists of models) into facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from msgspec import structs

from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Engine, Facts, Task
from hubgate.domain.errors import Cause, UpstreamRefused
from hubgate.upstreams.engines.json_fields import post
from hubgate.upstreams.http.messages import HttpReply, HttpRequest
from hubgate.upstreams.json_values import field_of, list_of, size_of, text_of
from hubgate.upstreams.server import Server

PROBE_TIMEOUT_SECONDS = 15.0
_NOT_ABOUT_THE_ROUTE = frozenset({401, 402, 403, 408, 410, 429, 502, 503, 504})
"""About the token, the endpoint's state or its load: requests to other routes would fail, too."""
_NOT_CAUSED_BY_THE_ROUTE = frozenset({Cause.PAUSED, Cause.WRONG_TOKEN, Cause.TOKEN_MISSING})
"""Whatever the status: LiteLLM refuses a wrong token with 400."""
_TEI_TASKS = {"embedding": Task.TEXT_EMBEDDING, "reranker": Task.RERANK}
_ROUTE_TASKS = {
    "/v1/embeddings": Task.TEXT_EMBEDDING,
    "/rerank": Task.RERANK,
    "/v1/completions": Task.COMPLETION,
    "/v1/chat/completions": Task.CHAT_COMPLETION,
}
_CAPABILITIES = {"embed": Task.TEXT_EMBEDDING, "rerank": Task.RERANK}
_POOLING_TASKS = frozenset({Task.TEXT_EMBEDDING, Task.RERANK})


@dataclass(frozen=True, slots=True)
class DetectedServer:
    """A server whose engine was recognised."""

    facts: Facts
    name: str
    """Describes the server in error messages."""
    tasks: frozenset[Task] | None = None
    """The tasks that its model supports; `None` if it does not report them."""


def tei_info(info: Mapping[str, Any]) -> DetectedServer | None:
    """Read TEI's `/info`; `None` if the reply is from another server."""
    if "model_type" not in info or "tokenization_workers" not in info:
        return None
    kinds = info["model_type"] if isinstance(info["model_type"], dict) else {str(info["model_type"]): {}}
    kind, details = next(iter(kinds.items()), ("", {}))
    pooling = text_of(details, "pooling")
    task = Task.SPARSE_EMBEDDING if pooling == "splade" else _TEI_TASKS.get(kind)
    facts = Facts(
        engine=Engine.TEI,
        engine_version=text_of(info, "version"),
        model=text_of(info, "model_id"),
        revision=text_of(info, "model_sha"),
        max_input_tokens=size_of(info, "max_input_length"),
        max_batch_texts=size_of(info, "max_client_batch_size"),
        max_concurrent_requests=size_of(info, "max_concurrent_requests"),
        auto_truncate=info.get("auto_truncate") if isinstance(info.get("auto_truncate"), bool) else None,
        pooling=pooling,
        precision=text_of(info, "model_dtype"),
    )
    return DetectedServer(facts, f"TEI with a model of type {kind}", frozenset({task} if task else ()))


def tgi_info(info: Mapping[str, Any]) -> DetectedServer | None:
    """Read text-generation-inference's `/info`; `None` if the reply is from another server."""
    if "router" not in info or "max_total_tokens" not in info:
        return None
    facts = Facts(
        engine=Engine.TGI,
        engine_version=text_of(info, "version"),
        model=text_of(info, "model_id"),
        revision=text_of(info, "model_sha"),
        max_input_tokens=size_of(info, "max_input_tokens"),
        max_concurrent_requests=size_of(info, "max_concurrent_requests"),
    )
    return DetectedServer(facts, "text-generation-inference", GENERATION_TASKS)


async def vllm_details(found: DetectedServer, endpoint: Endpoint, server: Server) -> DetectedServer:
    """Add the version, and the tasks by the routes: vLLM has only those that its model supports."""
    del endpoint
    version = text_of(await get_json(server, "/version"), "version")
    tasks = tasks_by_routes(await get_json(server, "/openapi.json"))
    return replace(found, facts=replace(found.facts, engine_version=version), tasks=tasks)


async def sglang_details(found: DetectedServer, endpoint: Endpoint, server: Server) -> DetectedServer:
    """Add the version, and the tasks: SGLang reports only whether its model generates text."""
    del endpoint
    info, model = await get_json(server, "/server_info"), await get_json(server, "/model_info")
    generates = field_of(model, "is_generation") is True
    facts = replace(found.facts, engine_version=text_of(info, "version"))
    return replace(found, facts=facts, tasks=GENERATION_TASKS if generates else _POOLING_TASKS)


async def llamacpp_details(found: DetectedServer, endpoint: Endpoint, server: Server) -> DetectedServer:
    """Add the version, the token limit, and the task if it reranks.

    llama.cpp may run with a smaller context than its model's. Started with --reranking, it still replies to requests
    for embeddings, with vectors that mean nothing.
    """
    props = await get_json(server, "/props")
    context = size_of(field_of(props, "default_generation_settings"), "n_ctx")
    limits = [limit for limit in (found.facts.max_input_tokens, context) if limit]
    version = text_of(props, "build_info")
    facts = replace(found.facts, engine_version=version, max_input_tokens=min(limits, default=None))
    reranks = endpoint.task is Task.TEXT_EMBEDDING and await _reranks(server, facts.model)
    return replace(found, facts=facts, tasks=frozenset({Task.RERANK}) if reranks else found.tasks)


async def _reranks(server: Server, model: str | None) -> bool:
    body = orjson.dumps({"model": model, "query": "a", "documents": ["b"]})
    try:
        request = post(server.base + "/v1/rerank", body)
        await server.send(structs.replace(request, timeout=PROBE_TIMEOUT_SECONDS))
    except UpstreamRefused as error:
        if not is_about_the_route(error):
            raise
        return False
    return True


def tasks_by_routes(openapi: object) -> frozenset[Task] | None:
    """The tasks of a server by the routes in its OpenAPI document; `None` without one."""
    paths = field_of(openapi, "paths")
    return _tasks(_ROUTE_TASKS, paths) if isinstance(paths, dict) else None


def tasks_by_capabilities(entry: Mapping[str, Any]) -> frozenset[Task]:
    """The tasks of a model by the `capabilities` of its entry in a list of models."""
    return _tasks(_CAPABILITIES, list_of(entry, "capabilities"))


def _tasks(table: Mapping[str, Task], names: Iterable[object]) -> frozenset[Task]:
    return frozenset(table[name] for name in names if isinstance(name, str) and name in table)


async def get_json(server: Server, path: str) -> Any:
    """The decoded reply to a GET; `None` if the server has no such route, or replies without JSON."""
    reply = await get(server, path)
    return None if reply is None else decode(reply)


async def get(server: Server, path: str) -> HttpReply | None:
    """The reply to a GET; `None` if the server has no such route."""
    try:
        return await server.send(
            HttpRequest(method="GET", url=server.base + path, timeout=PROBE_TIMEOUT_SECONDS)
        )
    except UpstreamRefused as error:
        if not is_about_the_route(error):
            raise
        return None


def is_about_the_route(error: UpstreamRefused) -> bool:
    """Whether the error is about this route only, so that other routes may work."""
    return error.status not in _NOT_ABOUT_THE_ROUTE and error.cause not in _NOT_CAUSED_BY_THE_ROUTE


def decode(reply: HttpReply) -> Any:
    """The decoded body; `None` if it is not JSON."""
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
