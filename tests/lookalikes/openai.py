"""vLLM 0.32, SGLang 0.5.23 and infinity 0.0.78, from recordings and `spec/huggingface.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, packed, token_count
from lookalikes.ranker import pairs, results
from lookalikes.writer import openai_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lookalikes.model import Asked, Embedder, Model

NOT_FOUND = Answer(404, {"detail": "Not Found"})
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RERANK = frozenset({"/rerank", "/v1/rerank", "/v2/rerank"})


def writing_routes(model: Model) -> frozenset[str]:
    """Where a server of this model takes what is to be written."""
    return frozenset({CHAT} if model.chats else ()) | frozenset({COMPLETIONS} if model.writes else ())


def schema_of(asked: Asked) -> Any:
    """What the text must fit, as OpenAI and vLLM read it: text-generation-inference's spelling is not heeded."""
    wanted = asked.field("response_format") or {}
    return (wanted.get("json_schema") or {}).get("schema") if wanted.get("type") == "json_schema" else None


def embeddings(
    model: Model, asked: Asked, embedder: Embedder, *, counted: Callable[[str], int] = token_count
) -> Answer:
    """Vectors as OpenAI's route says them."""
    as_text = asked.field("encoding_format") == "base64" and model.base64
    data = [
        {"index": index, "object": "embedding", "embedding": packed(vector) if as_text else vector}
        for index, vector in enumerate(embedder.vectors(asked.texts))
    ]
    tokens = sum(map(counted, asked.texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"object": "list", "model": model.name, "data": data, "usage": usage})


