"""Long texts in one call: each is cut into chunks, and every chunk gets its vector, as Elasticsearch keeps them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hubgate.core.chunking import MAX_SLOTS, Chunk, Patience, chunk, merged_slot
from hubgate.core.vectors import f32, f32_to_json, floats, in_encoding
from hubgate.domain.calls import Encoding
from hubgate.domain.errors import BodyTooLarge
from hubgate.service.fitting import size_warning

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hubgate.domain.calls import Embed, Vectors
    from hubgate.domain.chunking import ChunkingSettings
    from hubgate.domain.endpoint import Endpoint

MOST_CHARACTERS = 6_000_000
"""Of all texts of a call. To cut so many takes up to 3 seconds and 0.2 GB, in a thread."""
MOST_CHUNKS = 8192
"""Of all texts of a call: at 1024 dimensions its answer has 90 MB."""

_CUTTERS = ThreadPoolExecutor(4, thread_name_prefix="hubgate-chunking")

_T = TypeVar("_T")


class EmbeddedChunk(NamedTuple):
    """A chunk of a text, and its vector."""

    place: Chunk
    text: str
    vector: bytes
    tokens: int | None = None
    """That the model read, where that is known of each chunk."""


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
    settings: ChunkingSettings,
    call: Embed,
    embed: Callable[[Embed], Awaitable[Vectors]],
    *,
    encoding: Encoding,
) -> Chunked:
    """Cut the texts of a call and embed the chunks, all in one call.

    Args:
        endpoint: whose model is asked.
        settings: how to cut.
        call: of the texts as they are.
        embed: asks the model.
        encoding: of the vectors in the answer.

    Raises:
        InvalidChunking: a separator cannot be used on these texts.
        BodyTooLarge: the texts are too long, or make too many chunks.
        HubgateError: what the model raises.
    """
    places, texts = await in_cutting_thread(partial(_cut, call.texts, settings))
    vectors = await embed(replace(call, texts=texts))
    return Chunked(
        items=await asyncio.to_thread(_put_back, call.texts, places, texts, vectors, encoding),
        texts=texts,
        vectors=vectors,
        warnings=_warnings(endpoint, settings, vectors),
    )


async def in_cutting_thread(work: Callable[[], _T]) -> _T:
    """Do what cuts texts at a caller's wish: in one of few threads that nothing else needs.

    A hostile separator holds its thread until its patience is at an end, even if its caller has left. In the event
    loop's own threads it would hold up the names of servers and the registration of models.
    """
    return await asyncio.get_running_loop().run_in_executor(_CUTTERS, work)


def _cut(texts: Sequence[str], settings: ChunkingSettings) -> tuple[list[list[Chunk]], list[str]]:
    """The chunks of each text, and the texts of all chunks."""
    characters = sum(map(len, texts))
    if characters > MOST_CHARACTERS:
        raise BodyTooLarge(
            f"The texts have {characters} characters together; a request that cuts them takes at most {MOST_CHARACTERS}.",
            remedy="Send them in several requests.",
        )
    places: list[list[Chunk]] = []
    pieces: list[str] = []
    patience = Patience.for_texts(*texts)
    for text in texts:
        chunks = chunk(text, settings, patience)
        if len(pieces) + len(chunks) > MOST_CHUNKS:
            raise BodyTooLarge(
                f"These chunking settings cut the texts into more than {MOST_CHUNKS} chunks, the most in one request.",
                remedy="Send the texts in several requests, or raise max_chunk_size.",
            )
        places.append(chunks)
        pieces += [text[place.start : place.end] for place in chunks]
    return places, pieces


def _put_back(
    texts: Sequence[str],
    places: Sequence[Sequence[Chunk]],
    cut: Sequence[str],
    vectors: Vectors,
    encoding: Encoding,
) -> list[list[EmbeddedChunk]]:
    """The chunks of each text with their vectors, of none more than Elasticsearch keeps."""
    merging = any(len(chunks) > MAX_SLOTS for chunks in places)
    held = in_encoding(vectors, Encoding.F32 if merging else encoding)
    tokens = vectors.text_tokens or repeat(None)
    rest = map(EmbeddedChunk, chain.from_iterable(places), cut, held.items, tokens)
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
        tokens = None if before.tokens is None or one.tokens is None else before.tokens + one.tokens
        merged[-1] = EmbeddedChunk(place, text[place.start : place.end], vector, tokens)
    return merged


def _warnings(endpoint: Endpoint, settings: ChunkingSettings, vectors: Vectors) -> tuple[str, ...]:
    warnings = list(vectors.warnings)
    if too_long := size_warning(endpoint, settings):
        warnings.append(too_long)
    if vectors.truncated:
        warnings.append(
            f"{vectors.truncated} of {len(vectors.items)} chunks were longer than the model reads, and were cut."
        )
    return tuple(warnings)
