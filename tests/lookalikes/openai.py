"""vLLM 0.32, SGLang 0.5.23, infinity 0.0.78 and LiteLLM's proxy, from recordings, source and public reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, packed, token_count
from lookalikes.ranker import pairs, results
from lookalikes.writer import native_response, openai_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from lookalikes.model import Embedder, Model, ReceivedRequest

NOT_FOUND = Answer(404, {"detail": "Not Found"})
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
RERANK = frozenset({"/rerank", "/v1/rerank", "/v2/rerank"})


def generation_routes(model: Model) -> frozenset[str]:
    """Where a server of this model takes what is to be written."""
    return frozenset({CHAT} if model.chats else ()) | frozenset({COMPLETIONS} if model.generates else ())


def schema_of(request: ReceivedRequest) -> Any:
    """What the text must fit, as OpenAI and vLLM read it: text-generation-inference's spelling is not heeded."""
    wanted = request.field("response_format") or {}
    return (wanted.get("json_schema") or {}).get("schema") if wanted.get("type") == "json_schema" else None


def embeddings(
    model: Model, request: ReceivedRequest, embedder: Embedder, *, counted: Callable[[str], int] = token_count
) -> Answer:
    """Vectors as OpenAI's route says them."""
    as_text = request.field("encoding_format") == "base64" and model.base64
    data = [
        {"index": index, "object": "embedding", "embedding": packed(vector) if as_text else vector}
        for index, vector in enumerate(embedder.vectors(request.texts))
    ]
    tokens = sum(map(counted, request.texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"object": "list", "model": model.name, "data": data, "usage": usage})


