"""How long a chunk may be for its model to read all of it: measured when an endpoint is registered.

Chunks are counted in words and models in tokens, and how many tokens a word has depends on the model and the language.
So the model's own tokenizer is asked about a short text in each of many languages, and the worst of them counts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from hubgate.core.chunking import count_words
from hubgate.core.results import estimate_tokens, utf8_size
from hubgate.domain.calls import Embed, Tokenize, Tokens, Vectors
from hubgate.domain.chunking import MIN_CHUNK_SIZE, ChunkFit, ChunkingSettings
from hubgate.domain.endpoint import Endpoint, Source
from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Counter, Upstream
from hubgate.service.inference.samples import SAMPLES

PATIENCE = 5.0
_TOKENS_PER_WORD = 2.2
"""Where tokens cannot be counted: the most that texts of many languages have in a model that was trained on them."""
_MARGIN = 0.9
"""Of the room: a chunk may have longer words than the text on which its language was measured."""
_SPECIAL_TOKENS = 2
_SHORTEST = "a"
"""One token in every model."""
_BATCH = 32
_TELLING = frozenset({Source.LOCAL, Source.FAKE})
"""Where every cut is reported."""


async def fitted(
    endpoint: Endpoint, upstream: Upstream, counter: Counter | None = None, *, patience: float = PATIENCE
) -> Endpoint:
    """The endpoint with the chunk size that fits its model, and with a warning if its own does not.

    It never fails: where tokens cannot be counted, they are estimated.

    Args:
        endpoint: its facts are known, but for this.
        upstream: its model, which is asked directly.
        counter: what counts the model's tokens without asking it, if there is one.
        patience: seconds to count in.
    """
    limit = endpoint.token_limit
    if limit is None:
        return endpoint
    prefixes = endpoint.facts.prefixes if endpoint.prefixes is None else endpoint.prefixes
    fronts = sorted({"", *prefixes.values()})
    texts = [front + _SHORTEST for front in fronts] + list(SAMPLES.values())
    try:
        async with asyncio.timeout(patience):
            counts = await _counted(upstream, counter, texts, endpoint.facts.max_batch_texts or _BATCH, limit)
    except (HubgateError, TimeoutError):
        counts = None
    if counts is None:
        fit = _estimate(limit, fronts)
    else:
        fit = _fit(limit, counts[: len(fronts)], counts[len(fronts) :])
    known = replace(endpoint, facts=replace(endpoint.facts, chunk_fit=fit))
    warning = size_warning(known, known.chunking)
    if warning is None:
        return known
    return replace(known, facts=replace(known.facts, warnings=(*known.facts.warnings, warning)))


def size_warning(endpoint: Endpoint, settings: ChunkingSettings | None) -> str | None:
    """What to tell who cuts texts by these settings, if chunks can be longer than the endpoint's model reads."""
    fit = endpoint.facts.chunk_fit
    if settings is None or settings.max_chunk_size is None or fit is None:
        return None
    size = settings.max_chunk_size
    if size <= fit.words:
        return None
    return (
        f"Chunks of {size} words can be longer than the {endpoint.token_limit} tokens that the model reads, "
        f"and what is beyond is not in their vectors. {_proposal(fit, MIN_CHUNK_SIZE[settings.strategy])} "
        "Without chunking_settings, chunks are cut so that the model reads all of them."
    )


def blind_warning(endpoint: Endpoint, counter: Counter | None) -> str | None:
    """What to tell whose server may cut a long text without a word, if the gateway cannot see it either."""
    facts = endpoint.facts
    seen = endpoint.source in _TELLING or facts.auto_truncate is False
    if seen or (counter is not None and endpoint.token_limit is not None):
        return None
    remedy = (
        "Set [model] to the model's name on the Hub, so that hubgate can count its tokens."
        if counter is None
        else "Set [max_input_tokens]."
    )
    return (
        "Texts that are longer than the model reads may be cut without notice: the server does not report it, "
        f"and hubgate cannot see it. {remedy}"
    )


def _proposal(fit: ChunkFit, smallest: int) -> str:
    fits = f"max_chunk_size {fit.words} fits" if fit.words >= smallest else "No max_chunk_size surely fits"
    if fit.language is None:
        return f"{fits}, by an estimate: this server does not tell how many tokens a text has."
    return (
        f"{fits} all that was tried with the model's own tokenizer "
        f"(most tokens a word: {fit.language}); {fit.words_in_english} fits English."
    )


def _fit(limit: int, fronts: Sequence[int], samples: Sequence[int]) -> ChunkFit:
    """From the tokens of one-token texts (behind no prefix, then behind each), and of the samples."""
    special = fronts[0] - 1
    room = max(0, limit - (max(fronts) - 1)) * _MARGIN
    words = {
        language: math.floor(room * in_words / max(1, tokens - special))
        for (language, in_words), tokens in zip(_sample_words().items(), samples, strict=True)
    }
    worst = min(words, key=lambda language: words[language])
    return ChunkFit(words=words[worst], language=worst, words_in_english=words["English"])


def _estimate(limit: int, fronts: Sequence[str]) -> ChunkFit:
    longest = max(map(utf8_size, fronts))
    room = limit - _SPECIAL_TOKENS - estimate_tokens(longest, texts=0)
    return ChunkFit(words=max(0, math.floor(room / _TOKENS_PER_WORD)))


@cache
def _sample_words() -> Mapping[str, int]:
    return {language: count_words(text) for language, text in SAMPLES.items()}


async def _counted(
    upstream: Upstream, counter: Counter | None, texts: Sequence[str], batch: int, limit: int
) -> Sequence[int] | None:
    """The tokens of each text, special ones included; `None` where nobody tells."""
    counts = await counter(texts, None) if counter else None
    if counts is not None:
        return counts
    try:
        return await _by_tokenizing(upstream, texts, batch)
    except HubgateError:
        return await _by_usage(upstream, texts, limit)


async def _by_tokenizing(upstream: Upstream, texts: Sequence[str], batch: int) -> Sequence[int]:
    counts: list[int] = []
    for start in range(0, len(texts), batch):
        tokens = await upstream(Tokenize(texts=texts[start : start + batch]))
        assert isinstance(tokens, Tokens)  # noqa: S101 - a Tokenize is answered with Tokens
        counts += map(len, tokens.items)
    return counts


async def _by_usage(upstream: Upstream, texts: Sequence[str], limit: int) -> Sequence[int] | None:
    """One request a text: of several, servers tell but the sum. What fills the model may have been cut to it."""
    counts = []
    for text in texts:
        vectors = await upstream(Embed(texts=(text,), truncate=False, cached=False))
        assert isinstance(vectors, Vectors)  # noqa: S101 - an Embed is answered with Vectors
        if vectors.tokens is None or not vectors.exact or vectors.tokens >= limit:
            return None
        counts.append(vectors.tokens)
    return counts
