"""Routes for reranking: what each family of servers takes, and how to read the scores.

[{"index", "score"}]                         TEI, the toolkit, SGLang
{"results": [{"index", "relevance_score"}]}  vLLM, llama.cpp, infinity, Cohere
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.errors import Cause, InvalidRequest, UpstreamUnreadable
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.engines.routes import REPLY_OVERHEAD, ReportedTokens, counted_tokens, json_request
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

COHERE_RERANK = "/v1/rerank"
_BYTES_PER_SCORE = 512
_BYTES_PER_ESCAPED_BYTE = 6


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRoute:
    """One route for scores. Implements `TextRoute`."""

    path: str
    body: Callable[[Rerank, str | None], dict[str, object]]
    reported_tokens: ReportedTokens = ReportedTokens.UNVERIFIED
    raw: bool | None = False
    """Whether its scores are raw logits, which the gateway maps to 0 to 1; `None` if the request decides."""
    models_with_probabilities: str = ""
    """A word in the names of models whose scores are between 0 and 1, although those of others are raw. For endpoints
    whose scores were not measured."""
    has_own_templates: bool = False
    """Whether it reads the model's template from the model's file, so that hubgate must not write another around it."""
    instruction_field: str | None = None
    """Its field for an instruction, which its own template needs."""

    def for_model(self, model: str | None, raw_scores: bool | None = None) -> RerankRoute:
        """The route as it works for one model. `raw_scores` is what was measured at registration."""
        if raw_scores is not None and self.raw is not None:
            return replace(self, raw=raw_scores)
        word = self.models_with_probabilities
        return replace(self, raw=False) if word and word in (model or "").lower() else self

    def request(self, url: str, model: str | None, call: Rerank) -> HttpRequest:
        if call.raw_scores and self.raw is False:
            raise InvalidRequest(
                "This endpoint's server returns scores between 0 and 1 only, so [raw_scores] cannot be honoured.",
                remedy="Leave [raw_scores] out.",
            )
        body = self.body(call, model)
        if call.instruction and self.instruction_field:
            body = {**body, self.instruction_field: call.instruction}
        return json_request(url, body)

    def max_reply_bytes(self, call: Rerank, request: HttpRequest, dimensions: int | None) -> int:
        """See `TextRoute`. Some servers return the texts, with every byte escaped at worst."""
        del dimensions
        return (
            REPLY_OVERHEAD + len(call.texts) * _BYTES_PER_SCORE + len(request.body) * _BYTES_PER_ESCAPED_BYTE
        )

    def read(self, call: Rerank, reply: HttpReply) -> Scores:
        """See `TextRoute`. The scores are in the order of the texts."""
        if reply.is_html:
            raise UpstreamUnreadable(
                "The server sent a web page instead of scores.",
                remedy="Check the URL: it must be the model server's own, not a page about it or a login page.",
                cause=Cause.NOT_AN_API,
            )
        try:
            scores, reported = _scores(reply)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamUnreadable(
                "The server's reply contains no scores in any known format.",
                remedy="Check that its model ranks texts; a custom handler must reply as one of the servers does.",
            ) from error
        by_index = {score.index: _number(score) for score in scores}
        if len(scores) != len(call.texts) or set(by_index) != set(range(len(call.texts))):
            raise UpstreamUnreadable(
                f"The server sent {len(scores)} scores for {len(call.texts)} texts, or numbered them wrongly.",
                remedy="A proxy or a custom handler may drop or merge inputs; call the server directly to compare.",
                cause=Cause.WRONG_COUNT,
            )
        tokens, exact = counted_tokens(reply, reported, self.reported_tokens)
        items = [by_index[index] for index in range(len(call.texts))]
        return Scores(
            items=[sigmoid(item) for item in items] if self.raw and not call.raw_scores else items,
            tokens=tokens,
            exact=exact,
            quota=quota(reply.headers),
        )


def _scores(reply: HttpReply) -> tuple[list[_Score], int | None]:
    if reply.body.lstrip()[:1] == b"[":
        return _LIST.decode(reply.body), None
    results = _RESULTS.decode(reply.body)
    usage = results.usage or _Usage()
    return results.results, usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens


def sigmoid(number: float) -> float:
    """A raw score as a number between 0 and 1."""
    if number >= 0:
        return 1 / (1 + math.exp(-number))
    power = math.exp(number)  # of a negative number: math.exp overflows for large ones
    return power / (1 + power)


def _number(score: _Score) -> float:
    number = score.score if score.relevance_score is None else score.relevance_score
    if number is None:
        raise UpstreamUnreadable(
            "The server sent a score that is not a number.",
            remedy="Its model may overflow in half precision: start it with another precision.",
            cause=Cause.NOT_A_NUMBER,
        )
    return number


def tei_body(call: Rerank, model: str | None) -> dict[str, object]:  # noqa: ARG001 - it serves one model
    """`POST /rerank` of TEI."""
    return {
        "query": call.query,
        "texts": list(call.texts),
        "raw_scores": bool(call.raw_scores),
        "return_text": False,
        "truncate": call.truncate is not False,
    }


def cohere_body(call: Rerank, model: str | None) -> dict[str, object]:
    """`POST /v1/rerank` in Cohere's format."""
    named = {"model": model} if model else {}
    return {**named, "query": call.query, "documents": list(call.texts)}


def infinity_body(call: Rerank, model: str | None) -> dict[str, object]:
    """As Cohere's, with a choice of raw scores."""
    return {**cohere_body(call, model), "raw_scores": bool(call.raw_scores)}


def vllm_body(call: Rerank, model: str | None) -> dict[str, object]:
    """As Cohere's, with truncation on request."""
    truncate = {"truncate_prompt_tokens": -1} if call.truncate is not False else {}
    return {**cohere_body(call, model), **truncate}


def toolkit_body(call: Rerank, model: str | None) -> dict[str, object]:  # noqa: ARG001 - it serves one model
    """The toolkit's task sentence-ranking."""
    return {"inputs": {"query": call.query, "texts": list(call.texts)}}
