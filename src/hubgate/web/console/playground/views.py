"""What the playground shows of an answer."""

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
from hubgate.web.console.models.chunk_preview import Piece, marked
from hubgate.web.shared.embeddings import estimate_tokens
from hubgate.web.shared.rerank import top_ranked

_SHOWN_NUMBERS = 6
_SHOWN_WORDS = 15
_SHADES = 10
_WEIGHTS = msgspec.json.Decoder(dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told of every answer. `exact` is whether somebody counted the tokens."""

    seconds: float
    waited: float
    texts: int
    tokens: int
    exact: bool


class Cell(NamedTuple):
    """How alike two texts are, by their places from 0. `shade` is from 0 to 9."""

    row: int
    column: int
    cosine: float
    shade: int


class EmbeddedText(NamedTuple):
    """One text of several."""

    number: int
    pieces: Sequence[Piece]
    chunks: int
    tokens: int | None
    truncated: bool
    beginning: Sequence[float]
    """Of its vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Vectors."""

    told: Told
    dimensions: int
    truncated: int
    cells: Sequence[Cell]
    texts: Sequence[EmbeddedText]

    @property
    def closest(self) -> Cell | None:
        """The two different texts that are most alike."""
        return max(
            (cell for cell in self.cells if cell.row < cell.column),
            key=lambda cell: cell.cosine,
            default=None,
        )


class Bar(NamedTuple):
    """A text or a word with its number; `share` is the length of its bar, from 0 to 1."""

    number: int
    text: str
    value: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Weights of words: of each text its number, the heaviest, and how many there are."""

    told: Told
    texts: Sequence[tuple[int, str, Sequence[Bar], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Texts, the best first."""

    told: Told
    bars: Sequence[Bar]


async def view_of(
    call: Call, result: Result, seconds: float, chunks: Sequence[Sequence[Chunk]] = ()
) -> Embedded | Weighed | Ranked:
    """What is shown of the answer to a call; `chunks` are those of each text that was embedded."""
    if isinstance(result, Vectors):
        assert isinstance(call, Embed)  # noqa: S101 - what else is answered with vectors
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
            marked(text, of_text),
            len(of_text),
            tokens[place] if tokens else None,
            bool(truncated and truncated[place]),
            floats(items[place])[:_SHOWN_NUMBERS],
        )
        for place, (text, of_text) in enumerate(zip(call.texts, chunks, strict=True))
    ]
    told = _told(call.texts, vectors.tokens, seconds, vectors.waited, exact=vectors.exact)
    return Embedded(
        told=told,
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
            for place, (word, weight) in enumerate(islice(weights.items(), _SHOWN_WORDS), 1)
        ]
        shown.append((number, text, bars, len(weights)))
    told = _told(call.texts, vectors.tokens, seconds, vectors.waited, exact=vectors.exact)
    return Weighed(told=told, texts=shown)


def _ranked(call: Rerank, scores: Scores, seconds: float) -> Ranked:
    ordered = top_ranked(scores)
    high, low = ordered[0][1], ordered[-1][1]
    # Squeezed scores are shares of one. Raw ones have no zero: the worst of them has the shortest bar.
    squeezed = 0 <= low <= high <= 1
    span = high - low or 1.0
    bars = [
        Bar(place + 1, call.texts[place], score, score if squeezed else 0.05 + 0.95 * (score - low) / span)
        for place, score in ordered
    ]
    texts = (call.query, *call.texts)
    return Ranked(told=_told(texts, scores.tokens, seconds, scores.waited, exact=scores.exact), bars=bars)


def _told(texts: Sequence[str], tokens: int | None, seconds: float, waited: float, *, exact: bool) -> Told:
    return Told(
        seconds=seconds,
        waited=waited,
        texts=len(texts),
        tokens=estimate_tokens(texts) if tokens is None else tokens,
        exact=exact and tokens is not None,
    )


def _cells(items: Sequence[bytes]) -> list[Cell]:
    """Each with each. The shades begin a tenth below the least alike, since many models find all texts much alike."""
    rows = [cosines(item, items) for item in items]
    least = min(min(row) for row in rows)
    floor = max(0.0, min(0.9, int(least * 10) / 10 - 0.1))
    return [
        Cell(row, column, cosine, min(_SHADES - 1, max(0, int((cosine - floor) / (1 - floor) * _SHADES))))
        for row, numbers in enumerate(rows)
        for column, cosine in enumerate(numbers)
    ]