def vllm(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Mounts only the routes that fit its model; wants its own model name; does not truncate unasked."""
    routes = {"GET /health": Answer(200), "GET /version": Answer(200, {"version": "0.32.0"})}
    paths = [CHAT, COMPLETIONS] if model.writes else ["/v1/embeddings", "/rerank"]
    routes["GET /openapi.json"] = Answer(200, {"openapi": "3.1.0", "paths": {path: {} for path in paths}})
    known = routes.get(f"{asked.method} {asked.path}")
    if known:
        return known
    if model.key and asked.token != model.key and asked.path.startswith("/v1"):
        return Answer(401, {"error": "Unauthorized"})
    if asked.path == "/v1/models":
        entry = {"id": model.name, "object": "model", "owned_by": "vllm", "max_model_len": model.max_tokens}
        return Answer(200, {"object": "list", "data": [entry | {"root": "org/model"}]})
    if asked.path == "/tokenize":
        return Answer(200, {"count": 3, "max_model_len": model.max_tokens, "tokens": [101, 7592, 102]})
    if asked.method == "POST" and asked.path in RERANK and not model.writes:
        return results(model, asked)
    if asked.method == "POST" and model.writes and asked.path in {CHAT, COMPLETIONS}:
        return _vllm_writes(model, asked)
    if asked.method != "POST" or asked.path != "/v1/embeddings" or model.writes:
        return NOT_FOUND
    return _vllm_refusal(model, asked) or embeddings(model, asked, embedder)


def _vllm_error(status: int, words: str, kind: str = "BadRequestError") -> Answer:
    return Answer(status, {"error": {"message": words, "type": kind, "param": None, "code": status}})


def _vllm_unknown(model: Model, asked: Asked) -> Answer | None:
    if asked.field("model") in (None, model.name):
        return None
    words = f"The model `{asked.field('model')}` does not exist. Valid aliases: {model.name}."
    return _vllm_error(404, words, "NotFoundError")


def _vllm_writes(model: Model, asked: Asked) -> Answer:
    unknown = _vllm_unknown(model, asked)
    if unknown:
        return unknown
    if asked.path == CHAT and not model.chats:
        words = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
        return _vllm_error(400, words + "template if the tokenizer does not define one.")
    if asked.path == CHAT and not isinstance(asked.field("messages"), list):
        return _vllm_error(
            400, "1 validation error: {'loc': 'body.messages', 'msg': 'Input should be a valid list'}"
        )
    limit = asked.field("max_tokens") or 0
    if limit > model.max_tokens:
        words = f"max_tokens={limit} cannot be greater than max_model_len={model.max_tokens}."
        return _vllm_error(400, f"{words} Please request fewer output tokens.")
    return openai_answer(model, asked, schema=schema_of(asked))


def _vllm_refusal(model: Model, asked: Asked) -> Answer | None:
    error = _vllm_error
    if not asked.texts:
        return error(400, "You must pass at least one prompt")
    unknown = _vllm_unknown(model, asked)
    if unknown:
        return unknown
    if asked.field("dimensions"):
        return error(
            400, f"Model '{model.name}' does not support Matryoshka embeddings; dimensions must be unset."
        )
    longest = max(map(token_count, asked.texts))
    if longest > model.max_tokens and asked.field("truncate_prompt_tokens") != -1:
        limit = f"This model's maximum context length is {model.max_tokens} tokens."
        return error(400, f"{limit} However, your prompt contains at least {longest} input tokens")
    return None


def sglang(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Flat errors; describes all its routes whatever its model is."""
    if model.key and asked.token != model.key and asked.path != "/health":
        return Answer(401, {"error": "Unauthorized"})
    described: dict[str, Any] = {
        "GET /health": b"",
        "GET /model_info": {"model_path": model.name, "is_generation": model.writes},
        "GET /server_info": {"version": "0.5.23"},
        "GET /v1/models": {
            "object": "list",
            "data": [{"id": model.name, "owned_by": "sglang", "max_model_len": model.max_tokens}],
        },
    }
    if f"{asked.method} {asked.path}" in described:
        return Answer(200, described[f"{asked.method} {asked.path}"])
    if asked.method == "POST" and asked.path in writing_routes(model):
        return openai_answer(model, asked, schema=schema_of(asked))
    if asked.method == "POST" and asked.path == "/v1/rerank" and model.kind == "reranker":
        said = pairs(asked.field("query"), asked.texts)
        return Answer(200, [{**score, "document": asked.texts[score["index"]]} for score in said])
    if asked.method != "POST" or asked.path != "/v1/embeddings":
        return NOT_FOUND
    longest = max(map(token_count, asked.texts), default=0)
    if longest > model.max_tokens:
        words = f"The input ({longest} tokens) is longer than the model's context length ({model.max_tokens} tokens)."
        error = {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
        return Answer(400, error)
    return embeddings(model, asked, embedder)


def infinity(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Its routes stand below a prefix or not; it cuts silently and counts characters."""
    if asked.method == "GET" and asked.path == "/health":
        return Answer(200, {"unix": 1.0})
    if model.key and asked.token != model.key and asked.path.startswith(model.prefix + "/"):
        return Answer(401, {"detail": "Unauthorized"})
    if asked.method == "GET" and asked.path == model.prefix + "/models":
        capability = {"embedding": "embed", "reranker": "rerank"}[model.kind]
        entry = {"id": model.name, "owned_by": "infinity", "backend": "torch", "capabilities": [capability]}
        return Answer(200, {"data": [entry], "object": "list"})
    if asked.method == "POST" and asked.path == model.prefix + "/rerank" and model.kind == "reranker":
        return results(model, asked)
    if asked.path != model.prefix + "/embeddings":
        return NOT_FOUND
    if asked.method != "POST":
        return Answer(405, {"detail": "Method Not Allowed"})
    if not asked.texts or len(asked.texts) > 2048:
        loc = ["body", "text", "input", "list[constrained-str]"]
        words = f"List should have at least 1 item and at most 2048 items, not {len(asked.texts)}"
        return Answer(422, {"detail": [{"type": "too_short", "loc": loc, "msg": words, "input": []}]})
    return embeddings(model, asked, embedder, counted=len)
