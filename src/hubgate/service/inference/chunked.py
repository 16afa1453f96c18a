"""Long texts in one call: each is cut into chunks, and every chunk gets its vector, as Elasticsearch keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import NamedTuple

from hubgate.core.chunking import MAX_SLOTS, Chunk, merged_slot
from hubgate.core.vectors import f32, f32_to_json, floats, in_encoding
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.endpoint import Endpoint
from hubgate.service.inference.chunk_size import size_warning
from hubgate.service.inference.cutting import CountTokens, chunks_of


class EmbeddedChunk(NamedTuple):
    """A chunk of a text, and its vector."""

    place: Chunk
    text: str
    vector: bytes
    tokens: int | None = None
    """That the model read, where that is known of each chunk."""
    unread: int | None = None
    """Tokens that it did not read, where that was asked and is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunked:
    """The chunks of each text, in the order of the texts.

    `texts` and `vectors` are what the model read and gave: as many as there are chunks, unless some were merged.
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
    """Cut the texts of a call and embed the chunks, all in one call.

    Args:
        endpoint: whose model is asked.
        settings: how to cut; `None` so that the model reads all of every chunk.
        call: of the texts as they are.
        embed: asks the model.
        count: counts tokens, if somebody can.
        encoding: of the vectors in the answer.

    Raises:
        InvalidChunking: a separator cannot be used on these texts.
        BodyTooLarge: the texts are too long, or make too many chunks.
        HubgateError: what the model raises.
    """
    places = await chunks_of(call.texts, endpoint, settings, count)
    texts = [
        text[place.start : place.end] for text, of in zip(call.texts, places, strict=True) for place in of
    ]
    vectors = await embed(replace(call, texts=texts))
    return Chunked(
        items=await asyncio.to_thread(_put_back, call.texts, places, texts, vectors, encoding),
        texts=texts,
        vectors=vectors,
        warnings=_warnings(endpoint, settings, vectors),
    )


def _put_back(
    texts: Sequence[str],
    places: Sequence[Sequence[Chunk]],
    pieces: Sequence[str],
    vectors: Vectors,
    encoding: Encoding,
) -> list[list[EmbeddedChunk]]:
    """The chunks of each text with their vectors, of none more than Elasticsearch keeps."""
    merging = any(len(chunks) > MAX_SLOTS for chunks in places)
    held = in_encoding(vectors, Encoding.F32 if merging else encoding)
    tokens = vectors.text_tokens or repeat(None)
    unread = vectors.text_unread or repeat(None)
    rest = map(EmbeddedChunk, chain.from_iterable(places), pieces, held.items, tokens, unread)
    items = [list(islice(rest, len(chunks))) for chunks in places]
    if merging:
        items = [_merged(text, chunks) for text, chunks in zip(texts, items, strict=True)]
    if held.encoding is not encoding:
        items = [[one._replace(vector=f32_to_json(one.vector)) for one in chunks] for chunks in items]
    return items


def _merged(text: str, chunks: Sequence[EmbeddedChunk]) -> list[EmbeddedChunk]:
    """Elasticsearch's merging: a slot reaches from its first chunk's start to its last one's end.

    Its vector is averaged with that of each further chunk in turn, so the later ones weigh more.
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
