"""Hugging Face's router to the Inference Providers, from `spec/huggingface.md` 1 and `hosted/provider_routes.json`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, packed, token_count
from lookalikes.openai import schema_of
from lookalikes.ranker import pairs
from lookalikes.tgi import generated
from lookalikes.writer import openai_answer

if TYPE_CHECKING:
    from lookalikes.model import Asked, Embedder, Model

_HF = re.compile(r"/hf-inference/models/(?P<model>[\w./-]+?)(?P<task>/pipeline/[\w-]+)?")
_EMBEDDINGS = frozenset(
    {"/deepinfra/v1/openai/embeddings", "/scaleway/v1/embeddings", "/together/v1/embeddings"}
)
_COMPLETIONS = frozenset(
    {
        "/deepinfra/v1/openai/completions",
        "/featherless-ai/v1/completions",
        "/novita/v3/openai/completions",
        "/together/v1/completions",
    }
)


def router(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """One reply. A model is called `model.name` by everybody; a provider that is named stands behind a colon."""
    if model.key and asked.token != model.key:
        return Answer(401, {"error": "Invalid username or password."})
    if asked.method != "POST":
        return Answer(404, "Not Found")
    name = str(asked.field("model")).partition(":")[0]
    found = _HF.fullmatch(asked.path)
    if found:
        return _hf_inference(model, asked, embedder, found["model"], found["task"])
    if asked.path != "/v1/chat/completions" and asked.path not in _EMBEDDINGS | _COMPLETIONS:
        return Answer(404, "Not Found")
    if name != model.name:
        words = f"The requested model '{name}' does not exist"
        return Answer(
            404, {"error": {"message": words, "type": "invalid_request_error", "code": "model_not_found"}}
        )
    if asked.path in _EMBEDDINGS:
        return _openai_embeddings(model, asked, embedder)
    if "max_new_tokens" in asked.json:
        return Answer(400, {"error": {"message": "unknown parameter: max_new_tokens", "code": 400}})
    return openai_answer(model, asked, schema=schema_of(asked))


def _hf_inference(model: Model, asked: Asked, embedder: Embedder, name: str, task: str | None) -> Answer:
    if name != model.name:
        return Answer(404, {"error": f"Model {name} does not exist"})
    if task == "/pipeline/feature-extraction":
        vectors = embedder.vectors(asked.texts)
        return Answer(200, vectors[0] if isinstance(asked.field("inputs"), str) else vectors)
    if task == "/pipeline/text-ranking":
        return Answer(200, pairs(asked.field("inputs")["query"], asked.field("inputs")["texts"]))
    if task is None and model.writes:
        return generated(model, asked, stream=bool(asked.field("stream")), wrapped=True)
    return Answer(404, {"error": "Not Found: Model not found"})


def _openai_embeddings(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    as_text = asked.field("encoding_format") == "base64"
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": place, "embedding": packed(vector) if as_text else vector}
        for place, vector in enumerate(embedder.vectors(asked.texts))
    ]
    tokens = sum(map(token_count, asked.texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"object": "list", "data": data, "model": model.name, "usage": usage})
