"""Ranks and weights of words as Elasticsearch shows them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.endpoint import Endpoint
from hubgate.web.elastic.calls import InferenceForm
from hubgate.web.shared.rerank import best


def ranks_body(endpoint: Endpoint, form: InferenceForm, call: Rerank, scores: Scores) -> bytes:
    """`{"rerank": [{"index", "relevance_score", "text"?}, …]}`: what a request does not say, its endpoint does."""
    top_n = endpoint.top_n if form.top_n is None else form.top_n
    with_texts = endpoint.return_documents if form.return_documents is None else form.return_documents
    ranks = [
        {"index": index, "relevance_score": score, **({"text": call.texts[index]} if with_texts else {})}
        for index, score in best(scores, top_n)
    ]
    return msgspec.json.encode({"rerank": ranks})


def sparse_body(items: Sequence[bytes]) -> bytes:
    """`{"sparse_embedding": [{"is_truncated", "embedding": {word: weight}}, …]}` around weights that are JSON already.

    No engine says whether a text was cut.
    """
    told = (b'{"is_truncated":false,"embedding":%b}' % item for item in items)
    return b'{"sparse_embedding":[%b]}' % b",".join(told)
