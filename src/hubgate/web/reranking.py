"""What the faces share where texts are ranked, and how Cohere and Jina spell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from hubgate.domain.calls import Rerank
from hubgate.domain.errors import InvalidRequest
from hubgate.web.asgi import decode
from hubgate.web.embedding import estimate, texts_of

if TYPE_CHECKING:
    from hubgate.domain.calls import Scores
    from hubgate.web.exchange import Exchange


class RerankForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/rerank` and `/v2/rerank`: Cohere's and Jina's fields, and hubgate's own."""

    query: str
    documents: list[Any]
    """Texts, or objects with a `text`."""
    model: Any = None
    top_n: int | None = None
    return_documents: bool | None = None
    truncate: bool | None = None
    """hubgate's own, as is `raw_scores`; see `domain.calls.Rerank`."""
    raw_scores: bool | None = None
    max_tokens_per_doc: None = None
    """Clients send these as `null`; what they ask for otherwise, no engine here does."""
    max_chunks_per_doc: None = None
    rank_fields: None = None
    user: Any = None


RERANK = msgspec.json.Decoder(RerankForm)


async def rank(exchange: Exchange, call: Rerank, top_n: int | None = None) -> Scores:
    """Score texts against a query; `top_n` is how many of them are wanted.

    Raises:
        HubgateError: it cannot be answered, or fewer than one is wanted.
    """
    if not call.query:
        raise InvalidRequest("[query] is an empty string.", remedy="Send what is looked for.")
    if top_n is not None and top_n < 1:
        raise InvalidRequest(f"[top_n] is {top_n}, and must be 1 or more.")
    scores = await exchange.gateway.rerank(exchange.endpoint.name, call)
    exchange.note(texts=len(call.texts), tokens=scores.tokens, waited=scores.waited)
    return scores


def best(scores: Scores, top_n: int | None = None) -> list[tuple[int, float]]:
    """Places and scores, the highest score first; equal ones in the order of the texts."""
    ordered = sorted(enumerate(scores.items), key=lambda item: -item[1])
    return ordered[:top_n]


async def answer_rerank(exchange: Exchange, body: bytes) -> None:
    """Answer Cohere's and Jina's request.

    Raises:
        HubgateError: it cannot be answered.
    """
    form = decode(body, RERANK)
    texts = texts_of([_text(document) for document in form.documents], "documents")
    call = Rerank(
        query=form.query,
        texts=texts,
        truncate=form.truncate,
        raw_scores=form.raw_scores,
        context=exchange.ticket.context(),
    )
    scores = await rank(exchange, call, form.top_n)
    results = [
        {
            "index": index,
            "relevance_score": score,
            **({"document": {"text": texts[index]}} if form.return_documents else {}),
        }
        for index, score in best(scores, form.top_n)
    ]
    tokens = estimate((form.query, *texts)) if scores.tokens is None else scores.tokens
    told = {
        "id": f"rerank-{exchange.ticket.request_id}",
        "model": exchange.endpoint.name,
        "results": results,
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            **({} if scores.exact else {"estimated": True}),
        },
        "meta": {
            "api_version": {"version": "2"},
            "tokens": {"input_tokens": tokens},
            **({"warnings": scores.warnings} if scores.warnings else {}),
        },
    }
    await exchange.respond(msgspec.json.encode(told))


def _text(document: Any) -> Any:
    return document.get("text") if isinstance(document, dict) else document
