"""Which server is behind a URL, and which model in it: asked with GETs alone, except for the toolkit.

Hugging Face's toolkit describes itself nowhere, so it is known by what it answers to one POST. An engine that the
operator names wins; the server is asked all the same, for the facts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, UpstreamRefused, UpstreamUnreadable
from hubgate.upstreams.engines.embedders import DIALECTS, read_vectors
from hubgate.upstreams.engines.generators import WRITERS
from hubgate.upstreams.engines.recognise import (
    GENERATES,
    READS,
    Found,
    from_info,
    from_models,
    tasks_of_openapi,
)
from hubgate.upstreams.engines.toolkit_tasks import (
    check_deployed_task,
    deployment_question,
    task_in_error,
    task_in_reply,
)
from hubgate.upstreams.http.messages import HttpReply, HttpRequest
from hubgate.upstreams.server import Server
from hubgate.upstreams.urls import host_of

PROBE_SECONDS = 15.0
_SAYS_SOMETHING_ELSE = frozenset({401, 402, 403, 408, 410, 429, 502, 503, 504})
"""Not about this route: about the token, the endpoint's state or its load. The search ends with that answer."""


async def detect(endpoint: Endpoint, server: Server) -> Facts:
    """What runs at the endpoint's URL.

    Raises:
        UpstreamError: unreachable, asleep, paused, the wrong token, or no server that is known.
        InvalidEndpoint: a server of another task; or the URL cannot be used.
    """
    found = await _search(endpoint, server)
    if endpoint.engine is not None:
        return _chosen(endpoint, endpoint.engine, found)
    if found is None:
        raise UpstreamUnreadable(
            f"{host_of(server.base)} answers, but not as any server that hubgate knows.",
            remedy="Check the URL. If it is right, choose its engine yourself: "
            + ", ".join(sorted({*DIALECTS, *WRITERS}))
            + ".",
            cause=Cause.NOT_AN_API,
        )
    _check_task(endpoint, found)
    return _completed(found.facts)


def _chosen(endpoint: Endpoint, engine: Engine, found: Found | None) -> Facts:
    if found is None:
        said = f"The server does not say what it is; it is treated as {engine.value}, as you chose."
        return _completed(Facts(engine=engine, warnings=(said,)))
    if found.facts.engine is engine:
        _check_task(endpoint, found)
        return _completed(found.facts)
    said = f"The server says that it is {found.name}; it is treated as {engine.value}, as you chose."
    same_routes = engine in DIALECTS and DIALECTS[engine].route == DIALECTS[Engine.OPENAI].route
    route = found.facts.route if same_routes else None
    return _completed(
        replace(found.facts, engine=engine, route=route, warnings=(*found.facts.warnings, said))
    )


def _completed(facts: Facts) -> Facts:
    dialect = DIALECTS.get(facts.engine) if facts.engine else None
    if dialect is None or facts.max_batch_texts is not None:
        return facts
    return replace(facts, max_batch_texts=dialect.max_batch_texts)


def _check_task(endpoint: Endpoint, found: Found) -> None:
    wanted = GENERATES if endpoint.task in GENERATES else {endpoint.task}
    if found.tasks is not None and not wanted & found.tasks:
        does = ", ".join(sorted(found.tasks)) or "none of the tasks that hubgate knows"
        raise InvalidEndpoint(
            f"The server is {found.name}, which does {does}, not {endpoint.task.value}.",
            remedy="Register the URL of a server whose model does that task, or choose the task that it does.",
            cause=Cause.WRONG_TASK,
        )


async def _search(endpoint: Endpoint, server: Server) -> Found | None:
    """The ladder: each rung a description that only some servers have."""
    found = from_info(await _json(server, "/info"))
    if found:
        return found
    below_root = {Task.TEXT_EMBEDDING: "/embeddings", Task.RERANK: "/rerank"}.get(endpoint.task)
    for path, route in (("/v1/models", None), ("/models", below_root)):
        found = from_models(await _json(server, path), endpoint.model, route, endpoint.task)
        if found:
            return await _more(server, found)
    health = await _get(server, "/health")
    if health is None:
        return None
    if health.body.strip() == b"Ok":
        return await _toolkit(endpoint, server)
    if _decoded(health) == {"status": "ok"}:
        return Found(Facts(engine=Engine.TRANSFORMERS), "transformers serve, by its health route", GENERATES)
    return None


async def _more(server: Server, found: Found) -> Found:
    """What an engine tells on routes of its own."""
    facts = found.facts
    if facts.engine is Engine.VLLM:
        version = await _json(server, "/version")
        tasks = tasks_of_openapi(await _json(server, "/openapi.json"))
        return replace(found, facts=replace(facts, engine_version=_entry(version, "version")), tasks=tasks)
    if facts.engine is Engine.SGLANG:
        info, model = await _json(server, "/server_info"), await _json(server, "/model_info")
        generates = isinstance(model, dict) and model.get("is_generation") is True
        facts = replace(facts, engine_version=_entry(info, "version"))
        return replace(found, facts=facts, tasks=GENERATES if generates else READS)
    if facts.engine is Engine.LLAMACPP:
        return replace(found, facts=_llamacpp(facts, await _json(server, "/props")))
    return found


def _llamacpp(facts: Facts, props: Any) -> Facts:
    settings = props.get("default_generation_settings") if isinstance(props, dict) else None
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    limits = [limit for limit in (facts.max_input_tokens, context) if isinstance(limit, int) and limit > 0]
    return replace(
        facts, engine_version=_entry(props, "build_info"), max_input_tokens=min(limits, default=None)
    )


async def _toolkit(endpoint: Endpoint, server: Server) -> Found:
    """One question decides what a toolkit does, by the shape of its reply or the words of its error."""
    dialect = DIALECTS[Engine.TOOLKIT]
    name = "Hugging Face's toolkit, or a custom handler in it"
    facts = Facts(engine=Engine.TOOLKIT)
    question = deployment_question(server.base + dialect.route, endpoint.task)
    if question is None:
        return Found(facts, name)
    try:
        reply = await server.ask(question)
    except UpstreamRefused as error:
        if error.status in _SAYS_SOMETHING_ELSE or error.cause is Cause.PAUSED:
            raise
        check_deployed_task(task_in_error(error.server_message), endpoint.task)
        return Found(facts, name)
    check_deployed_task(task_in_reply(reply), endpoint.task)
    if endpoint.task is not Task.TEXT_EMBEDDING:
        return Found(facts, name)
    try:
        vectors = read_vectors(dialect, Embed(texts=["test"]), reply)
    except UpstreamUnreadable as error:
        if error.cause is not Cause.UNREADABLE_REPLY:
            raise
        return Found(facts, f"{name}, whose reply to a text holds no embeddings", frozenset())
    return Found(replace(facts, warnings=vectors.warnings), name, frozenset({Task.TEXT_EMBEDDING}))


async def _json(server: Server, path: str) -> Any:
    """The decoded reply to a GET, `None` if there is no such description."""
    reply = await _get(server, path)
    return None if reply is None else _decoded(reply)


async def _get(server: Server, path: str) -> HttpReply | None:
    try:
        return await server.ask(HttpRequest(method="GET", url=server.base + path, timeout=PROBE_SECONDS))
    except UpstreamRefused as error:
        if error.status in _SAYS_SOMETHING_ELSE or error.cause is Cause.PAUSED:
            raise
        return None


def _decoded(reply: HttpReply) -> Any:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None


def _entry(reply: object, key: str) -> str | None:
    value = reply.get(key) if isinstance(reply, dict) else None
    return value if isinstance(value, str) and value else None
