"""What faces share about reranking, and the rerank API of Cohere, Jina, Voyage and Xinference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from hubgate.domain.calls import Rerank, Scores, Tokenize, Tokens
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.asgi import decode
from hubgate.web.shared.embeddings import estimate_tokens, parse_texts
from hubgate.web.shared.exchange import Exchange


class RerankForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/rerank` and `/v2/rerank`: fields of Cohere, Jina, Voyage, Xinference and hubgate."""

    query: str
    documents: list[Any]
    """Texts, or objects with a `text`."""
    model: Any = None
    top_n: int | None = None
    top_k: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType | None = msgspec.UNSET
    """Voyage's name for `top_n`. Its clients always send it, and get the reply in Voyage's format."""
    return_documents: bool | Literal["true", "false"] | None = None
    """RAGFlow sends it as a string to what it takes for Xinference."""
    truncate: bool | None = None
    """hubgate's own, as `raw_scores`; see `domain.calls.Rerank`."""
    raw_scores: bool | None = None
    truncation: bool | None = None
    """Jina's name for `truncate`."""
    instruction: str | None = None
    """vLLM's, for models that follow instructions."""
    instruct: str | None = None
    """SGLang's name for it."""
    max_tokens_per_doc: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_doc_length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Jina's name for it."""
    max_chunks_per_doc: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Ignored: every document is one chunk."""
    rank_fields: list[str] | None = None
    return_embeddings: bool | None = None
    priority: Any = None
    """Ignored, as `user`: they concern Cohere's own queue and abuse checks."""
    user: Any = None
    return_len: Any = None
    """Xinference's; ignored, as the reply always has the number of tokens."""
    kwargs: str | None = None
    """Xinference's: options of its engines, as JSON."""


_MAX_TOKEN_CHARS = 32
"""To find where to cut a document, only `max_tokens_per_doc` times as many characters are tokenized."""
RERANK = msgspec.json.Decoder(RerankForm)


async def rerank(exchange: Exchange, call: Rerank, top_n: int | None = None) -> Scores:
    if not call.query:
        raise InvalidRequest("[query] is an empty string.", remedy="Send the text to search for.")
    if top_n is not None and top_n < 1:
        raise InvalidRequest(f"[top_n] must be at least 1, not {top_n}.")
    scores = await exchange.gateway.inference.rerank(exchange.endpoint.name, call)
    exchange.record(texts=len(call.texts), tokens=scores.tokens, waited=scores.waited)
    return scores


def top_ranked(scores: Scores, top_n: int | None = None) -> list[tuple[int, float]]:
    """Indexes and scores, highest score first; equal scores in the order of the texts."""
    ordered = sorted(enumerate(scores.items), key=lambda item: -item[1])
    return ordered[:top_n]


async def handle_rerank(exchange: Exchange, body: bytes) -> None:
    form = decode(body, RERANK)
    _refuse_unsupported(form)
    texts = parse_texts([_text(document) for document in form.documents], "documents")
    call = Rerank(
        query=form.query,
        texts=await _shorten(exchange, texts, form.max_tokens_per_doc or form.max_doc_length),
        truncate=form.truncation if form.truncate is None else form.truncate,
        raw_scores=form.raw_scores,
        instruction=form.instruction or form.instruct,
        context=exchange.context.call_context(),
    )
    top_n = form.top_k or None if form.top_n is None else form.top_n
    scores = await rerank(exchange, call, top_n)
    ranking = _Ranking(
        results=top_ranked(scores, top_n),
        documents=texts if form.return_documents in (True, "true") else (),
        tokens=estimate_tokens((form.query, *texts)) if scores.tokens is None else scores.tokens,
        mark={} if scores.exact else {"estimated": True},
        warnings=scores.warnings,
    )
    render = _reply if form.top_k is msgspec.UNSET else _voyage_reply
    await exchange.respond(msgspec.json.encode(render(exchange, ranking)))


