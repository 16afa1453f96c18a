"""How the playground shows a result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import msgspec

from hubgate.core.chunking import Chunk
from hubgate.core.vectors import cosines, floats, in_encoding
from hubgate.domain.calls import (
    Call,
    Embed,
    Encoding,
    Rerank,
    Result,
    Scores,
    SparseEmbed,
    SparseVectors,
    Vectors,
)
from hubgate.web.console.models.chunking import Piece, split_at_chunks
from hubgate.web.shared.embeddings import estimate_tokens
from hubgate.web.shared.rerank import top_ranked

_VECTOR_PREVIEW = 6
_TOP_WORDS = 15
_SHADES = 10
_WEIGHTS = msgspec.json.Decoder(dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What every result has. `exact` is false for estimated token counts."""

    seconds: float
    waited: float
    texts: int
    tokens: int
    exact: bool


class Cell(NamedTuple):
    """The similarity of two texts, by index. `shade` is from 0 to 9."""

    row: int
    column: int
    cosine: float
    shade: int


class EmbeddedText(NamedTuple):
    number: int
    pieces: Sequence[Piece]
    chunks: int
    tokens: int | None
    truncated: bool
    vector_preview: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    stats: Stats
    dimensions: int
    truncated: int
    cells: Sequence[Cell]
    texts: Sequence[EmbeddedText]

    @property
    def closest(self) -> Cell | None:
        """The two most similar texts."""
        return max(
            (cell for cell in self.cells if cell.row < cell.column),
            key=lambda cell: cell.cosine,
            default=None,
        )


class Bar(NamedTuple):
    """A text or a word with its value; `share` is the length of the bar, from 0 to 1."""

    number: int
    text: str
    value: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """For each text: its number, the text, the words with the highest weights, and the number of all words."""

    stats: Stats
    texts: Sequence[tuple[int, str, Sequence[Bar], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Texts, the most relevant first."""

    stats: Stats
    bars: Sequence[Bar]


async def view_of(
    call: Call, result: Result, seconds: float, chunks: Sequence[Sequence[Chunk]] = ()
) -> Embedded | Weighed | Ranked:
    """The view of a result; `chunks` are those of each embedded text."""
    if isinstance(result, Vectors):
        assert isinstance(call, Embed)  # noqa: S101 - only Embed returns vectors
        return await _embedded(call, result, chunks, seconds)
    if isinstance(result, SparseVectors):
        assert isinstance(call, SparseEmbed)  # noqa: S101 - as above
        return _weighed(call, result, seconds)
    assert isinstance(call, Rerank)  # noqa: S101 - as above
    assert isinstance(result, Scores)  # noqa: S101 - as above
    return _ranked(call, result, seconds)


async def _embedded(
    call: Embed, vectors: Vectors, chunks: Sequence[Sequence[Chunk]], seconds: float
) -> Embedded:
    items = in_encoding(vectors, Encoding.F32).items
    cells = await asyncio.to_thread(_cells, items)
    tokens, truncated = vectors.text_tokens, vectors.text_truncated
    texts = [
        EmbeddedText(
            place + 1,
            split_at_chunks(text, of_text),
            len(of_text),
            tokens[place] if tokens else None,
            bool(truncated and truncated[place]),
            floats(items[place])[:_VECTOR_PREVIEW],
        )
        for place, (text, of_text) in enumerate(zip(call.texts, chunks, strict=True))
    ]
    stats = _stats(call.texts, vectors.tokens, seconds, vectors.waited, exact=vectors.exact)
    return Embedded(
        stats=stats,
        dimensions=len(items[0]) // 4,
        truncated=vectors.truncated or 0,
        cells=cells,
        texts=texts,
    )


def _weighed(call: SparseEmbed, vectors: SparseVectors, seconds: float) -> Weighed:
    shown = []
    for number, (text, item) in enumerate(zip(call.texts, vectors.items, strict=True), 1):
        weights = _WEIGHTS.decode(item)
        heaviest = max(weights.values(), default=0.0) or 1.0
        bars = [
            Bar(place, word, weight, weight / heaviest)
            for place, (word, weight) in enumerate(islice(weights.items(), _TOP_WORDS), 1)
        ]
        shown.append((number, text, bars, len(weights)))
    stats = _stats(call.texts, vectors.tokens, seconds, vectors.waited, exact=vectors.exact)
    return Weighed(stats=stats, texts=shown)


def _ranked(call: Rerank, scores: Scores, seconds: float) -> Ranked:
    ordered = top_ranked(scores)
    high, low = ordered[0][1], ordered[-1][1]
    # Scores after a sigmoid are between 0 and 1. Raw scores have no zero, so the lowest gets the shortest bar.
    normalized = 0 <= low <= high <= 1
    span = high - low or 1.0
    bars = [
        Bar(place + 1, call.texts[place], score, score if normalized else 0.05 + 0.95 * (score - low) / span)
        for place, score in ordered
    ]
    texts = (call.query, *call.texts)
    return Ranked(stats=_stats(texts, scores.tokens, seconds, scores.waited, exact=scores.exact), bars=bars)


def _stats(texts: Sequence[str], tokens: int | None, seconds: float, waited: float, *, exact: bool) -> Stats:
    return Stats(
        seconds=seconds,
        waited=waited,
        texts=len(texts),
        tokens=estimate_tokens(texts) if tokens is None else tokens,
        exact=exact and tokens is not None,
    )


def _cells(items: Sequence[bytes]) -> list[Cell]:
    """All pairs. Shades start 0.1 below the lowest similarity: many models find all texts rather similar."""
    rows = [cosines(item, items) for item in items]
    least = min(min(row) for row in rows)
    floor = max(0.0, min(0.9, int(least * 10) / 10 - 0.1))
    return [
        Cell(row, column, cosine, min(_SHADES - 1, max(0, int((cosine - floor) / (1 - floor) * _SHADES))))
        for row, numbers in enumerate(rows)
        for column, cosine in enumerate(numbers)
    ]
