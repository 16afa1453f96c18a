"""What TEI tells of itself at `/info`, told of an endpoint. Dify's TEI plugin, and a gate before this one, read it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hubgate import __version__
from hubgate.core.chunking import icu_version

if TYPE_CHECKING:
    from hubgate.domain.endpoint import Endpoint

# What clients cut their batches by, and so how long one request takes: TEI's default, which fits their timeouts. The
# gate itself takes more (`embedding.MOST_TEXTS`).
CLIENT_BATCH = 32
_CONCURRENT_REQUESTS = 512
_BATCH_TOKENS = 16384
_DTYPE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def info_of(endpoint: Endpoint) -> dict[str, Any]:
    """TEI's `Info`, with hubgate's own facts under `hubgate`; a limit that is not known is left out."""
    facts = endpoint.facts
    limit = endpoint.max_input_tokens or facts.max_input_tokens
    return {
        "model_id": facts.model or endpoint.model or endpoint.name,
        "model_sha": facts.revision,
        "model_dtype": _DTYPE.get(facts.precision or "", facts.precision or "unknown"),
        "served_model_name": endpoint.name,
        "model_type": {"embedding": {"pooling": facts.pooling or "unknown"}},
        "max_concurrent_requests": _CONCURRENT_REQUESTS,
        **({} if limit is None else {"max_input_length": limit}),
        "max_batch_tokens": _BATCH_TOKENS,
        "max_batch_requests": None,
        "max_client_batch_size": CLIENT_BATCH,
        "auto_truncate": bool(facts.auto_truncate),
        "tokenization_workers": os.cpu_count() or 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "hubgate": {
            "version": __version__,
            "source": endpoint.source,
            "engine": facts.engine,
            "engine_version": facts.engine_version,
            "dimensions": facts.dimensions,
            "precision": facts.precision,
            "icu": icu_version(),
            "chunk_fit": facts.chunk_fit,
            "warnings": facts.warnings,
        },
    }
