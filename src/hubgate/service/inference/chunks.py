"""Splits texts into chunks, and embeds the chunks.

Without chunking settings, texts are split as Elasticsearch does by default: whole sentences, at most 250 words, with an
overlap of one sentence. The model's own tokenizer then counts each chunk. A chunk that exceeds the model's token limit
is split again into smaller ones (`SIZES`), and finally into halves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from typing import NamedTuple, TypeAlias, TypeVar

from msgspec.structs import replace

from hubgate.core.chunking import MAX_SLOTS, Chunk, TimeBudget, chunk, merged_slot, split_in_half
from hubgate.core.vectors import f32, f32_to_json, floats, in_encoding
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.chunking import MIN_CHUNK_SIZE, ChunkingSettings
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import BodyTooLarge
from hubgate.service.inference.chunk_size import size_warning

CountTokens: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[int] | None]]
"""Returns the untruncated token count of each text; `None` if they cannot be counted."""

MAX_CHARACTERS = 6_000_000
"""The limit for all texts of a call together. Splitting that many takes up to 3 seconds and 0.2 GB, in a thread."""
MAX_CHUNKS = 8192
"""The limit for all texts of a call together. With 1024 dimensions, the response has 90 MB."""
SIZES = (250, 150, 90, 54, 32, 20)
"""Words per chunk, tried in turn for chunks that exceed the token limit. The first is Elasticsearch's default."""

MAX_COUNTED = 1_000_000
"""Characters of a text whose tokens `count_long` counts, which takes about a second. The rest is extrapolated."""
_SLICE = 50_000

_THREADS = ThreadPoolExecutor(4, thread_name_prefix="hubgate-chunking")

_T = TypeVar("_T")


async def chunks_of(
    texts: Sequence[str],
    endpoint: Endpoint,
    settings: ChunkingSettings | None,
    count: CountTokens | None = None,
) -> list[list[Chunk]]:
    """The chunks of each text.

    Without settings, every chunk fits the endpoint's token limit. If tokens cannot be counted, the chunk size is the
    one estimated at registration.

    Raises:
        InvalidChunking: a separator cannot be used on these texts.
        BodyTooLarge: the texts are too long, or make too many chunks.
    """
    if settings is None and count is not None and endpoint.token_limit is not None:
        chunks = await _split_to_fit(texts, endpoint.token_limit, count)
        if chunks is not None:
            return chunks
    return await in_chunking_thread(partial(_split, texts, settings or _sentences(_estimated_size(endpoint))))


async def _split_to_fit(texts: Sequence[str], limit: int, count: CountTokens) -> list[list[Chunk]] | None:
    """The chunks of each text, all within the token limit; `None` if tokens cannot be counted."""
    pieces = _pieces(await in_chunking_thread(partial(_split, texts, _sentences(SIZES[0]))))
    fitting: set[_Piece] = set()
    for size in chain(SIZES[1:], repeat(None)):
        unchecked = [piece for piece in pieces if piece not in fitting]
        lengths = await count([piece.of(texts) for piece in unchecked])
        if lengths is None:
            return None
        too_long = {
            piece
            for piece, length in zip(unchecked, lengths, strict=True)
            if length > limit and piece.chunk.end - piece.chunk.start > 1
        }
        if not too_long:
            break
        fitting.update(piece for piece in unchecked if piece not in too_long)
        pieces = await in_chunking_thread(partial(_split_again, texts, pieces, too_long, size))
    chunks: list[list[Chunk]] = [[] for _ in texts]
    for piece in pieces:
        chunks[piece.text].append(piece.chunk)
    return chunks


def _split(texts: Sequence[str], settings: ChunkingSettings) -> list[list[Chunk]]:
    characters = sum(map(len, texts))
    if characters > MAX_CHARACTERS:
        raise BodyTooLarge(
            f"The texts have {characters} characters in total; the maximum with chunking is {MAX_CHARACTERS}.",
            remedy="Send them in several requests.",
        )
    budget, total = TimeBudget.for_texts(*texts), 0
    chunks: list[list[Chunk]] = []
    for text in texts:
        chunks.append(chunk(text, settings, budget))
        total += len(chunks[-1])
        _check_number(total)
    return chunks


