"""llama.cpp's server, with the messages of build b10434, and of xllamacpp 2026.10.11549 as it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, token_count
from lookalikes.openai import CHAT, COMPLETIONS, embeddings, generation_routes, schema_of
from lookalikes.ranker import results
from lookalikes.writer import openai_reply, prompt_of

if TYPE_CHECKING:
    from lookalikes.model import Embedder, Model, ReceivedRequest

GENERATION_ROUTES = {CHAT, COMPLETIONS}


def llamacpp(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """Its own `/embeddings` replies with a list, its `/v1/embeddings` like OpenAI's."""
    known = _described(model).get(f"{request.method} {request.path}")
    if known:
        return Answer(200, known)
    if model.key and request.token != model.key:
        return _error(401, "Invalid API Key", "authentication_error")
    if request.method == "POST" and request.path in GENERATION_ROUTES and not model.generates:
        words = "the current context does not support logits computation. skipping"
        return _error(500, words, "server_error")
    if request.method == "POST" and request.path in generation_routes(model):
        return _writes(model, request)
    if request.method == "POST" and request.path in {"/rerank", "/v1/rerank"}:
        return _ranks(model, request)
    if request.method == "POST" and request.path in {"/v1/embeddings", "/embeddings", "/embedding"}:
        return _embeds(model, request, embedder)
    return _error(404, "File Not Found", "not_found_error")


def _described(model: Model) -> dict[str, Any]:
    meta = {"n_ctx_train": 2 * model.max_tokens, "n_embd": model.dimensions}
    return {
        "GET /health": {"status": "ok"},
        "GET /props": {"build_info": "b6700-abc", "default_generation_settings": {"n_ctx": model.max_tokens}},
        "GET /v1/models": {
            "object": "list",
            "data": [{"id": model.name, "owned_by": "llamacpp", "meta": meta}],
        },
    }


def _error(status: int, words: str, kind: str) -> Answer:
    return Answer(status, {"error": {"code": status, "message": words, "type": kind}})


def _unsupported(what: str) -> Answer:
    words = f"This server does not support {what}. Start it with `--{what}`"
    return _error(501, words, "not_supported_error")


def _too_long(model: Model, count: int) -> Answer | None:
    if count <= model.max_tokens:
        return None
    words = (
        f"input ({count} tokens) is larger than the max context size ({model.max_tokens} tokens). skipping"
    )
    return _error(400, words, "exceed_context_size_error")


def _writes(model: Model, request: ReceivedRequest) -> Answer:
    if any(message.get("name", "") is None for message in request.field("messages") or ()):
        return _error(500, "[json.exception.type_error.302] type must be string, but is null", "server_error")
    count = len(prompt_of(request).split())
    if count > model.max_tokens:
        words = f"request ({count} tokens) exceeds the available context size ({model.max_tokens} tokens)"
        return _error(400, words, "exceed_context_size_error")
    return openai_reply(model, request, schema=schema_of(request))


def _ranks(model: Model, request: ReceivedRequest) -> Answer:
    if model.kind != "reranker":
        return _unsupported("reranking")
    longest = max(token_count(request.field("query")) + token_count(text) - 1 for text in request.texts)
    return _too_long(model, longest) or results(model, request, raw=True)


def _embeds(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    if model.generates:
        return _unsupported("embeddings")
    refused = _too_long(model, max(map(token_count, request.texts)))
    if refused:
        return refused
    if request.path == "/v1/embeddings":
        return embeddings(model, request, embedder)
    lists = (
        embedder.token_vectors(request.texts)
        if model.kind == "tokens"
        else [[v] for v in embedder.vectors(request.texts)]
    )
    return Answer(200, [{"index": index, "embedding": rows} for index, rows in enumerate(lists)])
