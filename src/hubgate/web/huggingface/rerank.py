"""Reranking, classification of pairs and sparse embeddings, as TEI and Hugging Face's toolkit serve them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from hubgate.core.off_loop import off_loop, total
from hubgate.domain.calls import Rerank, Scores, SparseEmbed, SparseVectors
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.asgi import decode
from hubgate.web.http.request_context import SPARSE_REPLY_BYTES
from hubgate.web.shared.embeddings import MAX_TEXTS, Inputs, parse_texts
from hubgate.web.shared.exchange import Exchange, all_or_none
from hubgate.web.shared.rerank import rerank, top_ranked

LABEL = "LABEL_0"
"""The name in transformers of a reranker's only class."""


class _QueryAndTexts(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    texts: list[Any]


class _RerankForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """TEI's body, or the toolkit's, which has both in `inputs`. Elasticsearch also sends `top_n`."""

    query: str | None = None
    texts: list[Any] | None = None
    inputs: _QueryAndTexts | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    top_n: int | None = None
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None
    parameters: Any = None
    options: Any = None
    model: Any = None


class _PredictForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    inputs: str | list[Any]
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None


class _SparseForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None
    prompt_name: None = None
    parameters: Any = None
    options: Any = None
    model: Any = None


_RANK = msgspec.json.Decoder(_RerankForm)
_PREDICT = msgspec.json.Decoder(_PredictForm)
_SPARSE = msgspec.json.Decoder(_SparseForm)
_WEIGHTS = msgspec.json.Decoder(dict[str, float])


async def handle_ranks(exchange: Exchange, body: bytes) -> None:
    """`[{"index", "score", "text"?}, …]`, highest score first."""
    form = decode(body, _RANK)
    query, documents = (form.inputs.query, form.inputs.texts) if form.inputs else (form.query, form.texts)
    if query is None or documents is None:
        raise InvalidRequest("[query] and [texts] are required.", remedy="Send a text and a list of texts.")
    texts = parse_texts(documents, "texts")
    scores = await rerank(exchange, _call(exchange, form, query, texts), form.top_n)
    ranks = [
        {"index": index, "score": score, **({"text": texts[index]} if form.return_text else {})}
        for index, score in top_ranked(scores, form.top_n)
    ]
    await exchange.respond(msgspec.json.encode(ranks))


async def handle_predict(exchange: Exchange, body: bytes) -> None:
    """The score of a pair as that of a class, `[{"score", "label"}]`; for a list of pairs a list of these."""
    form = decode(body, _PREDICT)
    pairs, single = _pairs(form.inputs)
    for texts in pairs if single else zip(*pairs, strict=True):
        parse_texts(list(texts), "inputs")
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)

    async def score_query(query: str, of: Sequence[int]) -> Scores:
        return await rerank(exchange, _call(exchange, form, query, [pairs[place][1] for place in of]))

    groups = await all_or_none(score_query(query, of) for query, of in places.items())
    reply: list[list[dict[str, Any]]] = [[] for _ in pairs]
    for of, scores in zip(places.values(), groups, strict=True):
        for place, score in zip(of, scores.items, strict=True):
            reply[place] = [{"score": score, "label": LABEL}]
    await exchange.respond(msgspec.json.encode(reply[0] if single else reply))


async def handle_sparse(exchange: Exchange, body: bytes) -> None:
    """`[{"token": weight, …}, …]`: the format of `POST /` of a sparse model, which Elasticsearch reads."""
    items = (await _sparse(exchange, body)).items
    await exchange.respond(b"[%b]" % await off_loop(total(items), b",".join, items))


async def handle_sparse_as_tei(exchange: Exchange, body: bytes) -> None:
    """`[[{"index", "value"}, …], …]`; `index` is a token's text if the server returns texts instead of ids."""
    vectors = await _sparse(exchange, body)
    await exchange.respond(await off_loop(total(vectors.items), _as_tei, vectors))


def _as_tei(vectors: SparseVectors) -> bytes:
    rows = [
        [{"index": _index(word), "value": weight} for word, weight in _WEIGHTS.decode(item).items()]
        for item in vectors.items
    ]
    return msgspec.json.encode(rows)


async def _sparse(exchange: Exchange, body: bytes) -> SparseVectors:
    form = decode(body, _SPARSE)
    texts = parse_texts(form.inputs, "inputs")
    call = SparseEmbed(texts=texts, truncate=form.truncate, context=exchange.context.call_context())
    await exchange.context.reserve(len(call.texts) * SPARSE_REPLY_BYTES)
    vectors = await exchange.gateway.inference.embed_sparse(exchange.endpoint.name, call)
    exchange.record(texts=len(texts), tokens=vectors.tokens, waited=vectors.waited)
    return vectors


def _call(exchange: Exchange, form: _RerankForm | _PredictForm, query: str, texts: Sequence[str]) -> Rerank:
    return Rerank(
        query=query,
        texts=texts,
        truncate=form.truncate,
        raw_scores=form.raw_scores,
        context=exchange.context.call_context(),
    )


def _index(word: str) -> int | str:
    return int(word) if word.isascii() and word.isdigit() else word


def _pairs(inputs: str | list[Any]) -> tuple[list[tuple[str, str]], bool]:
    """The pairs, and whether the request is a single pair."""
    if isinstance(inputs, list) and len(inputs) > MAX_TEXTS:
        parse_texts(inputs, "inputs")  # raises, before anything is done with each pair
    single = isinstance(inputs, list) and len(inputs) == 2 and all(isinstance(part, str) for part in inputs)
    try:
        pairs = msgspec.convert([inputs] if single else inputs, list[tuple[str, str]])
    except msgspec.ValidationError:
        pairs = []
    if not pairs:
        raise InvalidRequest(
            "[inputs] must be a pair of texts or a list of pairs: this endpoint's model scores pairs.",
            remedy='Send ["query", "text"].',
        )
    return pairs, single
