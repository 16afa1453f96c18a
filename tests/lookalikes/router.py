"""Hugging Face's router to the Inference Providers, from `spec/huggingface.md` 1 and `hosted/provider_routes.json`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, packed, token_count
from lookalikes.openai import schema_of
from lookalikes.ranker import pairs
from lookalikes.tgi import generated
from lookalikes.writer import openai_reply

if TYPE_CHECKING:
    from lookalikes.model import Embedder, Model, ReceivedRequest

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


def router(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """One reply. All providers call the model `model.name`; a provider's name follows after a colon."""
    if model.key and request.token != model.key:
        return Answer(401, {"error": "Invalid username or password."})
    if request.method != "POST":
        return Answer(404, "Not Found")
    name = str(request.field("model")).partition(":")[0]
    found = _HF.fullmatch(request.path)
    if found:
        return _hf_inference(model, request, embedder, found["model"], found["task"])
    if request.path != "/v1/chat/completions" and request.path not in _EMBEDDINGS | _COMPLETIONS:
        return Answer(404, "Not Found")
    if name != model.name:
        words = f"The requested model '{name}' does not exist"
        return Answer(
            404, {"error": {"message": words, "type": "invalid_request_error", "code": "model_not_found"}}
        )
    if request.path in _EMBEDDINGS:
        return _openai_embeddings(model, request, embedder)
    if "max_new_tokens" in request.json:
        return Answer(400, {"error": {"message": "unknown parameter: max_new_tokens", "code": 400}})
    return openai_reply(model, request, schema=schema_of(request))


def _hf_inference(
    model: Model, request: ReceivedRequest, embedder: Embedder, name: str, task: str | None
) -> Answer:
    if name != model.name:
        return Answer(404, {"error": f"Model {name} does not exist"})
    if task == "/pipeline/feature-extraction":
        vectors = embedder.vectors(request.texts)
        return Answer(200, vectors[0] if isinstance(request.field("inputs"), str) else vectors)
    if task == "/pipeline/text-ranking":
        inputs = request.field("inputs")
        return Answer(200, pairs(model, request, inputs["query"], inputs["texts"]))
    if task is None and model.generates:
        return generated(model, request, stream=bool(request.field("stream")), wrapped=True)
    return Answer(404, {"error": "Not Found: Model not found"})


def _openai_embeddings(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    as_text = request.field("encoding_format") == "base64"
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": place, "embedding": packed(vector) if as_text else vector}
        for place, vector in enumerate(embedder.vectors(request.texts))
    ]
    tokens = sum(map(token_count, request.texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"object": "list", "data": data, "model": model.name, "usage": usage})
