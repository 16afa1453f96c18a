"""Hugging Face's default toolkit 0.5.6, transformers serve 5.23 and text-generation-inference 3.3, as far as it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookalikes.model import Answer, token_count
from lookalikes.openai import NOT_FOUND

if TYPE_CHECKING:
    from lookalikes.model import Asked, Embedder, Model


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
    single = isinstance(asked.field("inputs"), str)
    if model.kind == "embedding":
        vectors = embedder.vectors(asked.texts)
        return Answer(200, {"embeddings": vectors[0] if single else vectors})
    if model.kind != "tokens":
        return Answer(200, [{"label": "joy", "score": 0.5}])
    longest = max(map(token_count, asked.texts))
    if longest > model.max_tokens:
        words = f"The size of tensor a ({longest}) must match the size of tensor b ({model.max_tokens})"
        return Answer(400, {"error": f"{words} at non-singleton dimension 1"})
    rows = [[tokens] for tokens in embedder.token_vectors(asked.texts)]
    return Answer(200, rows[0] if single else rows)


def transformers_serve(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Generates text only; its list of models fails when it is offline."""
    if asked.path == "/health":
        return Answer(200, {"status": "ok"})
    return Answer(500, "Internal Server Error") if asked.path == "/v1/models" else NOT_FOUND


def tgi(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """Generates text only."""
    if asked.path == "/info":
        return Answer(
            200, {"model_id": model.name, "router": "text-generation-router", "max_total_tokens": 4096}
        )
    return NOT_FOUND


def unknown(model: Model, asked: Asked, embedder: Embedder) -> Answer:
    """A web server that is no model server."""
    return NOT_FOUND
