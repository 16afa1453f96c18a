"""`/info` as text-embeddings-inference (TEI) or text-generation-inference (TGI) returns it, for an endpoint.

Among its clients are Dify's TEI plugin, and another hubgate in front of this one.
"""

from __future__ import annotations

import os
from typing import Any

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Task

# TEI's default. Clients size their batches by it, so that a request fits their timeouts; hubgate accepts `MAX_TEXTS`.
CLIENT_BATCH = 32
_CONCURRENT_REQUESTS = 512
_BATCH_TOKENS = 16384
_BEST_OF = 2
_STOP_SEQUENCES = 4
_PROMPTS = 4
_DTYPE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def info_of(endpoint: Endpoint, *, full: bool) -> dict[str, Any]:
    """TEI's or TGI's `Info`, with hubgate's own facts under `hubgate`. Unknown limits are left out.

    `full` adds what only an admin may see: the engine and the warnings.
    """
    facts = endpoint.facts
    info = {
        "model_id": endpoint.public_model or endpoint.name,
        "model_sha": facts.revision,
        "model_dtype": _DTYPE.get(facts.precision or "", facts.precision or "unknown"),
        "served_model_name": endpoint.name,
        **(_generation_info(endpoint) if endpoint.task in GENERATION_TASKS else _text_info(endpoint)),
        "max_concurrent_requests": _CONCURRENT_REQUESTS,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "hubgate": _hubgate_info(endpoint) | (_engine_info(endpoint) if full else {}),
    }
    return {name: value for name, value in info.items() if value is not _UNKNOWN}


_UNKNOWN = object()


def _limit(endpoint: Endpoint) -> Any:
    return endpoint.max_input_tokens or endpoint.facts.max_input_tokens or _UNKNOWN


def _text_info(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "model_type": _model_type(endpoint),
        "max_input_length": _limit(endpoint),
        "max_batch_tokens": _BATCH_TOKENS,
        "max_batch_requests": None,
        "max_client_batch_size": CLIENT_BATCH,
        "auto_truncate": bool(endpoint.facts.auto_truncate),
        "tokenization_workers": os.cpu_count() or 1,
    }


def _generation_info(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "model_pipeline_tag": "text-generation",
        "router": "text-generation-router",
        "max_best_of": _BEST_OF,
        "max_stop_sequences": _STOP_SEQUENCES,
        "max_input_tokens": _limit(endpoint),
        "max_total_tokens": _limit(endpoint),
        "max_client_batch_size": _PROMPTS,
        "validation_workers": os.cpu_count() or 1,
    }


def _model_type(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.task is Task.RERANK:
        return {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    pooling = "splade" if endpoint.task is Task.SPARSE_EMBEDDING else endpoint.facts.pooling
    return {"embedding": {"pooling": pooling or "unknown"}}


def _hubgate_info(endpoint: Endpoint) -> dict[str, Any]:
    facts = endpoint.facts
    tested = facts.precision_self_test
    return {
        "version": __version__,
        "source": endpoint.source,
        "dimensions": facts.dimensions,
        "precision": facts.precision,
        "icu": icu_version(),
        "chunk_fit": facts.chunk_fit,
    } | ({} if tested is None else {"precision_self_test": tested})


def _engine_info(endpoint: Endpoint) -> dict[str, Any]:
    facts = endpoint.facts
    return {"engine": facts.engine, "engine_version": facts.engine_version, "warnings": facts.warnings}