def vllm(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """Mounts only the routes that fit its model; wants its own model name; does not truncate unasked."""
    routes = {"GET /health": Answer(200), "GET /version": Answer(200, {"version": "0.32.0"})}
    paths = [CHAT, COMPLETIONS] if model.generates else ["/v1/embeddings", "/rerank"]
    routes["GET /openapi.json"] = Answer(200, {"openapi": "3.1.0", "paths": {path: {} for path in paths}})
    known = routes.get(f"{request.method} {request.path}")
    if known:
        return known
    if model.key and request.token != model.key and request.path.startswith("/v1"):
        return Answer(401, {"error": "Unauthorized"})
    if request.path == "/v1/models":
        entry = {"id": model.name, "object": "model", "owned_by": "vllm", "max_model_len": model.max_tokens}
        return Answer(200, {"object": "list", "data": [entry | {"root": "org/model"}]})
    if request.path == "/tokenize":
        return Answer(200, {"count": 3, "max_model_len": model.max_tokens, "tokens": [101, 7592, 102]})
    if request.method == "POST" and request.path in RERANK and not model.generates:
        return results(model, request)
    if request.method == "POST" and model.generates and request.path in {CHAT, COMPLETIONS}:
        return _vllm_writes(model, request)
    if request.method == "POST" and model.chats and model.responses and request.path == RESPONSES:
        return _vllm_unknown(model, request) or native_response(model, request)
    if request.method != "POST" or request.path != "/v1/embeddings" or model.generates:
        return NOT_FOUND
    return _vllm_refusal(model, request) or embeddings(model, request, embedder)


def _vllm_error(status: int, words: str, kind: str = "BadRequestError") -> Answer:
    return Answer(status, {"error": {"message": words, "type": kind, "param": None, "code": status}})


def _vllm_unknown(model: Model, request: ReceivedRequest) -> Answer | None:
    if request.field("model") in (None, model.name):
        return None
    words = f"The model `{request.field('model')}` does not exist. Valid aliases: {model.name}."
    return _vllm_error(404, words, "NotFoundError")


def _vllm_writes(model: Model, request: ReceivedRequest) -> Answer:
    unknown = _vllm_unknown(model, request)
    if unknown:
        return unknown
    if request.path == CHAT and not model.chats:
        words = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
        return _vllm_error(400, words + "template if the tokenizer does not define one.")
    if request.path == CHAT and not isinstance(request.field("messages"), list):
        return _vllm_error(
            400, "1 validation error: {'loc': 'body.messages', 'msg': 'Input should be a valid list'}"
        )
    limit = request.field("max_tokens") or 0
    if limit > model.max_tokens:
        words = f"max_tokens={limit} cannot be greater than max_model_len={model.max_tokens}."
        return _vllm_error(400, f"{words} Please request fewer output tokens.")
    return openai_reply(model, request, schema=schema_of(request))


def _vllm_refusal(model: Model, request: ReceivedRequest) -> Answer | None:
    error = _vllm_error
    if not request.texts:
        return error(400, "You must pass at least one prompt")
    unknown = _vllm_unknown(model, request)
    if unknown:
        return unknown
    if request.field("dimensions"):
        return error(
            400, f"Model '{model.name}' does not support Matryoshka embeddings; dimensions must be unset."
        )
    longest = max(map(token_count, request.texts))
    if longest > model.max_tokens and request.field("truncate_prompt_tokens") != -1:
        limit = f"This model's maximum context length is {model.max_tokens} tokens."
        return error(400, f"{limit} However, your prompt contains at least {longest} input tokens")
    return None


def sglang(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """Flat errors; describes all its routes whatever its model is."""
    if model.key and request.token != model.key and request.path != "/health":
        return Answer(401, {"error": "Unauthorized"})
    described: dict[str, Any] = {
        "GET /health": b"",
        "GET /model_info": {"model_path": model.name, "is_generation": model.generates},
        "GET /server_info": {"version": "0.5.23"},
        "GET /v1/models": {
            "object": "list",
            "data": [{"id": model.name, "owned_by": "sglang", "max_model_len": model.max_tokens}],
        },
    }
    if f"{request.method} {request.path}" in described:
        return Answer(200, described[f"{request.method} {request.path}"])
    if request.method == "POST" and request.path in generation_routes(model):
        return openai_reply(model, request, schema=schema_of(request))
    if request.method == "POST" and model.chats and model.responses and request.path == RESPONSES:
        return native_response(model, request)
    if request.method == "POST" and request.path == "/v1/rerank" and model.kind == "reranker":
        said = pairs(model, request, request.field("query"), request.texts)
        return Answer(200, [{**score, "document": request.texts[score["index"]]} for score in said])
    if request.method != "POST" or request.path != "/v1/embeddings":
        return NOT_FOUND
    longest = max(map(token_count, request.texts), default=0)
    if longest > model.max_tokens:
        words = f"The input ({longest} tokens) is longer than the model's context length ({model.max_tokens} tokens)."
        error = {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
        return Answer(400, error)
    return embeddings(model, request, embedder)


def infinity(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """Its routes stand below a prefix or not; it cuts silently and counts characters."""
    if request.method == "GET" and request.path == "/health":
        return Answer(200, {"unix": 1.0})
    if model.key and request.token != model.key and request.path.startswith(model.prefix + "/"):
        return Answer(401, {"detail": "Unauthorized"})
    if request.method == "GET" and request.path == model.prefix + "/models":
        capability = {"embedding": "embed", "reranker": "rerank"}[model.kind]
        entry = {"id": model.name, "owned_by": "infinity", "backend": "torch", "capabilities": [capability]}
        return Answer(200, {"data": [entry], "object": "list"})
    if request.method == "POST" and request.path == model.prefix + "/rerank" and model.kind == "reranker":
        return results(model, request)
    if request.path != model.prefix + "/embeddings":
        return NOT_FOUND
    if request.method != "POST":
        return Answer(405, {"detail": "Method Not Allowed"})
    if not request.texts or len(request.texts) > 2048:
        loc = ["body", "text", "input", "list[constrained-str]"]
        words = f"List should have at least 1 item and at most 2048 items, not {len(request.texts)}"
        return Answer(422, {"detail": [{"type": "too_short", "loc": loc, "msg": words, "input": []}]})
    return embeddings(model, request, embedder, counted=len)


def litellm(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """Several models by the names of its operator. Without a database, it answers 400 to any but its own key."""
    names = model.models or (model.name,)
    is_known = request.path in {"/v1/models", "/models", "/v1/embeddings", CHAT, "/health"}
    if is_known and model.key and request.token != model.key:
        error = {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}
        return Answer(400, {"error": error})
    if request.method == "GET" and request.path in {"/v1/models", "/models"}:
        entry = {"object": "model", "created": 1677610602, "owned_by": "openai"}
        return Answer(200, {"object": "list", "data": [entry | {"id": name} for name in names]})
    if request.method != "POST" or request.path not in {"/v1/embeddings", CHAT}:
        return NOT_FOUND
    if request.field("model") not in names:
        words = f"{request.path}: Invalid model name passed in model={request.field('model')}."
        return Answer(400, {"error": {"message": words, "type": "None", "param": "None", "code": "400"}})
    return openai_reply(model, request) if request.path == CHAT else embeddings(model, request, embedder)