class _Ranking(NamedTuple):
    results: Sequence[tuple[int, float]]
    """Indexes and scores, highest score first."""
    documents: Sequence[str]
    """The texts, if they are requested."""
    tokens: int
    mark: dict[str, bool]
    warnings: Sequence[str]


def _reply(exchange: Exchange, ranking: _Ranking) -> dict[str, Any]:
    """For clients of Cohere, Jina and Xinference."""
    results = [
        {
            "index": index,
            "relevance_score": score,
            **({"document": {"text": ranking.documents[index]}} if ranking.documents else {}),
        }
        for index, score in ranking.results
    ]
    return {
        "id": f"rerank-{exchange.context.request_id}",
        "model": exchange.endpoint.name,
        "results": results,
        "usage": {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens, **ranking.mark},
        "meta": {
            "api_version": {"version": "2"},
            "tokens": {"input_tokens": ranking.tokens, "output_tokens": 0},
            **({"warnings": ranking.warnings} if ranking.warnings else {}),
        },
    }


def _voyage_reply(exchange: Exchange, ranking: _Ranking) -> dict[str, Any]:
    data = [
        {
            "index": index,
            "relevance_score": score,
            **({"document": ranking.documents[index]} if ranking.documents else {}),
        }
        for index, score in ranking.results
    ]
    return {
        "object": "list",
        "data": data,
        "model": exchange.endpoint.name,
        "usage": {"total_tokens": ranking.tokens, **ranking.mark},
    }


def _refuse_unsupported(form: RerankForm) -> None:
    if form.kwargs not in (None, "", "{}"):
        raise InvalidRequest(
            "[kwargs] is not supported: they are options of Xinference's engines.", remedy="Omit them."
        )
    if form.rank_fields not in (None, [], ["text"]):
        raise InvalidRequest(
            "[rank_fields] is not supported: documents are ranked by their [text] alone.",
            remedy="Send each document as one text.",
        )
    if form.return_embeddings:
        raise InvalidRequest(
            "[return_embeddings] is not supported: the response has only scores.",
            remedy="Omit it, and use /v1/embeddings with an embedding model.",
        )


async def _shorten(exchange: Exchange, texts: Sequence[str], max_tokens: int | None) -> Sequence[str]:
    """Cut each text to `max_tokens`, unless the model cuts it shorter anyway.

    Raises:
        InvalidRequest: the endpoint has no tokenizer.
    """
    limit = exchange.endpoint.max_input_tokens or exchange.endpoint.facts.max_input_tokens
    if max_tokens is None or (limit is not None and limit <= max_tokens):
        return texts
    # A token has at least one byte.
    long = [place for place, text in enumerate(texts) if len(text.encode()) > max_tokens]
    if not long:
        return texts
    call_context = exchange.context.call_context()
    max_chars = max_tokens * _MAX_TOKEN_CHARS
    beginnings = [texts[place][:max_chars] for place in long]
    call = Tokenize(texts=beginnings, add_special_tokens=False, context=call_context)
    try:
        tokens = await exchange.gateway.inference.infer(exchange.endpoint.name, call)
    except InvalidRequest:
        if limit is None and all(estimate_tokens((texts[place],)) <= max_tokens for place in long):
            return texts
        raise InvalidRequest(
            f"[max_tokens_per_doc] cannot be {max_tokens}: this endpoint's server cannot tokenize documents.",
            remedy="Omit it, or send shorter documents.",
        ) from None
    assert isinstance(tokens, Tokens)  # noqa: S101 - Tokenize returns Tokens
    cut = {
        place: texts[place][: of_text[max_tokens - 1].stop if len(of_text) > max_tokens else max_chars]
        for place, of_text in zip(long, tokens.items, strict=True)
    }
    return [cut.get(place, text) for place, text in enumerate(texts)]


def _text(document: Any) -> Any:
    return document.get("text") if isinstance(document, dict) else document
