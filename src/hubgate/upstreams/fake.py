"""Deterministic vectors and scores without a model or a network, for demonstrations and tests.

A vector is a bag of words: each word adds 1 or -1 at four positions that its hash determines. Texts that share words
are similar, so that a search finds something.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from hashlib import blake2b

from hubgate import __version__
from hubgate.core.vectors import f32, l2_normalize
from hubgate.domain.calls import Call, Embed, Encoding, Rerank, Result, Scores, Token, Tokens, Vectors
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Target
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.ports import TextGenerator

DEFAULT_DIMENSIONS = 384
_MAX_CHARACTERS = 32_768
"""Longer texts are truncated, as by any model."""
_WORD = re.compile(r"\S+")
_WORD_OR_LETTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class FakeUpstream:
    """A fake model. Implements `domain.ports.Upstream`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._dimensions = endpoint.dimensions or DEFAULT_DIMENSIONS

    async def __call__(self, call: Call) -> Result:
        """Vectors in f32, scores, or tokens: one per word, none of them special."""
        if isinstance(call, Rerank):
            return _scores(call)
        if not isinstance(call, Embed):
            return Tokens([_tokens(text) for text in call.texts])
        dimensions, normalize = call.dimensions or self._dimensions, call.normalize is not False
        items, words, since = [], [], 0
        for text in call.texts:
            part = text[:_MAX_CHARACTERS]
            since += len(part)
            if since > _MAX_CHARACTERS:  # lets other tasks run
                since = len(part)
                await asyncio.sleep(0)
            items.append(_vector(part, dimensions, normalize=normalize))
            words.append(len(part.split()))
        cut = [len(text) > _MAX_CHARACTERS for text in call.texts]
        return Vectors(
            items=items,
            encoding=Encoding.F32,
            tokens=sum(words),
            exact=True,
            truncated=sum(cut),
            text_tokens=words,
            text_truncated=cut,
        )

    async def close(self) -> None:
        """Does nothing."""


class FakeSource:
    """Opens fake upstreams."""

    async def detect(self, target: Target) -> Facts:
        """The facts of a fake model."""
        endpoint = target.endpoint
        return Facts(
            engine=Engine.FAKE,
            engine_version=__version__,
            model=endpoint.model or "fake",
            dimensions=endpoint.dimensions or DEFAULT_DIMENSIONS,
            auto_truncate=False,
            pooling="words",
        )

    def open(self, target: Target) -> FakeUpstream:
        """The upstream of a fake endpoint."""
        return FakeUpstream(target.endpoint)

    def open_generator(self, target: Target) -> TextGenerator:
        """Fake models do not generate text.

        Raises:
            InvalidEndpoint: always.
        """
        task = target.endpoint.task
        raise InvalidEndpoint(f"A fake endpoint only makes embeddings and reranks; it does not do {task}.")

    async def close(self) -> None:
        """Does nothing."""


def _scores(call: Rerank) -> Scores:
    """The share of the query's words in each text. Where words are not written apart, a letter is a word."""
    asked, found = _words(call.query), [_words(text) for text in call.texts]
    items = [len(asked & words) / max(1, len(asked)) for words in found]
    return Scores(items=items, tokens=sum(len(asked) + len(words) for words in found), exact=True)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD_OR_LETTER.findall(text[:_MAX_CHARACTERS].lower()))


def _vector(text: str, dimensions: int, *, normalize: bool) -> bytes:
    numbers = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        for position, sign in _positions(word):
            numbers[position % dimensions] += sign
    if not any(numbers):  # all words cancel each other out
        numbers[0] = 1.0
    return l2_normalize(f32(numbers)) if normalize else f32(numbers)


def _positions(word: str) -> Iterator[tuple[int, float]]:
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    for start in range(0, 16, 4):
        number = int.from_bytes(digest[start : start + 4], "little")
        yield number >> 1, 1.0 if number & 1 else -1.0


def _tokens(text: str) -> list[Token]:
    return [
        Token(
            next(_positions(found[0]))[0] % 30_000,
            found[0],
            special=False,
            start=found.start(),
            stop=found.end(),
        )
        for found in _WORD.finditer(text)
    ]
