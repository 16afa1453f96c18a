"""Checks at registration that a reranker ranks, and finds out how it must be asked.

A reranker that gets the wrong prompt fails nowhere: it returns scores in an order that means nothing. So each must
rank three questions and their answers, in each of three languages.

A reranker is accepted if it puts all three English answers first, or seven of all nine answers. The questions and the
answers share words, so a reranker for another language alone, such as Japanese, ranks the English ones, too; and an
English one need not know Chinese. One that ranks at random is accepted once in 22 registrations: three English answers
in a row succeed once in 27, seven of nine once in 120.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hubgate.core.rerank_templates import RerankTemplate, rerank_template, templated
from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source
from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.domain.ports import Handler
from hubgate.service.inference.pipeline import takes_instruction
from hubgate.upstreams.engines.rerank import RerankRoute, sigmoid
from hubgate.upstreams.engines.specs import spec_of

QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "English": {
        "What is the capital of France?": "Paris is the capital of France.",
        "How do plants make sugar from sunlight?": "Plants make sugar from sunlight by photosynthesis.",
        "When was the telephone invented?": "The telephone was invented in 1876.",
    },
    "Chinese": {
        "法国的首都是哪里？": "法国的首都是巴黎。",
        "植物如何利用阳光制造糖分？": "植物通过光合作用，利用阳光制造糖分。",
        "电话是什么时候发明的？": "电话是在1876年发明的。",
    },
    "Spanish": {
        "¿Cuál es la capital de Francia?": "París es la capital de Francia.",
        "¿Cómo producen azúcar las plantas con la luz del sol?": "Las plantas producen azúcar con la luz del sol mediante la fotosíntesis.",
        "¿Cuándo se inventó el teléfono?": "El teléfono se inventó en 1876.",
    },
}
"""By language: questions and their answers."""
_FIRST_LANGUAGE = "English"
_ENOUGH_ANSWERS = 7
_BARE = Rerank(query="a", texts=("b",))
_MAX_BARE_TOKENS = 6
"""Of `_BARE`: two tokens and the special tokens of any model. Each template adds more than that."""


@dataclass(frozen=True, slots=True)
class _Ranking:
    """How a model ranked, with one way of asking."""

    template: RerankTemplate | None
    first: Mapping[str, int]
    """By language: how many answers were ranked first."""
    margin: float
    """By how much the answers lead, over all questions; scores are between 0 and 1."""
    raw: bool
    """Whether a score is not between 0 and 1."""

    @property
    def total(self) -> int:
        return sum(self.first.values())

    @property
    def ranks(self) -> bool:
        is_complete = self.first[_FIRST_LANGUAGE] == len(QUESTIONS[_FIRST_LANGUAGE])
        return is_complete or self.total >= _ENOUGH_ANSWERS


async def probe_reranker(endpoint: Endpoint, answer: Handler) -> Facts:
    """Ask a reranker the questions; returns the facts with what its replies show.

    Raises:
        InvalidEndpoint: it ranks at random, or cannot follow the endpoint's instruction.
        HubgateError: it does not answer.
    """
    facts = endpoint.facts
    route = spec_of(endpoint.engine or facts.engine).rerank or RerankRoute(path="", body=lambda *_: {})
    route = route.for_model(facts.model or endpoint.model)  # as it was opened
    template = rerank_template(endpoint.repository, facts.model)
    templates = await _templates_to_try(endpoint, answer, route, template)
    rankings = [await _rank(answer, each, raw=bool(route.raw)) for each in templates]
    best = max(rankings, key=lambda ranking: (ranking.total, ranking.margin))
    if not best.ranks:
        raise _at_random(endpoint, template, best)
    if endpoint.source is not Source.LOCAL:
        facts = replace(
            facts,
            rerank_template=best.template.name if best.template else None,
            raw_scores=best.raw if route.raw is not None else None,
        )
    endpoint = replace(endpoint, facts=facts)
    if endpoint.instruction and not takes_instruction(endpoint):
        raise InvalidEndpoint(
            "The model does not follow instructions, or its server does not accept any.",
            remedy="Remove [instruction]. If the model follows instructions, set [model] to its name on the Hub.",
        )
    weak = [language for language, first in best.first.items() if first < len(QUESTIONS[language])]
    warning = f"The reranker did not rank the test questions in {' and '.join(weak)} correctly."
    return replace(facts, warnings=(*facts.warnings, warning)) if weak else facts


async def _templates_to_try(
    endpoint: Endpoint, answer: Handler, route: RerankRoute, template: RerankTemplate | None
) -> tuple[RerankTemplate | None, ...]:
    """Without a template, or with it, or both if it is not known whether the server writes it.

    A server that writes it reads more tokens than it was sent.
    """
    if template is None or endpoint.source is Source.LOCAL or route.has_own_templates:
        return (None,)
    scores = await answer(_BARE)
    assert isinstance(scores, Scores)  # noqa: S101 - the result of a Rerank
    if scores.tokens is None or not scores.exact:
        return (None, template)
    return (None,) if scores.tokens > _MAX_BARE_TOKENS else (template,)


async def _rank(answer: Handler, template: RerankTemplate | None, *, raw: bool) -> _Ranking:
    first, margin, scores = dict.fromkeys(QUESTIONS, 0), 0.0, list[float]()
    for language, pairs in QUESTIONS.items():
        for place, question in enumerate(pairs):
            call = Rerank(query=question, texts=tuple(pairs.values()), raw_scores=raw or None)
            result = await answer(templated(call, template) if template else call)
            assert isinstance(result, Scores)  # noqa: S101 - the result of a Rerank
            right, *wrong = result.items[place], *result.items[:place], *result.items[place + 1 :]
            first[language] += right > max(wrong)
            margin += sigmoid(right) - sigmoid(max(wrong))
            scores += result.items
    return _Ranking(template, first, margin, not all(0 <= score <= 1 for score in scores))


def _at_random(endpoint: Endpoint, template: RerankTemplate | None, ranking: _Ranking) -> InvalidEndpoint:
    asked = sum(map(len, QUESTIONS.values()))
    if endpoint.source is Source.LOCAL:
        remedy = "Its files may lack the trained weights of its scoring head: choose another model."
    elif endpoint.facts.engine is Engine.LLAMACPP:
        remedy = (
            "Convert the model with a current convert_hf_to_gguf.py, which stores its template and its scoring head, or "
            "download such a GGUF, and start the server with --reranking."
        )
    elif template is None:
        remedy = (
            "If it is a language model, set [model] to its name on the Hub, such as Qwen/Qwen3-Reranker-0.6B, so that "
            "hubgate writes its prompt. Otherwise check that the server runs a reranker."
        )
    elif ranking.template is None:
        remedy = "The server writes the prompt itself: start it with the template of this model."
    else:
        remedy = "Check that the server scores with the right tokens: see docs/models.md for how to start it."
    return InvalidEndpoint(
        f"The reranker ranks at random: it put the right answer first for {ranking.total} of {asked} test questions.",
        remedy=remedy,
        cause=Cause.RANKS_AT_RANDOM,
    )
