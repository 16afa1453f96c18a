"""Hugging Face's default toolkit 0.5.6, custom handlers in it, and transformers serve 5.23."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookalikes.model import Answer, token_count
from lookalikes.openai import CHAT, NOT_FOUND, writing_routes
from lookalikes.ranker import pairs
from lookalikes.tei import weights
from lookalikes.writer import openai_answer, written

if TYPE_CHECKING:
    from lookalikes.model import Asked, Embedder, Model


_TEXT_OF = {"summarization": "summary_text", "translation": "translation_text"}


def toolkit(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """One route; everything that goes wrong is an error 400. Kind `tokens` is the task feature-extraction."""
    if model.key and asked.token != model.key:
        return Answer(401, {"error": "Invalid username or password."})
    if asked.method == "GET":
        return Answer(200, "Ok") if asked.path in {"/", "/health"} else Answer(404, "Not Found")
    if asked.method != "POST" or asked.path not in {"/", "/predict"}:
        return Answer(404, "Not Found")
    if asked.field("inputs") is None:
        return Answer(400, {"error": "Body needs to provide a inputs key, received: b'{}'"})
    refusal = _type_error(model, asked)
    if refusal:
        return Answer(400, {"error": refusal})
    if model.kind == "reranker":
        return _ranks(asked)
    return _writes(model, asked) if model.writes else _embeds(model, asked, embedder)


_PIPELINES = {
    "embedding": "SentenceEmbedding",
    "similarity": "SentenceSimilarity",
    "reranker": "SentenceRanking",
}


def _type_error(model: Model, asked: Asked) -> str | None:
    """What Python says of a body made for another task: `inputs` and `parameters` are arguments of the pipeline."""
    inputs, parameters = asked.field("inputs"), asked.field("parameters") or {}
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


def _embeds(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    single = isinstance(asked.field("inputs"), str)
    if model.kind == "embedding":
        vectors = embedder.vectors(asked.texts)
        return Answer(200, {"embeddings": vectors[0] if single else vectors})
    if model.kind == "sparse":
        return Answer(200, [dict(zip(text.split(), weights(text), strict=True)) for text in asked.texts])
    if model.kind != "tokens":
        return Answer(200, [{"label": "joy", "score": 0.5}])
    longest = max(map(token_count, asked.texts))
    if longest > model.max_tokens:
        words = f"The size of tensor a ({longest}) must match the size of tensor b ({model.max_tokens})"
        return Answer(400, {"error": f"{words} at non-singleton dimension 1"})
    rows = [[tokens] for tokens in embedder.token_vectors(asked.texts)]
    return Answer(200, rows[0] if single else rows)


def _ranks(asked: Asked) -> Answer:
    inputs = asked.field("inputs")
    if not isinstance(inputs, dict):
        return Answer(200, {"scores": [0.5] if isinstance(inputs, list) else 0.5})
    return Answer(200, pairs(inputs["query"], inputs["texts"]))


def _writes(model: Model, asked: Asked) -> Answer:
    """A pipeline of transformers: it refuses what `generate` does not know, and of streams it knows nothing."""
    parameters = asked.field("parameters") or {}
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
    inputs = asked.field("inputs")
    prompt = inputs if isinstance(inputs, str) else inputs[0]
    text = written(prompt, parameters.get("max_new_tokens")).text
    if repeats and parameters.get("return_full_text") is not False:
        text = prompt + text
    return Answer(200, [{_TEXT_OF.get(model.kind, "generated_text"): text}])


def transformers_serve(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Writes text only; its list of models fails when it is offline; pinned to `pinned`, it wants that name or none."""
    if asked.path == "/health":
        return Answer(200, {"status": "ok"})
    if asked.path == "/v1/models":
        return Answer(500, "Internal Server Error")
    if asked.method != "POST" or asked.path not in writing_routes(model):
        return NOT_FOUND
    if asked.field("model") not in (None, "pinned"):
        return Answer(400, {"detail": f"Server is pinned to 'pinned'; requested '{asked.field('model')}'."})
    messages = asked.field("messages")
    if asked.path == CHAT and (
        not isinstance(messages, list) or any(message.get("tool_calls", ()) is None for message in messages)
    ):
        return Answer(500, "Internal Server Error")
    return openai_answer(model, asked, done=False, name="pinned@main")


def unknown(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """A web server that is no model server."""
    return NOT_FOUND
