"""Chunks without settings fit the model's limit and cover the whole text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.chunking import Chunk, chunk, split_in_half
from hubgate.domain.chunking import DEFAULT_CHUNKING, ChunkFit, ChunkingSettings
from hubgate.domain.endpoint import Endpoint, Facts, Source, Task
from hubgate.domain.errors import BodyTooLarge
from hubgate.service.inference import chunks as chunks_module
from hubgate.service.inference.chunks import chunks_of, count_long

if TYPE_CHECKING:
    from collections.abc import Sequence

SENTENCES = "The harbour town wakes slowly. Fishermen mend their nets, and the baker sings! "


@dataclass
class Letters:
    """A model that has a token for each four letters, and two of its own."""

    asked: list[Sequence[str]] = field(default_factory=list)

    async def __call__(self, texts: Sequence[str]) -> Sequence[int] | None:
        self.asked.append(texts)
        return [2 + -(-len(text) // 4) for text in texts]


async def nobody(texts: Sequence[str]) -> Sequence[int] | None:
    del texts
    return None


def endpoint(limit: int | None = 100, fit: int | None = None) -> Endpoint:
    facts = Facts(max_input_tokens=limit, chunk_fit=None if fit is None else ChunkFit(words=fit))
    return Endpoint(name="x", task=Task.TEXT_EMBEDDING, source=Source.FAKE, facts=facts)


def check_whole(text: str, chunks: Sequence[Chunk]) -> None:
    """All of a text is in its chunks, and both kinds of offsets name the same places."""
    read_to = 0
    for one in chunks:
        assert one.start <= read_to
        assert len(text[: one.start].encode("utf-16-le")) == 2 * one.start_utf16
        assert len(text[: one.end].encode("utf-16-le")) == 2 * one.end_utf16
        read_to = max(read_to, one.end)
    assert read_to == len(text)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(3, 40))
async def test_every_chunk_fits_and_chunks_cover_the_whole_text(text: str, limit: int) -> None:
    count = Letters()
    (chunks,) = await chunks_of([text], endpoint(limit), None, count)
    check_whole(text, chunks)
    lengths = await count([text[one.start : one.end] for one in chunks])
    assert lengths is not None
    assert max(lengths) <= limit


@pytest.mark.parametrize(
    "text", [SENTENCES * 200, "x" * 20_000, f"{SENTENCES * 9}{'𝔸' * 999} {SENTENCES * 9}"]
)
async def test_splits_long_texts_endless_words_and_surrogate_pairs(text: str) -> None:
    count = Letters()
    (chunks,) = await chunks_of([text], endpoint(), None, count)
    check_whole(text, chunks)
    lengths = await count([text[one.start : one.end] for one in chunks])
    assert lengths is not None
    assert max(lengths) <= 100


async def test_text_that_fits_is_chunked_like_elasticsearch_and_counted_once() -> None:
    count = Letters()
    texts = [SENTENCES * 50, "short"]
    assert await chunks_of(texts, endpoint(2000), None, count) == [
        chunk(text, DEFAULT_CHUNKING) for text in texts
    ]
    assert len(count.asked) == 1


async def test_splits_only_the_chunk_that_is_too_long() -> None:
    text = f"{SENTENCES * 100}{'x' * 3000}. {SENTENCES * 100}"
    before = chunk(text, DEFAULT_CHUNKING)
    (chunks,) = await chunks_of([text], endpoint(600), None, Letters())
    too_long = [one for one in before if 2 + -(-(one.end - one.start) // 4) > 600]
    assert set(before) - set(chunks) == set(too_long)
    assert too_long


async def test_explicit_settings_are_kept_whatever_the_models_limit() -> None:
    settings = ChunkingSettings(strategy="word", max_chunk_size=100, overlap=10)
    count = Letters()
    (chunks,) = await chunks_of([SENTENCES * 50], endpoint(), settings, count)
    assert chunks == chunk(SENTENCES * 50, settings)
    assert count.asked == []


@pytest.mark.parametrize(("fit", "size"), [(None, 250), (36, 36), (3, 20), (9000, 250)])
async def test_uses_the_estimated_size_without_a_token_counter(fit: int | None, size: int) -> None:
    settings = ChunkingSettings(strategy="sentence", max_chunk_size=size, sentence_overlap=1)
    text = SENTENCES * 50
    assert await chunks_of([text], endpoint(fit=fit), None, nobody) == [chunk(text, settings)]
    assert await chunks_of([text], endpoint(None, fit), None, Letters()) == [chunk(text, settings)]


async def test_rejects_more_default_chunks_than_a_request_may_have() -> None:
    with pytest.raises(BodyTooLarge, match="more than 8192 chunks"):
        await chunks_of(["x" * 40_000], endpoint(3), None, Letters())


def test_halves_split_at_a_word_boundary_near_the_middle() -> None:
    assert split_in_half("aaaa bbbb")[0] == Chunk(0, 4, 0, 4)
    assert [one[:2] for one in split_in_half(f"a {'b' * 20}")] == [(0, 11), (11, 22)]


async def test_very_long_text_is_counted_in_slices_and_estimated_from_its_beginning() -> None:
    count = Letters()
    most = chunks_module.MAX_COUNTED
    lengths = await count_long(count, ["a" * 2 * most, "abc"])
    assert lengths is not None
    assert lengths[0] == pytest.approx(most // 2, rel=0.001)
    assert lengths[1] == 3
    assert max(len(text) for texts in count.asked for text in texts) <= 50_000
    assert await count_long(nobody, ["abc"]) is None
