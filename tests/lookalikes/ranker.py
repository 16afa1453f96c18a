"""The scores that every look-alike computes, and the formats in which servers send them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, token_count

if TYPE_CHECKING:
    from lookalikes.model import Model, ReceivedRequest


def score_of(query: str, text: str, *, raw: bool = False) -> float:
    """The share of the query's words in the text; raw is its logit, clamped."""
    words = query.lower().split()
    share = sum(word in text.lower().split() for word in words) / len(words)
    kept = min(max(share, 0.01), 0.99)
    return math.log(kept / (1 - kept)) if raw else kept


def ranked(query: str, texts: list[str], *, raw: bool = False) -> list[tuple[int, float]]:
    """Indices and scores, best first."""
    scores = [(place, score_of(query, text, raw=raw)) for place, text in enumerate(texts)]
    return sorted(scores, key=lambda score: -score[1])


def results(model: Model, request: ReceivedRequest, *, raw: bool = False) -> Answer:
    """In the format of Cohere and vLLM."""
    if request.field("documents") is None or request.field("query") is None:
        words = "1 validation error: {'type': 'missing', 'loc': 'body.documents', 'msg': 'Field required'}"
        return Answer(400, {"error": {"message": words, "type": "Bad Request", "code": 400}})
    query, texts = request.field("query"), request.texts
    tokens = sum(token_count(query) + token_count(text) - 1 for text in texts)
    said: list[dict[str, Any]] = [
        {"index": place, "relevance_score": score, "document": {"text": texts[place]}}
        for place, score in ranked(query, texts, raw=raw)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"id": "score-1", "model": model.name, "usage": usage, "results": said})


def pairs(query: str, texts: list[str], *, raw: bool = False) -> list[dict[str, Any]]:
    """In the format of TEI and the toolkit."""
    return [{"index": place, "score": score} for place, score in ranked(query, texts, raw=raw)]
