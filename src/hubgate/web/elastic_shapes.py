"""What the Elasticsearch face shows: endpoints, its one service, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from hubgate.domain.endpoint import Similarity, Task
from hubgate.service.proving import SERVED_TASKS
from hubgate.web.elastic_settings import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hubgate.domain.endpoint import Endpoint
    from hubgate.service.chunked import EmbeddedChunk


def endpoint_object(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as Elasticsearch writes it; its token is not part of it."""
    settings = {
        "url": endpoint.url,
        "model_id": endpoint.model,
        "similarity": endpoint.similarity or Similarity.COSINE,
        "dimensions": endpoint.facts.dimensions,
        "max_input_tokens": endpoint.max_input_tokens,
        "rate_limit": {"requests_per_minute": endpoint.requests_per_minute},
    }
    return {
        "inference_id": endpoint.name,
        "task_type": endpoint.task,
        "service": SERVICE,
        "service_settings": {key: value for key, value in settings.items() if value is not None},
        "chunking_settings": endpoint.chunking.as_dict(),
    }


def service_objects(task: str | None) -> list[dict[str, Any]]:
    """The services that serve a task type, or any."""
    if task is not None and task not in SERVED_TASKS:
        return []
    return [
        {
            "service": SERVICE,
            "name": "Hugging Face",
            "task_types": list(SERVED_TASKS),
            "configurations": {
                "api_key": _setting(
                    "API Key",
                    "The token that the endpoint's server wants. Required with url.",
                    sensitive=True,
                    updatable=True,
                ),
                "url": _setting("URL", "The URL of the model's server. Required, unless model_id is given."),
                "model_id": _setting(
                    "Model ID", "A model that runs on this machine: a folder, or a repository of the Hub."
                ),
                "similarity": _setting("Similarity", "cosine, dot_product or l2_norm.", required=False),
                "dimensions": _setting("Dimensions", "What the vectors must have.", kind="int"),
                "max_input_tokens": _setting(
                    "Maximum Input Tokens", "What the model reads of a text.", kind="int", updatable=True
                ),
                "rate_limit.requests_per_minute": _setting(
                    "Rate Limit", "Minimize the number of rate limit errors.", kind="int", updatable=True
                ),
            },
        }
    ]


def embeddings_body(items: Sequence[bytes]) -> bytes:
    """`{"text_embedding": [{"embedding": […]}, …]}` around vectors that are JSON already."""
    return b'{"text_embedding":[{"embedding":' + b'},{"embedding":'.join(items) + b"}]}"


def chunks_body(items: Sequence[Sequence[EmbeddedChunk]]) -> bytes:
    """`{"text_embedding": [{"chunks": [{"start_offset", "end_offset", "text", "embedding"}, …]}, …]}`.

    The offsets are Elasticsearch's, in UTF-16 units.
    """
    return b"".join(_chunks_parts(items))


def _chunks_parts(items: Sequence[Sequence[EmbeddedChunk]]) -> Iterator[bytes]:
    before = b'{"text_embedding":[{"chunks":['
    for chunks in items:
        yield before
        yield b",".join(map(_chunk, chunks))
        before = b']},{"chunks":['
    yield b"]}]}"


def _chunk(chunk: EmbeddedChunk) -> bytes:
    return b'{"start_offset":%d,"end_offset":%d,"text":%b,"embedding":%b}' % (
        chunk.place.start_utf16,
        chunk.place.end_utf16,
        msgspec.json.encode(chunk.text),
        chunk.vector,
    )


def _setting(
    label: str,
    description: str,
    *,
    kind: str = "str",
    required: bool = False,
    sensitive: bool = False,
    updatable: bool = False,
) -> dict[str, Any]:
    return {
        "description": description,
        "label": label,
        "required": required,
        "sensitive": sensitive,
        "updatable": updatable,
        "type": kind,
        "supported_task_types": [Task.TEXT_EMBEDDING],
    }