async def count_long(count: CountTokens, texts: Sequence[str]) -> list[int] | None:
    """The token counts of texts that may be very long, computed with little memory; `None` if they cannot be counted.

    Counts slices, so the result may be off by a token or two per slice. Beyond `MAX_COUNTED` it is extrapolated.
    """
    counted = [text[:MAX_COUNTED] for text in texts]
    slices = [[text[at : at + _SLICE] for at in range(0, len(text), _SLICE)] for text in counted]
    totals = []
    for text, beginning, parts in zip(texts, counted, slices, strict=True):
        lengths = [await count([part]) for part in parts]
        if None in lengths:
            return None
        total = sum(length[0] for length in lengths if length)
        totals.append(total * len(text) // max(1, len(beginning)))
    return totals


async def in_chunking_thread(work: Callable[[], _T]) -> _T:
    """Run `work`, which splits texts, in one of a few dedicated threads.

    A hostile separator blocks its thread until its time budget is used up, even if its caller has disconnected. In the
    event loop's default threads it would also delay DNS lookups and registrations.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)


def _sentences(size: int) -> ChunkingSettings:
    """Elasticsearch's default settings with another size."""
    return ChunkingSettings(strategy="sentence", max_chunk_size=size, sentence_overlap=1)


class _Piece(NamedTuple):
    """A chunk of the text with this index."""

    text: int
    chunk: Chunk

    def of(self, texts: Sequence[str]) -> str:
        return texts[self.text][self.chunk.start : self.chunk.end]


def _pieces(chunks_of_texts: Sequence[Sequence[Chunk]]) -> list[_Piece]:
    return [_Piece(number, one) for number, chunks in enumerate(chunks_of_texts) for one in chunks]


def _split_again(
    texts: Sequence[str], pieces: Sequence[_Piece], too_long: set[_Piece], size: int | None
) -> list[_Piece]:
    """Split the pieces that are too long into chunks of `size` words, or into halves if it is `None`."""
    result: list[_Piece] = []
    for piece in pieces:
        if piece not in too_long:
            result.append(piece)
            continue
        text = piece.of(texts)
        parts = split_in_half(text) if size is None else chunk(text, _sentences(size))
        result += [_Piece(piece.text, part.shifted(piece.chunk)) for part in parts]
        _check_number(len(result))
    return result


def _check_number(chunks: int) -> None:
    if chunks > MAX_CHUNKS:
        raise BodyTooLarge(
            f"These chunking settings make more than {MAX_CHUNKS} chunks, the maximum per request.",
            remedy="Send the texts in several requests, or increase max_chunk_size.",
        )


def _estimated_size(endpoint: Endpoint) -> int:
    fit = endpoint.facts.chunk_fit
    return SIZES[0] if fit is None else min(max(fit.words, MIN_CHUNK_SIZE["sentence"]), SIZES[0])


class EmbeddedChunk(NamedTuple):
    """A chunk of a text, and its vector."""

    place: Chunk
    text: str
    vector: bytes
    tokens: int | None = None
    """Tokens that the model read, if known."""
    unread: int | None = None
    """Tokens that were cut off, if requested and known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunked:
    """The chunks of each text, in the order of the texts.

    `texts` and `vectors` are the model's input and output: one for each chunk, before chunks are merged.
    """

    items: Sequence[Sequence[EmbeddedChunk]]
    texts: Sequence[str]
    vectors: Vectors
    warnings: tuple[str, ...] = ()


async def embed_chunks(
    endpoint: Endpoint,
    settings: ChunkingSettings | None,
    call: Embed,
    embed: Callable[[Embed], Awaitable[Vectors]],
    *,
    count: CountTokens | None = None,
    encoding: Encoding,
) -> Chunked:
    """Split the texts of a call, and embed all chunks in one call.

    Args:
        endpoint: the endpoint.
        settings: how to split; `None` makes chunks that fit the token limit.
        call: with the whole texts.
        embed: calls the model.
        count: counts tokens, if the model's tokenizer is available.
        encoding: of the vectors in the result.

    Raises:
        InvalidChunking: a separator cannot be used on these texts.
        BodyTooLarge: the texts are too long, or make too many chunks.
        HubgateError: the embedding failed.
    """
    places = await chunks_of(call.texts, endpoint, settings, count)
    texts = [
        text[place.start : place.end]
        for text, chunks in zip(call.texts, places, strict=True)
        for place in chunks
    ]
    vectors = await embed(replace(call, texts=texts))
    return Chunked(
        items=await asyncio.to_thread(_group_by_text, call.texts, places, texts, vectors, encoding),
        texts=texts,
        vectors=vectors,
        warnings=_warnings(endpoint, settings, vectors),
    )


def _group_by_text(
    texts: Sequence[str],
    places: Sequence[Sequence[Chunk]],
    pieces: Sequence[str],
    vectors: Vectors,
    encoding: Encoding,
) -> list[list[EmbeddedChunk]]:
    """The chunks of each text with their vectors, merged down to the number that Elasticsearch keeps."""
    merging = any(len(chunks) > MAX_SLOTS for chunks in places)
    encoded = in_encoding(vectors, Encoding.F32 if merging else encoding)
    tokens = vectors.text_tokens or repeat(None)
    unread = vectors.text_unread or repeat(None)
    rest = map(EmbeddedChunk, chain.from_iterable(places), pieces, encoded.items, tokens, unread)
    items = [list(islice(rest, len(chunks))) for chunks in places]
    if merging:
        items = [_merged(text, chunks) for text, chunks in zip(texts, items, strict=True)]
    if encoded.encoding is not encoding:
        items = [[one._replace(vector=f32_to_json(one.vector)) for one in chunks] for chunks in items]
    return items


def _merged(text: str, chunks: Sequence[EmbeddedChunk]) -> list[EmbeddedChunk]:
    """Merge chunks into slots as Elasticsearch does: a slot spans from its first chunk's start to its last chunk's end.

    Its vector is averaged with that of each further chunk in turn, so later chunks weigh more.
    """
    merged: list[EmbeddedChunk] = []
    for number, one in enumerate(chunks):
        if merged_slot(number, len(chunks)) == len(merged):
            merged.append(one)
            continue
        before = merged[-1]
        place = before.place._replace(end=one.place.end, end_utf16=one.place.end_utf16)
        vector = f32([(a + b) / 2 for a, b in zip(floats(before.vector), floats(one.vector), strict=True)])
        tokens, unread = _sum(before.tokens, one.tokens), _sum(before.unread, one.unread)
        merged[-1] = EmbeddedChunk(place, text[place.start : place.end], vector, tokens, unread)
    return merged


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _warnings(endpoint: Endpoint, settings: ChunkingSettings | None, vectors: Vectors) -> tuple[str, ...]:
    warnings = list(vectors.warnings)
    if too_long := size_warning(endpoint, settings):
        warnings.append(too_long)
    if vectors.truncated:
        warnings.append(
            f"{vectors.truncated} of {len(vectors.items)} chunks were longer than the model reads, and were cut."
        )
    return tuple(warnings)
