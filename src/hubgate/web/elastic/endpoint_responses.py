"""Endpoints and services as Elasticsearch shows them."""

from __future__ import annotations

from typing import Any, NamedTuple

from hubgate.domain.chunking import DEFAULT_CHUNKING
from hubgate.domain.endpoint import Endpoint, Similarity, Task
from hubgate.web.elastic.endpoint_requests import CHUNKED_TASKS
from hubgate.web.elastic.options import SERVED_TASKS, SERVICE


def endpoint_object(endpoint: Endpoint, *, full: bool) -> dict[str, Any]:
    """An endpoint without its token. `full` adds what only an admin may see: the server's URL, a local model's folder."""
    settings: dict[str, Any] = {
        "model_id": endpoint.model if full else endpoint.model and endpoint.public_model
    }
    if full:
        settings["url"] = endpoint.url
    if endpoint.task is Task.TEXT_EMBEDDING:
        settings |= {
            "similarity": endpoint.similarity or Similarity.COSINE,
            "dimensions": endpoint.facts.dimensions,
            "max_input_tokens": endpoint.max_input_tokens,
        }
    settings["rate_limit"] = {"requests_per_minute": endpoint.requests_per_minute}
    task_settings = {"top_n": endpoint.top_n, "return_documents": endpoint.return_documents}
    chunking = (endpoint.chunking or DEFAULT_CHUNKING).as_dict() if endpoint.task in CHUNKED_TASKS else None
    fields = {
        "inference_id": endpoint.name,
        "task_type": endpoint.task,
        "service": SERVICE,
        "service_settings": _known(settings),
        "task_settings": _known(task_settings) or None,
        "chunking_settings": chunking,
    }
    return _known(fields)


def service_objects(task: str | None) -> list[dict[str, Any]]:
    """The services that serve a task type, or all."""
    if task is not None and task not in SERVED_TASKS:
        return []
    return [
        {
            "service": SERVICE,
            "name": "Hugging Face",
            "task_types": SERVED_TASKS,
            "configurations": {name: _configuration(row) for name, row in _SETTINGS.items()},
        }
    ]


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


class _Setting(NamedTuple):
    label: str
    description: str
    kind: str = "str"
    sensitive: bool = False
    updatable: bool = False
    tasks: tuple[Task, ...] = ()
    """Empty: all."""


def _configuration(row: _Setting) -> dict[str, Any]:
    return {
        "description": row.description,
        "label": row.label,
        "required": False,  # each may be left out in some case
        "sensitive": row.sensitive,
        "updatable": row.updatable,
        "type": row.kind,
        "supported_task_types": row.tasks or SERVED_TASKS,
    }


_EMBEDDING = (Task.TEXT_EMBEDDING,)
_SETTINGS = {
    "api_key": _Setting(
        "API Key",
        "The token for the model's server. Required, except for a model on this machine.",
        sensitive=True,
        updatable=True,
    ),
    "url": _Setting("URL", "The URL of the model's server. Required, unless model_id is given."),
    "model_id": _Setting(
        "Model ID",
        "The model's name on the Hub. Without url, an embedding model runs on this machine, and an Inference Provider "
        "hosts any other.",
    ),
    "similarity": _Setting("Similarity", "cosine, dot_product or l2_norm.", tasks=_EMBEDDING),
    "dimensions": _Setting(
        "Dimensions", "The number of dimensions that vectors must have.", kind="int", tasks=_EMBEDDING
    ),
    "max_input_tokens": _Setting(
        "Maximum Input Tokens",
        "How many tokens of a text the model reads.",
        kind="int",
        updatable=True,
        tasks=_EMBEDDING,
    ),
    "rate_limit.requests_per_minute": _Setting(
        "Rate Limit", "Minimize the number of rate limit errors.", kind="int", updatable=True
    ),
}
