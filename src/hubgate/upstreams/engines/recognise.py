"""What a server's descriptions of itself tell: from the JSON of a GET to facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hubgate.domain.endpoint import GENERATION_TASKS, Engine, Facts, Task

_TEI_TASKS = {"embedding": Task.TEXT_EMBEDDING, "reranker": Task.RERANK}
_ROUTE_TASKS = {
    "/v1/embeddings": Task.TEXT_EMBEDDING,
    "/rerank": Task.RERANK,
    "/v1/completions": Task.COMPLETION,
    "/v1/chat/completions": Task.CHAT_COMPLETION,
}
_CAPABILITIES = {"embed": Task.TEXT_EMBEDDING, "rerank": Task.RERANK}
_CUTS_LONG_TEXTS = {Engine.INFINITY: True, Engine.VLLM: False, Engine.LLAMACPP: False}
"""What a server does with a text that is too long: cuts it, or refuses it."""
_OWNERS = {
    "vllm": Engine.VLLM,
    "sglang": Engine.SGLANG,
    "llamacpp": Engine.LLAMACPP,
    "infinity": Engine.INFINITY,
}
GENERATES = GENERATION_TASKS
READS = frozenset({Task.TEXT_EMBEDDING, Task.RERANK})


@dataclass(frozen=True, slots=True)
class Found:
    """A server that was recognised."""

    facts: Facts
    name: str
    """What it is called in messages."""
    tasks: frozenset[Task] | None = None
    """What its model does; `None` if it does not tell."""


def from_info(info: Any) -> Found | None:
    """`/info` of TEI, or of text-generation-inference."""
    if not isinstance(info, dict):
        return None
    if "model_type" in info and "tokenization_workers" in info:
        return _tei(info)
    if "router" in info and "max_total_tokens" in info:
        return _tgi(info)
    return None


def _tgi(info: Mapping[str, Any]) -> Found:
    facts = Facts(
        engine=Engine.TGI,
        engine_version=_text(info.get("version")),
        model=_text(info.get("model_id")),
        revision=_text(info.get("model_sha")),
        max_input_tokens=_whole(info.get("max_input_tokens")),
    )
    return Found(facts, "text-generation-inference", GENERATES)


def _tei(info: Mapping[str, Any]) -> Found:
    kinds = info["model_type"] if isinstance(info["model_type"], dict) else {str(info["model_type"]): {}}
    kind, details = next(iter(kinds.items()), ("", {}))
    pooling = _text(_of(details, "pooling"))
    task = Task.SPARSE_EMBEDDING if pooling == "splade" else _TEI_TASKS.get(kind)
    facts = Facts(
        engine=Engine.TEI,
        engine_version=_text(info.get("version")),
        model=_text(info.get("model_id")),
        revision=_text(info.get("model_sha")),
        max_input_tokens=_whole(info.get("max_input_length")),
        max_batch_texts=_whole(info.get("max_client_batch_size")),
        auto_truncate=info.get("auto_truncate") if isinstance(info.get("auto_truncate"), bool) else None,
        pooling=pooling,
        precision=_text(info.get("model_dtype")),
    )
    return Found(facts, f"TEI with a model of type {kind}", frozenset({task} if task else ()))


def from_models(models: Any, wanted: str | None, route: str | None, task: Task | None = None) -> Found | None:
    """`/v1/models` or `/models` of a server with OpenAI's routes.

    Args:
        models: the decoded reply.
        wanted: the model that the operator named; without it, or if it is not served, the first that says that it does
            the task, or else the first one.
        route: of the embeddings, where the list was not at its usual place.
        task: what is wanted of it.
    """
    data = models.get("data") if isinstance(models, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    if not entries:
        return None
    named = (e for e in entries if wanted and wanted in (e.get("id"), e.get("root")))
    entry = next(named, None) or next((e for e in entries if task in _capable(e)), entries[0])
    engine = _OWNERS.get(str(entry.get("owned_by")), Engine.OPENAI)
    meta = entry.get("meta")
    facts = Facts(
        engine=engine,
        model=_text(entry.get("id")),
        max_input_tokens=_whole(entry.get("max_model_len")) or _whole(_of(meta, "n_ctx_train")),
        auto_truncate=_CUTS_LONG_TEXTS.get(engine),
        route=route,
    )
    tells = engine is Engine.INFINITY and isinstance(entry.get("capabilities"), list)
    tasks = _capable(entry) if tells else None
    return Found(facts, f"a server of {engine.value} with the model {facts.model}", tasks)


def tasks_of_openapi(openapi: Any) -> frozenset[Task] | None:
    """What a server does, by the routes it describes: vLLM mounts only those that fit its model."""
    paths = openapi.get("paths") if isinstance(openapi, dict) else None
    return _mapped(_ROUTE_TASKS, paths) if isinstance(paths, dict) else None


def _capable(entry: Mapping[str, Any]) -> frozenset[Task]:
    can = entry.get("capabilities")
    return _mapped(_CAPABILITIES, can if isinstance(can, list) else ())


def _mapped(table: Mapping[str, Task], words: Iterable[object]) -> frozenset[Task]:
    return frozenset(table[word] for word in words if isinstance(word, str) and word in table)


def _of(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
