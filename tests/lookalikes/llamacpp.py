"""llama.cpp's server, with the words of build b10434."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, token_count
from lookalikes.openai import embeddings, schema_of, writing_routes
from lookalikes.ranker import results
from lookalikes.writer import openai_answer, prompt_of

if TYPE_CHECKING:
    from lookalikes.model import Asked, Embedder, Model


def llamacpp(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Its own `/embeddings` answers a list, its `/v1/embeddings` as OpenAI does."""
    known = _described(model).get(f"{asked.method} {asked.path}")
    if known:
        return Answer(200, known)
    if model.key and asked.token != model.key:
        return _error(401, "Invalid API Key", "authentication_error")
    if asked.method == "POST" and asked.path in writing_routes(model):
        return _writes(model, asked)
    if asked.method == "POST" and asked.path in {"/rerank", "/v1/rerank"}:
        return _ranks(model, asked)
    if asked.method == "POST" and asked.path in {"/v1/embeddings", "/embeddings", "/embedding"}:
        return _embeds(model, asked, embedder)
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


def _writes(model: Model, asked: Asked) -> Answer:
    if any(message.get("name", "") is None for message in asked.field("messages") or ()):
        return _error(500, "[json.exception.type_error.302] type must be string, but is null", "server_error")
    count = len(prompt_of(asked).split())
    if count > model.max_tokens:
        words = f"request ({count} tokens) exceeds the available context size ({model.max_tokens} tokens)"
        return _error(400, words, "exceed_context_size_error")
    return openai_answer(model, asked, schema=schema_of(asked))


def _ranks(model: Model, asked: Asked) -> Answer:
    if model.kind != "reranker":
        return _unsupported("reranking")
    longest = max(token_count(asked.field("query")) + token_count(text) - 1 for text in asked.texts)
    return _too_long(model, longest) or results(model, asked, raw=True)


def _embeds(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    if model.writes:
        return _unsupported("embeddings")
    refused = _too_long(model, max(map(token_count, asked.texts)))
    if refused:
        return refused
    if asked.path == "/v1/embeddings":
        return embeddings(model, asked, embedder)
    lists = (
        embedder.token_vectors(asked.texts)
        if model.kind == "tokens"
        else [[v] for v in embedder.vectors(asked.texts)]
    )
    return Answer(200, [{"index": index, "embedding": rows} for index, rows in enumerate(lists)])
