"""Hugging Face's default toolkit: it does not report its task, but its reply to one text reveals it."""

from __future__ import annotations

import re
from dataclasses import replace

import orjson

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, UpstreamRefused, UpstreamUnreadable
from hubgate.upstreams.engines.descriptions import DetectedServer, is_about_the_route
from hubgate.upstreams.engines.embeddings import EmbedRoute, toolkit_body
from hubgate.upstreams.engines.routes import json_request
from hubgate.upstreams.http.messages import HttpReply
from hubgate.upstreams.server import Server

TOOLKIT_EMBED = EmbedRoute(path="", body=toolkit_body, truncates_silently=True, token_vectors=True)
_PROBES: dict[Task, dict[str, object]] = {
    Task.TEXT_EMBEDDING: {"inputs": ["test"]},
    Task.RERANK: {"inputs": "test"},
    Task.COMPLETION: {"inputs": "test", "parameters": {"max_new_tokens": 1}},
}
"""Requests whose replies reveal the task."""
_DEPLOY_AS = {
    Task.TEXT_EMBEDDING: "Sentence Embeddings",
    Task.RERANK: "Text Ranking",
    Task.COMPLETION: "Text Generation",
}
"""What to choose on the endpoint's page."""
_TASKS = {
    "sentence-embeddings": Task.TEXT_EMBEDDING,
    "feature-extraction": Task.TEXT_EMBEDDING,
    "text-ranking": Task.RERANK,
    "text-generation": Task.COMPLETION,
    "summarization": Task.COMPLETION,
    "translation": Task.COMPLETION,
}
_TASK_BY_KEY = {
    "embeddings": "sentence-embeddings",
    "similarities": "sentence-similarity",
    "scores": "text-ranking",
    "generated_text": "text-generation",
    "summary_text": "summarization",
    "translation_text": "translation",
    "entity": "token-classification",
    "label": "text-classification",
}
"""By a key of the reply."""
_TASK_BY_ERROR = {
    r"SentenceSimilarityPipeline": "sentence-similarity",
    r"SentenceEmbeddingPipeline": "sentence-embeddings",
    r"SentenceRankingPipeline": "text-ranking",
    # A classifier passes unknown parameters to its tokenizer.
    r"_encode_plus\(\) got an unexpected keyword argument": "text-classification",
}
"""By the words of a Python error."""


async def toolkit_details(found: DetectedServer, endpoint: Endpoint, server: Server) -> DetectedServer:
    """One request shows whether the toolkit does the endpoint's task.

    Raises:
        InvalidEndpoint: it was deployed with another task.
    """
    probe = _PROBES.get(endpoint.task)
    if probe is None:
        return replace(found, tasks=None)
    try:
        reply = await server.send(json_request(server.base + TOOLKIT_EMBED.path, probe))
    except UpstreamRefused as error:
        if not is_about_the_route(error):
            raise
        check_deployed_task(task_in_error(error.server_message), endpoint.task)
        return replace(found, tasks=None)
    check_deployed_task(task_in_reply(reply), endpoint.task)
    if endpoint.task is not Task.TEXT_EMBEDDING:
        return replace(found, tasks=None)
    try:
        vectors = TOOLKIT_EMBED.read(Embed(texts=["test"]), reply)
    except UpstreamUnreadable as error:
        if error.cause is not Cause.UNREADABLE_REPLY:
            raise
        name = f"{found.name}, whose reply to a text contains no embeddings"
        return replace(found, name=name, tasks=frozenset())
    facts = replace(found.facts, warnings=vectors.warnings)
    return replace(found, facts=facts, tasks=frozenset({Task.TEXT_EMBEDDING}))


def task_in_reply(reply: HttpReply) -> str | None:
    """The task of the deployment, in Hugging Face's words; `None` if the reply does not show it."""
    try:
        value = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    nested = isinstance(value, list)
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        return next((task for key, task in _TASK_BY_KEY.items() if key in value), None)
    return "feature-extraction" if nested and type(value) in {int, float} else None


def task_in_error(message: str) -> str | None:
    """The task of the deployment by an error message; `None` if the message does not show it."""
    return next((task for words, task in _TASK_BY_ERROR.items() if re.search(words, message)), None)


def check_deployed_task(deployed: str | None, wanted: Task) -> None:
    """Check that the deployment's task fits the endpoint's.

    Raises:
        InvalidEndpoint: it does not; the error names the task to deploy with.
    """
    if deployed is None or _TASKS.get(deployed) is wanted:
        return
    other = f", or register it for {_TASKS[deployed]}" if deployed in _TASKS else ""
    raise InvalidEndpoint(
        f"The endpoint was deployed with the task {deployed}, which does not do {wanted}.",
        remedy=f"Deploy it with the task {_DEPLOY_AS[wanted]}{other}.",
        cause=Cause.WRONG_TASK,
    )
