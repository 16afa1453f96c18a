"""Text Embeddings Inference 1.9.3, from its OpenAPI description and `spec/huggingface.md` 2.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, packed, token_count
from lookalikes.ranker import pairs, tokens_of

if TYPE_CHECKING:
    from lookalikes.model import Embedder, Model, ReceivedRequest


def tei(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """One reply."""
    if request.method == "GET" and request.path in {"/health", "/ping", "/"}:
        return Answer(200)
    if model.key and request.token != model.key:
        return Answer(401)
    if request.method == "GET" and request.path == "/info":
        return Answer(200, _info(model))
    if len(request.body) > model.max_body:
        return Answer(413, "Failed to buffer the request body: length limit exceeded")
    if request.method != "POST" or request.path not in _ROUTES:
        return Answer(404)
    if not isinstance(request.json, dict):
        return Answer(400, "Failed to parse the request body as JSON: expected value at line 1 column 1")
    return _ROUTES[request.path](model, request, embedder)


def _info(model: Model) -> dict[str, Any]:
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    kinds: dict[str, Any] = {
        "embedding": {"embedding": {"pooling": "mean"}},
        "reranker": {"reranker": labels},
        "classifier": {"classifier": labels},
        "sparse": {"embedding": {"pooling": "splade"}},
    }
    return {
        "model_id": model.name,
        "model_sha": "fca14538aa9956a46526bd1d0d11d69e19b5a101",
        "model_dtype": "float16",
        "served_model_name": model.name,
        "model_type": kinds[model.kind],
        "max_concurrent_requests": 512,
        "max_input_length": model.max_tokens,
        "max_batch_tokens": 16384,
        "max_batch_requests": None,
        "max_client_batch_size": model.max_batch,
        "auto_truncate": model.auto_truncate,
        "tokenization_workers": 4,
        "version": "1.9.3",
        "sha": None,
        "docker_label": None,
    }


def _error(status: int, words: str, kind: str) -> Answer:
    return Answer(status, {"error": words, "error_type": kind})


def _refusal(model: Model, request: ReceivedRequest) -> Answer | None:
    texts = request.texts
    if not texts:
        return _error(400, "Batch is empty", "Empty")
    if len(texts) > model.max_batch:
        return _error(
            413, f"batch size {len(texts)} > maximum allowed batch size {model.max_batch}", "Validation"
        )
    if not all(texts):
        return _error(413, "Input validation error: `inputs` cannot be empty", "Validation")
    prompt = request.field("prompt_name")
    if prompt is not None and prompt not in model.prompts:
        return _error(
            422, f"Tokenization error: default_prompts were not found for the key `{prompt}`", "Tokenizer"
        )
    truncate = request.field("truncate")
    longest = max(map(token_count, texts))
    if longest > model.max_tokens and not (model.auto_truncate if truncate is None else truncate):
        words = f"Input validation error: `inputs` must have less than {model.max_tokens} tokens. Given: {longest}"
        return _error(413, words, "Validation")
    return None


def _embed(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    if model.kind != "embedding":
        return _error(424, f"Model is not an embedding model: {model.kind}", "Backend")
    refused = _refusal(model, request)
    if refused:
        return refused
    prompt = model.prompts.get(request.field("prompt_name") or "", model.default_prompt)
    texts = [prompt + text for text in request.texts]
    vectors = embedder.vectors(texts)
    if request.field("normalize") is False:
        vectors = [[2 * number for number in vector] for vector in vectors]
    if request.field("dimensions"):
        vectors = [vector[: request.field("dimensions")] for vector in vectors]
    return Answer(200, vectors, _compute_headers(texts))


def _compute_headers(texts: list[str]) -> dict[str, str]:
    return {
        "x-compute-type": "cpu",
        "x-compute-time": "1",
        "x-compute-characters": str(sum(map(len, texts))),
        "x-compute-tokens": str(sum(map(token_count, texts))),
    }


def _openai(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    refused = _refusal(model, request)
    if refused:
        error = refused.body
        return Answer(
            refused.status, {"message": error["error"], "code": refused.status, "type": error["error_type"]}
        )
    as_text = request.field("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": packed(vector) if as_text else vector}
        for index, vector in enumerate(embedder.vectors(request.texts))
    ]
    tokens = sum(map(token_count, request.texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"object": "list", "data": data, "model": model.name, "usage": usage})


def _embed_all(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    return _refusal(model, request) or Answer(200, embedder.token_vectors(request.texts))


def _tokenize(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    special = request.field("add_special_tokens") is not False
    prompt = (
        model.default_prompt
    )  # the same as for an embedding: see `tokenize_input` of its `tokenization.rs`
    return Answer(200, [_tokens(prompt + text, special=special) for text in request.texts])


def _tokens(text: str, *, special: bool) -> list[dict[str, Any]]:
    tokens, start = [], 0
    for number, word in enumerate(text.split(), start=1000):
        start = text.index(word, start)
        token = {"id": number, "text": word, "special": False, "start": start, "stop": start + len(word)}
        tokens.append(token)
        start += len(word)
    if not special:
        return tokens
    first, last = ({"id": i, "text": t, "special": True, "start": None, "stop": None} for i, t in _SPECIAL)
    return [first, *tokens, last]


def weights(text: str) -> list[float]:
    """The weight of each word of a text: later words weigh more."""
    return [0.25 * place for place in range(1, len(text.split()) + 1)]


def _rerank(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    if model.kind != "reranker":
        return _error(424, f"model is not a re-ranker model: {model.kind}", "Backend")
    refused = _refusal(model, request)
    if refused:
        return refused
    query = request.field("query")
    said = pairs(model, request, model.seed + query, request.texts, raw=bool(request.field("raw_scores")))
    headers = _compute_headers([f"{query} {text}" for text in request.texts])
    tokens = tokens_of(model, request, query, request.texts)
    return Answer(200, said, headers | {"x-compute-tokens": str(tokens)})


def _embed_sparse(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    if model.kind != "sparse":
        return _error(424, f"Model is not an embedding model: {model.kind}", "Backend")
    vectors = [
        [{"index": 1000 + place, "value": weight} for place, weight in enumerate(weights(text))]
        for text in request.texts
    ]
    return _refusal(model, request) or Answer(200, vectors, _compute_headers(request.texts))


_SPECIAL = ((101, "[CLS]"), (102, "[SEP]"))
_ROUTES = {
    "/": _embed,
    "/embed": _embed,
    "/embed_all": _embed_all,
    "/embed_sparse": _embed_sparse,
    "/embeddings": _openai,
    "/rerank": _rerank,
    "/tokenize": _tokenize,
    "/v1/embeddings": _openai,
}
