"""What the faces share where texts are ranked, and how Cohere and Jina spell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from hubgate.domain.calls import Rerank, Scores, Tokenize, Tokens
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.asgi import decode
from hubgate.web.shared.embeddings import estimate_tokens, parse_texts
from hubgate.web.shared.exchange import Exchange


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
    truncation: bool | None = None
    """Jina's word for `truncate`."""
    max_tokens_per_doc: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_doc_length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Jina's word for it."""
    max_chunks_per_doc: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Not read: every document is read as one chunk."""
    rank_fields: list[str] | None = None
    return_embeddings: bool | None = None
    priority: Any = None
    """Not read, as `user`: of Cohere's own queue and checks."""
    user: Any = None


_LONGEST_TOKEN = 32
"""Characters; so much of a document is read to see where it is to be cut."""
RERANK = msgspec.json.Decoder(RerankForm)


async def rerank(exchange: Exchange, call: Rerank, top_n: int | None = None) -> Scores:
    """Score texts against a query; `top_n` is how many of them are wanted.

    Raises:
        HubgateError: it cannot be answered, or fewer than one is wanted.
    """
    if not call.query:
        raise InvalidRequest("[query] is an empty string.", remedy="Send what is looked for.")
    if top_n is not None and top_n < 1:
        raise InvalidRequest(f"[top_n] is {top_n}, and must be 1 or more.")
    scores = await exchange.gateway.inference.rerank(exchange.endpoint.name, call)
    exchange.note(texts=len(call.texts), tokens=scores.tokens, waited=scores.waited)
    return scores


def top_ranked(scores: Scores, top_n: int | None = None) -> list[tuple[int, float]]:
    """Places and scores, the highest score first; equal ones in the order of the texts."""
    ordered = sorted(enumerate(scores.items), key=lambda item: -item[1])
    return ordered[:top_n]


async def handle_rerank(exchange: Exchange, body: bytes) -> None:
    """Answer Cohere's and Jina's request.

    Raises:
        HubgateError: it cannot be answered.
    """
    form = decode(body, RERANK)
    _refuse_unsupported(form)
    texts = parse_texts([_text(document) for document in form.documents], "documents")
    call = Rerank(
        query=form.query,
        texts=await _shortened(exchange, texts, form.max_tokens_per_doc or form.max_doc_length),
        truncate=form.truncation if form.truncate is None else form.truncate,
        raw_scores=form.raw_scores,
        context=exchange.context.call_context(),
    )
    scores = await rerank(exchange, call, form.top_n)
    results = [
        {
            "index": index,
            "relevance_score": score,
            **({"document": {"text": texts[index]}} if form.return_documents else {}),
        }
        for index, score in top_ranked(scores, form.top_n)
    ]
    tokens = estimate_tokens((form.query, *texts)) if scores.tokens is None else scores.tokens
    told = {
        "id": f"rerank-{exchange.context.request_id}",
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


def _refuse_unsupported(form: RerankForm) -> None:
    if form.rank_fields not in (None, [], ["text"]):
        raise InvalidRequest(
            "[rank_fields] cannot be honoured: documents are ranked by their [text] alone.",
            remedy="Send each document as one text.",
        )
    if form.return_embeddings:
        raise InvalidRequest(
            "[return_embeddings] cannot be honoured: the answer holds scores alone.",
            remedy="Leave it out, and use /v1/embeddings with an embedding model.",
        )


async def _shortened(exchange: Exchange, texts: Sequence[str], most: int | None) -> Sequence[str]:
    """The texts, each cut to so many tokens where it has more and the model would read them.

    Raises:
        InvalidRequest: that takes a tokenizer, and the endpoint has none.
    """
    limit = exchange.endpoint.max_input_tokens or exchange.endpoint.facts.max_input_tokens
    if most is None or (limit is not None and limit <= most):
        return texts
    long = [place for place, text in enumerate(texts) if len(text.encode()) > most]  # no token is shorter
    if not long:
        return texts
    call_context = exchange.context.call_context()
    read = most * _LONGEST_TOKEN
    begun = [texts[place][:read] for place in long]
    call = Tokenize(texts=begun, add_special_tokens=False, context=call_context)
    try:
        tokens = await exchange.gateway.inference.infer(exchange.endpoint.name, call)
    except InvalidRequest:
        if limit is None and all(estimate_tokens((texts[place],)) <= most for place in long):
            return texts
        raise InvalidRequest(
            f"[max_tokens_per_doc] cannot be {most}: this endpoint's server cannot cut documents by tokens.",
            remedy="Leave it out, or send shorter documents.",
        ) from None
    assert isinstance(tokens, Tokens)  # noqa: S101 - a Tokenize is answered with Tokens
    cut = {
        place: texts[place][: of_text[most - 1].stop if len(of_text) > most else read]
        for place, of_text in zip(long, tokens.items, strict=True)
    }
    return [cut.get(place, text) for place, text in enumerate(texts)]


def _text(document: Any) -> Any:
    return document.get("text") if isinstance(document, dict) else document
