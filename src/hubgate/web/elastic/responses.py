"""What the Elasticsearch face shows: endpoints, its one service, embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.chunking import DEFAULT_CHUNKING
from hubgate.domain.endpoint import Endpoint, Similarity, Task
from hubgate.service.inference.chunked import EmbeddedChunk
from hubgate.service.registry.validation import SERVED_TASKS
from hubgate.web.elastic.endpoint_requests import CHUNKED_TASKS, SERVICE
from hubgate.web.elastic.inference_requests import InferenceForm
from hubgate.web.shared.rerank import top_ranked


def endpoint_object(endpoint: Endpoint, *, full: bool) -> dict[str, Any]:
    """An endpoint as Elasticsearch writes it, without its token.

    Args:
        endpoint: any.
        full: whether it is for an admin, who may see the URL of the model's server and a folder of this machine.
    """
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
    about_ranks = {"top_n": endpoint.top_n, "return_documents": endpoint.return_documents}
    shown = {
        "inference_id": endpoint.name,
        "task_type": endpoint.task,
        "service": SERVICE,
        "service_settings": _known(settings),
        "task_settings": _known(about_ranks) or None,
        "chunking_settings": (endpoint.chunking or DEFAULT_CHUNKING).as_dict()
        if endpoint.task in CHUNKED_TASKS
        else None,
    }
    return _known(shown)


def service_objects(task: str | None) -> list[dict[str, Any]]:
    """The services that serve a task type, or any."""
    if task is not None and task not in SERVED_TASKS:
        return []
    served = [one for one in Task if one in SERVED_TASKS]
    return [
        {
            "service": SERVICE,
            "name": "Hugging Face",
            "task_types": served,
            "configurations": {name: _configuration(row, served) for name, row in _SETTINGS.items()},
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


def ranks_body(endpoint: Endpoint, form: InferenceForm, call: Rerank, scores: Scores) -> bytes:
    """`{"rerank": [{"index", "relevance_score", "text"?}, …]}`: what a request does not say, its endpoint does."""
    top_n = endpoint.top_n if form.top_n is None else form.top_n
    with_texts = endpoint.return_documents if form.return_documents is None else form.return_documents
    ranks = [
        {"index": index, "relevance_score": score, **({"text": call.texts[index]} if with_texts else {})}
        for index, score in top_ranked(scores, top_n)
    ]
    return msgspec.json.encode({"rerank": ranks})


def sparse_body(items: Sequence[bytes]) -> bytes:
    """`{"sparse_embedding": [{"is_truncated", "embedding": {word: weight}}, …]}` around weights that are JSON already.

    No engine says whether a text was cut.
    """
    told = (b'{"is_truncated":false,"embedding":%b}' % item for item in items)
    return b'{"sparse_embedding":[%b]}' % b",".join(told)


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


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


class _Setting(NamedTuple):
    label: str
    description: str
    kind: str = "str"
    sensitive: bool = False
    updatable: bool = False
    tasks: tuple[Task, ...] = ()
    """Empty for all."""


def _configuration(row: _Setting, served: list[Task]) -> dict[str, Any]:
    return {
        "description": row.description,
        "label": row.label,
        "required": False,  # each has a case in which it may be left out
        "sensitive": row.sensitive,
        "updatable": row.updatable,
        "type": row.kind,
        "supported_task_types": list(row.tasks or served),
    }


_EMBEDDING = (Task.TEXT_EMBEDDING,)
_SETTINGS = {
    "api_key": _Setting(
        "API Key",
        "The token that the model's server wants. Required, except for a model on this machine.",
        sensitive=True,
        updatable=True,
    ),
    "url": _Setting("URL", "The URL of the model's server. Required, unless model_id is given."),
    "model_id": _Setting(
        "Model ID",
        "A model by its name on the Hub. Without url it runs on this machine if it embeds, and is hosted by an "
        "Inference Provider if it does anything else.",
    ),
    "similarity": _Setting("Similarity", "cosine, dot_product or l2_norm.", tasks=_EMBEDDING),
    "dimensions": _Setting("Dimensions", "What the vectors must have.", kind="int", tasks=_EMBEDDING),
    "max_input_tokens": _Setting(
        "Maximum Input Tokens",
        "What the model reads of a text.",
        kind="int",
        updatable=True,
        tasks=_EMBEDDING,
    ),
    "rate_limit.requests_per_minute": _Setting(
        "Rate Limit", "Minimize the number of rate limit errors.", kind="int", updatable=True
    ),
}
