"""The servers that rank, one row each, and every shape in which they are known to say their scores.

[{"index", "score"}]                         TEI, the toolkit, SGLang
{"results": [{"index", "relevance_score"}]}  vLLM, llama.cpp, infinity, Cohere
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.endpoint import Engine
from hubgate.domain.errors import Cause, InvalidRequest, UpstreamUnreadable
from hubgate.upstreams.engines.embedders import Counts, header_count, json_request
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

RERANK_ROUTE = "/v1/rerank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """One way to ask for scores."""

    route: str
    """Below the base URL."""
    body: Callable[[Rerank, str | None], dict[str, object]]
    counts: Counts = Counts.CLAIMED
    raw: bool | None = False
    """Whether its scores are raw, so that they are squeezed here; `None` if it does as it is told."""


class _Score(msgspec.Struct):
    index: int
    score: float | None = None
    relevance_score: float | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Results(msgspec.Struct):
    results: list[_Score]
    usage: _Usage | None = None


_LIST = msgspec.json.Decoder(list[_Score])
_RESULTS = msgspec.json.Decoder(_Results)


def _tei(call: Rerank, model: str | None) -> dict[str, object]:  # noqa: ARG001 - it serves one model
    return {
        "query": call.query,
        "texts": list(call.texts),
        "raw_scores": bool(call.raw_scores),
        "return_text": False,
        "truncate": call.truncate is not False,
    }


def _documents(call: Rerank, model: str | None) -> dict[str, object]:
    named = {"model": model} if model else {}
    return {**named, "query": call.query, "documents": list(call.texts)}


def _infinity(call: Rerank, model: str | None) -> dict[str, object]:
    return {**_documents(call, model), "raw_scores": bool(call.raw_scores)}


def _vllm(call: Rerank, model: str | None) -> dict[str, object]:
    cut = {"truncate_prompt_tokens": -1} if call.truncate is not False else {}
    return {**_documents(call, model), **cut}


def sentence_ranking(call: Rerank, model: str | None) -> dict[str, object]:  # noqa: ARG001
    """The toolkit's task of this name."""
    return {"inputs": {"query": call.query, "texts": list(call.texts)}}


RANKERS: Mapping[Engine, Ranker] = {
    Engine.TEI: Ranker(route="/rerank", body=_tei, counts=Counts.EXACT, raw=None),
    Engine.VLLM: Ranker(route=RERANK_ROUTE, body=_vllm, counts=Counts.EXACT),
    Engine.SGLANG: Ranker(route=RERANK_ROUTE, body=_documents),
    Engine.LLAMACPP: Ranker(route=RERANK_ROUTE, body=_documents, counts=Counts.EXACT, raw=True),
    Engine.INFINITY: Ranker(route=RERANK_ROUTE, body=_infinity, counts=Counts.WRONG, raw=None),
    Engine.TOOLKIT: Ranker(route="", body=sentence_ranking),
    Engine.OPENAI: Ranker(route=RERANK_ROUTE, body=_documents),
}


def ranker_of(engine: Engine, model: str | None) -> Ranker:
    """How an engine is asked for scores; of Qwen3's rerankers llama.cpp gives probabilities, not raw scores."""
    ranker = RANKERS[engine]
    if engine is Engine.LLAMACPP and "qwen3" in (model or "").lower():
        return replace(ranker, raw=False)
    return ranker


def rerank_request(ranker: Ranker, url: str, model: str | None, call: Rerank) -> HttpRequest:
    """The request for one call to the route at `url`.

    Raises:
        InvalidRequest: the call wants raw scores of a server that has none.
    """
    if call.raw_scores and ranker.raw is False:
        raise InvalidRequest(
            "This endpoint's server squeezes its scores between 0 and 1, so [raw_scores] cannot be honoured.",
            remedy="Leave [raw_scores] out.",
        )
    return json_request(url, ranker.body(call, model))


def read_scores(ranker: Ranker, call: Rerank, reply: HttpReply) -> Scores:
    """The scores of a call, out of the server's reply, in the order of the texts.

    Raises:
        UpstreamUnreadable: the reply does not hold one finite score for each text.
    """
    if reply.is_html:
        raise UpstreamUnreadable(
            "The server sent a web page, not scores.",
            remedy="Check the URL: it must be the model server's own, not a page about it or a log-in.",
            cause=Cause.NOT_AN_API,
        )
    try:
        scores, tokens = _scores(reply)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamUnreadable(
            "The server's reply holds no scores in any known shape.",
            remedy="Check that its model ranks texts; a custom handler must answer as one of the servers does.",
        ) from error
    placed = {score.index: _number(score) for score in scores}
    if len(scores) != len(call.texts) or set(placed) != set(range(len(call.texts))):
        raise UpstreamUnreadable(
            f"The server sent {len(scores)} scores for {len(call.texts)} texts, or numbered them wrongly.",
            remedy="A proxy or a custom handler may drop or merge inputs; ask the server directly to compare.",
            cause=Cause.WRONG_COUNT,
        )
    known = tokens if tokens is not None else header_count(reply)
    known = None if ranker.counts is Counts.WRONG else known
    items = [placed[place] for place in range(len(call.texts))]
    return Scores(
        items=[_sigmoid(item) for item in items] if ranker.raw and not call.raw_scores else items,
        tokens=known,
        exact=known is not None and ranker.counts is Counts.EXACT,
        quota=quota(reply.headers),
    )


def _scores(reply: HttpReply) -> tuple[list[_Score], int | None]:
    if reply.body.lstrip()[:1] == b"[":
        return _LIST.decode(reply.body), None
    results = _RESULTS.decode(reply.body)
    usage = results.usage or _Usage()
    return results.results, usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens


def _sigmoid(number: float) -> float:
    """Between 0 and 1, as text-embeddings-inference squeezes the scores of the same models."""
    if number >= 0:
        return 1 / (1 + math.exp(-number))
    grown = math.exp(number)
    return grown / (1 + grown)


def _number(score: _Score) -> float:
    number = score.score if score.relevance_score is None else score.relevance_score
    if number is None:
        raise UpstreamUnreadable(
            "The server sent a score that is no number.",
            remedy="Its model may overflow in half precision: start it with another one.",
            cause=Cause.NOT_A_NUMBER,
        )
    return number
