"""Hugging Face's default toolkit 0.5.6, custom handlers in it, and transformers serve 5.23 and 5.24."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookalikes.model import Answer, token_count
from lookalikes.openai import CHAT, NOT_FOUND, generation_routes
from lookalikes.ranker import pairs
from lookalikes.tei import weights
from lookalikes.writer import openai_reply, written

if TYPE_CHECKING:
    from lookalikes.model import Embedder, Model, ReceivedRequest


_TEXT_OF = {"summarization": "summary_text", "translation": "translation_text"}


def toolkit(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """One route; every error is a 400. Kind `tokens` is the task feature-extraction."""
    if model.key and request.token != model.key:
        return Answer(401, {"error": "Invalid username or password."})
    if request.method == "GET":
        return Answer(200, "Ok") if request.path in {"/", "/health"} else Answer(404, "Not Found")
    if request.method != "POST" or request.path not in {"/", "/predict"}:
        return Answer(404, "Not Found")
    if request.field("inputs") is None:
        return Answer(400, {"error": "Body needs to provide a inputs key, received: b'{}'"})
    refusal = _type_error(model, request)
    if refusal:
        return Answer(400, {"error": refusal})
    if model.kind == "reranker":
        return _ranks(model, request)
    return _writes(model, request) if model.generates else _embeds(model, request, embedder)


_PIPELINES = {
    "embedding": "SentenceEmbedding",
    "similarity": "SentenceSimilarity",
    "reranker": "SentenceRanking",
}


def _type_error(model: Model, request: ReceivedRequest) -> str | None:
    """Python's error for the body of another task: `inputs` and `parameters` are arguments of the pipeline."""
    inputs, parameters = request.field("inputs"), request.field("parameters") or {}
    pipeline = f"{_PIPELINES.get(model.kind, 'TextClassification')}Pipeline.__call__()"
    if model.kind == "classifier" and parameters:
        tokenizer = "PreTrainedTokenizerFast._batch_encode_plus()"
        return f"{tokenizer} got an unexpected keyword argument '{next(iter(parameters))}'"
    if isinstance(inputs, dict) and model.kind in {"classifier", "tokens", "llm"}:
        return f"{pipeline} missing 1 required positional argument: 'inputs'"
    if model.kind not in _PIPELINES:
        return None
    unknown = [*parameters, *(("query",) if isinstance(inputs, dict) and model.kind != "reranker" else ())]
    if unknown:
        return f"{pipeline} got an unexpected keyword argument '{unknown[0]}'"
    if model.kind == "similarity":
        return f"{pipeline} missing 1 required positional argument: 'sentences'"
    return None


def _embeds(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    single = isinstance(request.field("inputs"), str)
    if model.kind == "embedding":
        vectors = embedder.vectors(request.texts)
        return Answer(200, {"embeddings": vectors[0] if single else vectors})
    if model.kind == "sparse":
        return Answer(200, [dict(zip(text.split(), weights(text), strict=True)) for text in request.texts])
    if model.kind != "tokens":
        return Answer(200, [{"label": "joy", "score": 0.5}])
    longest = max(map(token_count, request.texts))
    if longest > model.max_tokens:
        words = f"The size of tensor a ({longest}) must match the size of tensor b ({model.max_tokens})"
        return Answer(400, {"error": f"{words} at non-singleton dimension 1"})
    rows = [[tokens] for tokens in embedder.token_vectors(request.texts)]
    return Answer(200, rows[0] if single else rows)


def _ranks(model: Model, request: ReceivedRequest) -> Answer:
    inputs = request.field("inputs")
    if not isinstance(inputs, dict):
        return Answer(200, {"scores": [0.5] if isinstance(inputs, list) else 0.5})
    return Answer(200, pairs(model, request, inputs["query"], inputs["texts"]))


def _writes(model: Model, request: ReceivedRequest) -> Answer:
    """A pipeline of transformers: it refuses what `generate` does not know, and of streams it knows nothing."""
    parameters = request.field("parameters") or {}
    known = {
        "max_new_tokens",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "repetition_penalty",
    }
    repeats = model.kind in {"llm", "base"}
    known |= {"return_full_text"} if repeats else set()
    unused = [name for name in parameters if name not in known]
    if unused:
        words = (
            f"The following `model_kwargs` are not used by the model: {unused} (note: typos in the generate "
        )
        return Answer(400, {"error": words + "arguments will also show up in this list)"})
    inputs = request.field("inputs")
    prompt = inputs if isinstance(inputs, str) else inputs[0]
    if isinstance(prompt, dict):  # a chat
        if not model.chats:
            words = "Cannot use chat template functions because tokenizer.chat_template is not set"
            return Answer(400, {"error": f"{words} and no template argument was passed!"})
        prompt = inputs[-1]["content"]
    text = written(prompt, parameters.get("max_new_tokens")).text
    if repeats and parameters.get("return_full_text") is not False:
        text = prompt + text
    return Answer(200, [{_TEXT_OF.get(model.kind, "generated_text"): text}])


def transformers_serve(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """Generates text only; pinned to `pinned`, it accepts that name or none. Only since 5.24 it lists models offline."""
    if request.path == "/health":
        return Answer(200, {"status": "ok"})
    if request.path == "/v1/models" and model.models:
        entry = {"owned_by": "local", "object": "model", "created": 0, "status": {"value": "loaded"}}
        return Answer(200, {"object": "list", "data": [entry | {"id": name} for name in model.models]})
    if request.path == "/v1/models":
        return Answer(500, "Internal Server Error")
    if request.method != "POST" or request.path not in generation_routes(model):
        return NOT_FOUND
    if request.field("model") not in (None, "pinned"):
        return Answer(400, {"detail": f"Server is pinned to 'pinned'; requested '{request.field('model')}'."})
    messages = request.field("messages")
    if request.path == CHAT and (
        not isinstance(messages, list) or any(message.get("tool_calls", ()) is None for message in messages)
    ):
        return Answer(500, "Internal Server Error")
    return openai_reply(model, request, done=False, name="pinned@main")


def unknown(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """A web server that is not a model server."""
    return NOT_FOUND
