"""Cutting texts into chunks: as chunking settings say, or so that the model reads all of every chunk.

Without settings of its own, an endpoint cuts as Elasticsearch does by default: whole sentences, at most 250 words,
one sentence repeated. Words are not tokens, so the model's own tokenizer counts each chunk. A chunk that is longer
than the model reads is cut again, in the same way, into smaller ones (`SIZES`), and in the end in halves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, repeat
from typing import NamedTuple, TypeAlias, TypeVar

from hubgate.core.chunking import Chunk, TimeBudget, chunk, split_in_half
from hubgate.domain.chunking import MIN_CHUNK_SIZE, ChunkingSettings
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import BodyTooLarge

CountTokens: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[int] | None]]
"""The tokens of each text as the model reads it, uncut; `None` where nobody can count them."""

MOST_CHARACTERS = 6_000_000
"""Of all texts of a call. To cut so many takes up to 3 seconds and 0.2 GB, in a thread."""
MOST_CHUNKS = 8192
"""Of all texts of a call: at 1024 dimensions its answer has 90 MB."""
SIZES = (250, 150, 90, 54, 32, 20)
"""Words per chunk, each tried where the one before is more than the model reads. The first is Elasticsearch's default."""

MOST_COUNTED = 1_000_000
"""Characters of a text; a second's work."""
_SLICE = 50_000

_CUTTERS = ThreadPoolExecutor(4, thread_name_prefix="hubgate-chunking")

_T = TypeVar("_T")


async def chunks_of(
    texts: Sequence[str],
    endpoint: Endpoint,
    settings: ChunkingSettings | None,
    count: CountTokens | None = None,
) -> list[list[Chunk]]:
    """The chunks of each text.

    Without settings none of them is longer than the endpoint's model reads; where nobody can count tokens, their size
    is the one that was estimated at registration.

    Raises:
        InvalidChunking: a separator cannot be used on these texts.
        BodyTooLarge: the texts are too long, or make too many chunks.
    """
    if settings is None and count is not None and endpoint.token_limit is not None:
        places = await _cut_to_fit(texts, endpoint.token_limit, count)
        if places is not None:
            return places
    return await in_cutting_thread(partial(_cut, texts, settings or _sentences(_estimated_size(endpoint))))


async def _cut_to_fit(texts: Sequence[str], limit: int, count: CountTokens) -> list[list[Chunk]] | None:
    """The chunks of each text, none of them longer than so many tokens; `None` where nobody can count them."""
    pieces = _pieces(await in_cutting_thread(partial(_cut, texts, _sentences(SIZES[0]))))
    fitting: set[_Piece] = set()
    for size in chain(SIZES[1:], repeat(None)):
        counted = [piece for piece in pieces if piece not in fitting]
        lengths = await count([piece.of(texts) for piece in counted])
        if lengths is None:
            return None
        long = {
            piece
            for piece, length in zip(counted, lengths, strict=True)
            if length > limit and piece.place.end - piece.place.start > 1
        }
        if not long:
            break
        fitting.update(piece for piece in counted if piece not in long)
        pieces = await in_cutting_thread(partial(_divided, texts, pieces, long, size))
    places: list[list[Chunk]] = [[] for _ in texts]
    for piece in pieces:
        places[piece.text].append(piece.place)
    return places


def _cut(texts: Sequence[str], settings: ChunkingSettings) -> list[list[Chunk]]:
    characters = sum(map(len, texts))
    if characters > MOST_CHARACTERS:
        raise BodyTooLarge(
            f"The texts have {characters} characters together; a request that cuts them takes at most {MOST_CHARACTERS}.",
            remedy="Send them in several requests.",
        )
    budget, total = TimeBudget.for_texts(*texts), 0
    places: list[list[Chunk]] = []
    for text in texts:
        places.append(chunk(text, settings, budget))
        total += len(places[-1])
        _check_number(total)
    return places


async def count_long(count: CountTokens, texts: Sequence[str]) -> list[int] | None:
    """The tokens of texts that may be very long, with little memory.

    They are counted in slices, so a number may be off by a token or two per slice; of a longer text than
    `MOST_COUNTED` the rest is taken to be like its beginning.
    """
    counted = [text[:MOST_COUNTED] for text in texts]
    slices = [[text[at : at + _SLICE] for at in range(0, len(text), _SLICE)] for text in counted]
    totals = []
    for text, beginning, parts in zip(texts, counted, slices, strict=True):
        lengths = [await count([part]) for part in parts]
        if None in lengths:
            return None
        total = sum(length[0] for length in lengths if length)
        totals.append(total * len(text) // max(1, len(beginning)))
    return totals


async def in_cutting_thread(work: Callable[[], _T]) -> _T:
    """Do what cuts texts at a caller's wish: in one of few threads that nothing else needs.

    A hostile separator holds its thread until its budget is at an end, even if its caller has left. In the event
    loop's own threads it would hold up the names of servers and the registration of models.
    """
    return await asyncio.get_running_loop().run_in_executor(_CUTTERS, work)


def _sentences(size: int) -> ChunkingSettings:
    """Elasticsearch's default settings, with another size."""
    return ChunkingSettings(strategy="sentence", max_chunk_size=size, sentence_overlap=1)


class _Piece(NamedTuple):
    """A chunk of one of several texts."""

    text: int
    place: Chunk

    def of(self, texts: Sequence[str]) -> str:
        return texts[self.text][self.place.start : self.place.end]


def _pieces(places: Sequence[Sequence[Chunk]]) -> list[_Piece]:
    return [_Piece(number, place) for number, chunks in enumerate(places) for place in chunks]


def _divided(
    texts: Sequence[str], pieces: Sequence[_Piece], long: set[_Piece], size: int | None
) -> list[_Piece]:
    """The pieces, with the parts of the long ones in their places; halves without a size."""
    divided: list[_Piece] = []
    for piece in pieces:
        if piece not in long:
            divided.append(piece)
            continue
        text = piece.of(texts)
        parts = split_in_half(text) if size is None else chunk(text, _sentences(size))
        divided += [_Piece(piece.text, part.shifted(piece.place)) for part in parts]
        _check_number(len(divided))
    return divided


def _check_number(chunks: int) -> None:
    if chunks > MOST_CHUNKS:
        raise BodyTooLarge(
            f"These chunking settings cut the texts into more than {MOST_CHUNKS} chunks, the most in one request.",
            remedy="Send the texts in several requests, or raise max_chunk_size.",
        )


def _estimated_size(endpoint: Endpoint) -> int:
    fit = endpoint.facts.chunk_fit
    return SIZES[0] if fit is None else min(max(fit.words, MIN_CHUNK_SIZE["sentence"]), SIZES[0])
