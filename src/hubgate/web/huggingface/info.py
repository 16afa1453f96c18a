"""What the servers tell of themselves at `/info`, told of an endpoint.

Text-embeddings-inference's (TEI's) of models that embed or rank, text-generation-inference's (TGI's) of those that write.
Dify's TEI plugin, and a gate before this one, read it.
"""

from __future__ import annotations

import os
from typing import Any

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Task

# What clients cut their batches by, and so how long one request takes: TEI's default, which fits their timeouts. The
# gate itself takes more (`embedding.MAX_TEXTS`).
CLIENT_BATCH = 32
_CONCURRENT_REQUESTS = 512
_BATCH_TOKENS = 16384
_BEST_OF = 2
_STOP_SEQUENCES = 4
_PROMPTS = 4
_DTYPE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def info_of(endpoint: Endpoint, *, full: bool) -> dict[str, Any]:
    """TEI's `Info` or TGI's, with hubgate's own facts under `hubgate`; a limit that is not known is left out.

    Args:
        endpoint: any.
        full: whether it is for an admin, who may see what runs the model and what is wrong with it.
    """
    facts = endpoint.facts
    about = {
        "model_id": endpoint.public_model or endpoint.name,
        "model_sha": facts.revision,
        "model_dtype": _DTYPE.get(facts.precision or "", facts.precision or "unknown"),
        "served_model_name": endpoint.name,
        **(_of_writer(endpoint) if endpoint.task in GENERATION_TASKS else _of_reader(endpoint)),
        "max_concurrent_requests": _CONCURRENT_REQUESTS,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "hubgate": _of_gate(endpoint) | (_of_server(endpoint) if full else {}),
    }
    return {name: value for name, value in about.items() if value is not _UNKNOWN}


_UNKNOWN = object()


def _limit(endpoint: Endpoint) -> Any:
    return endpoint.max_input_tokens or endpoint.facts.max_input_tokens or _UNKNOWN


def _of_reader(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "model_type": _kind(endpoint),
        "max_input_length": _limit(endpoint),
        "max_batch_tokens": _BATCH_TOKENS,
        "max_batch_requests": None,
        "max_client_batch_size": CLIENT_BATCH,
        "auto_truncate": bool(endpoint.facts.auto_truncate),
        "tokenization_workers": os.cpu_count() or 1,
    }


def _of_writer(endpoint: Endpoint) -> dict[str, Any]:
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


def _kind(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.task is Task.RERANK:
        return {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    pooling = "splade" if endpoint.task is Task.SPARSE_EMBEDDING else endpoint.facts.pooling
    return {"embedding": {"pooling": pooling or "unknown"}}


def _of_gate(endpoint: Endpoint) -> dict[str, Any]:
    facts = endpoint.facts
    return {
        "version": __version__,
        "source": endpoint.source,
        "dimensions": facts.dimensions,
        "precision": facts.precision,
        "icu": icu_version(),
        "chunk_fit": facts.chunk_fit,
    }


def _of_server(endpoint: Endpoint) -> dict[str, Any]:
    facts = endpoint.facts
    return {"engine": facts.engine, "engine_version": facts.engine_version, "warnings": facts.warnings}
