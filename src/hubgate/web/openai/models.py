"""Endpoints as OpenAI's models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.request_context import RequestContext

# What Hugging Face's clients send when they are configured with a URL and no model.
_PLACEHOLDER = re.compile(r"(dummy|tgi)\Z|https?://")
# Xinference's names of a model's type and ability, and Cohere's of the routes that serve it.
_KINDS = {
    Task.TEXT_EMBEDDING: ("embedding", "embed", "embed"),
    Task.RERANK: ("rerank", "rerank", "rerank"),
    Task.CHAT_COMPLETION: ("LLM", "chat", "chat"),
    Task.COMPLETION: ("LLM", "generate", "generate"),
}
_OUTPUT = {Task.TEXT_EMBEDDING: "embeddings", Task.SPARSE_EMBEDDING: "embeddings", Task.RERANK: "scores"}


def model_name(context: RequestContext, model: str | None) -> str:
    """The endpoint that a body names, or the key's default endpoint for a placeholder."""
    default = context.key.default_endpoint if context.key else None
    if default and (not model or _PLACEHOLDER.match(model)):
        return default
    if not model:
        raise InvalidRequest(
            "[model] is required: the name of an endpoint.", remedy="GET /v1/models lists the names."
        )
    return model


def model_object(endpoint: Endpoint) -> dict[str, Any]:
    """OpenAI's fields, those that Open WebUI and chat-ui also read, and hubgate's own."""
    limit = endpoint.max_input_tokens or endpoint.facts.max_input_tokens
    return {
        "id": endpoint.name,
        "object": "model",
        "created": 0,  # not known; OpenAI's clients require a number
        "owned_by": "hubgate",
        "name": endpoint.name,
        "context_length": limit,
        "architecture": {
            "input_modalities": ["text"],
            "output_modalities": [_OUTPUT.get(endpoint.task, "text")],
        },
        "task": endpoint.task,
        "model": endpoint.public_model,
        "dimensions": endpoint.facts.dimensions,
        "max_input_tokens": limit,
    }


def alias_of(name: str, aliases: Mapping[str, str]) -> dict[str, str]:
    """Hubgate's own field of an alias: the endpoint behind it."""
    return {"alias_of": aliases[name]} if name in aliases else {}


def model_details(endpoint: Endpoint) -> dict[str, Any]:
    """`model_object` with the fields that clients of Xinference and Cohere read of a single model."""
    kind, ability, route = _KINDS.get(endpoint.task, (endpoint.task, endpoint.task, endpoint.task))
    known = model_object(endpoint)
    limit = known["max_input_tokens"]
    return known | {
        "model_type": kind,
        "model_name": endpoint.public_model or endpoint.name,
        "model_ability": [ability],
        **({"max_tokens": limit} if limit else {}),
        "endpoints": [route],
    }
