"""Tokens are counted when a reply has no exact number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hubgate.core.token_counts import TokenCountStep
from hubgate.domain.calls import Embed, Encoding, Tokenize, Tokens, Vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Call, Result

TEXTS = ["one", "one two three", "one two three four five six"]


class Words:
    """Counts words as tokens."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []

    async def __call__(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        self.asked.append(texts)
        return [len(text.split()) for text in texts]


async def nobody(texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
    return None


def answering(result: Result) -> type:
    class Answer:
        async def __call__(self, call: Call) -> Result:
            return result

    return Answer


def vectors(
    *, tokens: int | None = None, exact: bool = False, truncated: int | None = None, waited: float = 0.0
) -> Vectors:
    return Vectors(
        items=[b"[1]"] * len(TEXTS),
        encoding=Encoding.JSON,
        tokens=tokens,
        exact=exact,
        truncated=truncated,
        warnings=("mind",),
        waited=waited,
    )


async def counted(
    result: Vectors, *, limit: int | None = None, prompt_name: str | None = None, may_truncate: bool = True
) -> tuple[Vectors, Words]:
    words = Words()
    counting = TokenCountStep(answering(result)(), words, limit=limit, may_truncate=may_truncate)
    got = await counting(Embed(texts=TEXTS, prompt_name=prompt_name))
    assert isinstance(got, Vectors)
    return got, words


@pytest.mark.parametrize("claimed", [None, 7])
async def test_counts_tokens_per_text_when_count_is_not_exact(claimed: int | None) -> None:
    got, words = await counted(vectors(tokens=claimed, waited=2.5))
    assert (got.text_tokens, got.tokens, got.exact) == ([1, 3, 6], 10, True)
    assert (got.truncated, got.text_truncated) == (None, None)
    assert (got.items, got.warnings, got.waited) == ([b"[1]"] * 3, ("mind",), 2.5)
    assert words.asked == [TEXTS]


async def test_caps_counts_at_the_model_limit_and_reports_truncation() -> None:
    got, _ = await counted(vectors(), limit=3)
    assert (got.text_tokens, got.tokens, got.exact) == ([1, 3, 3], 7, True)
    assert (got.text_truncated, got.truncated) == ([False, False, True], 1)


async def test_keeps_truncated_count_of_the_engine() -> None:
    got, _ = await counted(vectors(truncated=0), limit=3)
    assert (got.text_tokens, got.exact) == ([1, 3, 3], True)
    assert (got.text_truncated, got.truncated) == (None, 0)


@pytest.mark.parametrize(
    ("result", "limit", "may_truncate"),
    [
        (vectors(tokens=99, exact=True, truncated=1), 3, True),
        (vectors(tokens=99, exact=True), None, True),
        (vectors(tokens=99, exact=True), 3, False),
    ],
    ids=["the server tells of cuts", "no limit is known", "the server refuses what is too long"],
)
async def test_returns_exact_result_without_counting(
    result: Vectors, limit: int | None, may_truncate: bool
) -> None:
    got, words = await counted(result, limit=limit, may_truncate=may_truncate)
    assert got is result
    assert words.asked == []


async def test_counts_only_long_texts_to_find_truncation_of_an_exact_result() -> None:
    got, words = await counted(vectors(tokens=9, exact=True), limit=3)
    assert (got.tokens, got.text_tokens) == (9, None)
    assert (got.text_truncated, got.truncated) == ([False, False, True], 1)
    assert words.asked == [TEXTS]
    got, words = await counted(vectors(tokens=19, exact=True), limit=20)
    assert (got.text_truncated, got.truncated) == ([False] * 3, 0)
    assert words.asked == [], "all of them together have fewer tokens than one may have"
    got, words = await counted(vectors(tokens=20, exact=True), limit=20)
    assert words.asked == [TEXTS[1:]], "in no text a token has less than a character"
    result = vectors(tokens=9, exact=True)
    assert await TokenCountStep(answering(result)(), nobody, limit=3)(Embed(texts=TEXTS)) is result


async def test_does_not_count_when_the_server_adds_a_prompt() -> None:
    result = vectors()
    got, words = await counted(result, prompt_name="query")
    assert got is result
    assert words.asked == []


async def test_result_stays_inexact_without_a_counter() -> None:
    result = vectors(tokens=12)
    assert await TokenCountStep(answering(result)(), nobody, limit=3)(Embed(texts=TEXTS)) is result


async def test_passes_tokenize_results_through() -> None:
    tokens = Tokens(items=[[]])
    assert await TokenCountStep(answering(tokens)(), nobody, limit=3)(Tokenize(texts=["a"])) is tokens
