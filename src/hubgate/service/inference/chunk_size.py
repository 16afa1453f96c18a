"""The largest chunk size that fits a model's token limit, measured at registration.

Chunk sizes are in words and limits in tokens, and the tokens per word depend on the model and the language. So the
model's tokenizer counts a short text in each of many languages, and the language with the most tokens per word decides.
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

COUNT_SECONDS = 5.0
_TOKENS_PER_WORD = 2.2
"""The estimate if tokens cannot be counted: the maximum over many languages in models trained on them."""
_MARGIN = 0.9
"""The share of the limit to use: a chunk may have longer words than the sample of its language."""
_SPECIAL_TOKENS = 2
_ONE_TOKEN = "a"  # noqa: S105 - a text that is one token in every model
_BATCH = 32
_REPORTS_TRUNCATION = frozenset({Source.LOCAL, Source.FAKE})


async def fitted(
    endpoint: Endpoint, upstream: Upstream, counter: Counter | None = None, *, within: float = COUNT_SECONDS
) -> Endpoint:
    """Add the chunk size that fits, and a warning if the configured size does not. If counting fails, estimates it.

    Args:
        endpoint: with all other facts.
        upstream: its model.
        counter: the model's tokenizer, if there is one.
        within: a timeout for counting, in seconds.
    """
    limit = endpoint.token_limit
    if limit is None:
        return endpoint
    prefixes = endpoint.effective_prefixes
    fronts = sorted({"", *prefixes.values()})
    texts = [front + _ONE_TOKEN for front in fronts] + list(SAMPLES.values())
    try:
        async with asyncio.timeout(within):
            counts = await _count(upstream, counter, texts, endpoint.facts.max_batch_texts or _BATCH, limit)
    except (HubgateError, TimeoutError):
        counts = None
    if counts is None:
        fit = _estimate(limit, fronts)
    else:
        fit = _fit(limit, counts[: len(fronts)], counts[len(fronts) :])
    endpoint = replace(endpoint, facts=replace(endpoint.facts, chunk_fit=fit))
    warning = size_warning(endpoint, endpoint.chunking)
    if warning is None:
        return endpoint
    return replace(endpoint, facts=replace(endpoint.facts, warnings=(*endpoint.facts.warnings, warning)))


def size_warning(endpoint: Endpoint, settings: ChunkingSettings | None) -> str | None:
    """A warning if chunks with these settings can exceed the model's token limit."""
    fit = endpoint.facts.chunk_fit
    if settings is None or settings.max_chunk_size is None or fit is None:
        return None
    size = settings.max_chunk_size
    if size <= fit.words:
        return None
    return (
        f"Chunks of {size} words can be longer than the {endpoint.token_limit} tokens that the model reads, "
        f"and text beyond that is not in their vectors. {_proposal(fit, MIN_CHUNK_SIZE[settings.strategy])} "
        "Without chunking_settings, hubgate makes chunks that fit the limit."
    )


def blind_warning(endpoint: Endpoint, counter: Counter | None) -> str | None:
    """A warning if the server may truncate texts silently, and hubgate cannot notice it."""
    facts = endpoint.facts
    is_reported = endpoint.source in _REPORTS_TRUNCATION or facts.auto_truncate is False
    if is_reported or (counter is not None and endpoint.token_limit is not None):
        return None
    named = "hub_model" if endpoint.model and endpoint.source is Source.DEDICATED else "model"
    remedy = (
        f"Set [{named}] to the model's name on the Hub, so that hubgate can count its tokens."
        if counter is None
        else "Set [max_input_tokens]."
    )
    return (
        "Texts longer than the model reads may be cut without notice: the server does not report it, "
        f"and hubgate cannot detect it. {remedy}"
    )


def _proposal(fit: ChunkFit, smallest: int) -> str:
    fits = (
        f"max_chunk_size {fit.words} fits" if fit.words >= smallest else "No max_chunk_size is certain to fit"
    )
    if fit.language is None:
        return f"{fits}, by an estimate: this server does not return token counts."
    return (
        f"{fits} all languages tested with the model's own tokenizer "
        f"(most tokens per word: {fit.language}); {fit.words_in_english} fits English."
    )


def _fit(limit: int, fronts: Sequence[int], samples: Sequence[int]) -> ChunkFit:
    """From the token counts of one-token texts (without and with each prefix), and of the samples."""
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


async def _count(
    upstream: Upstream, counter: Counter | None, texts: Sequence[str], batch: int, limit: int
) -> Sequence[int] | None:
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
        assert isinstance(tokens, Tokens)  # noqa: S101 - a Tokenize returns Tokens
        counts += map(len, tokens.items)
    return counts


async def _by_usage(upstream: Upstream, texts: Sequence[str], limit: int) -> Sequence[int] | None:
    # One request per text, because servers return only the sum. A text that fills the limit may have been truncated.
    counts = []
    for text in texts:
        vectors = await upstream(Embed(texts=(text,), truncate=False, cached=False))
        assert isinstance(vectors, Vectors)  # noqa: S101 - an Embed returns Vectors
        if vectors.tokens is None or not vectors.exact or vectors.tokens >= limit:
            return None
        counts.append(vectors.tokens)
    return counts
