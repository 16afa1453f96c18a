"""Texts are split into chunks, each with its vector."""

from __future__ import annotations

import asyncio
import struct
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from hubgate.core.chunking import TimeBudget, chunk
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.chunking import DEFAULT_CHUNKING, ChunkFit, ChunkingSettings, InvalidChunking
from hubgate.domain.endpoint import Endpoint, Facts, InputType, Source, Task
from hubgate.domain.errors import BodyTooLarge
from hubgate.service.inference import chunks as chunks_module
from hubgate.service.inference.chunks import embed_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDPOINT = Endpoint(name="x", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
TEN_WORDS = ChunkingSettings(strategy="word", max_chunk_size=10, overlap=5)
SENTENCES = ChunkingSettings(strategy="sentence", max_chunk_size=20, sentence_overlap=1)
WHOLE = ChunkingSettings(strategy="none")


@dataclass
class Model:
    """Gives the vector [length of the text, its place in the call]."""

    encoding: Encoding = Encoding.F32
    truncated: int | None = None
    calls: list[Embed] = field(default_factory=list)

    async def __call__(self, call: Embed) -> Vectors:
        self.calls.append(call)
        if self.encoding is Encoding.F32:
            items = [struct.pack("<2f", len(text), place) for place, text in enumerate(call.texts)]
        else:
            items = [b"[%d, %d.0]" % (len(text), place) for place, text in enumerate(call.texts)]
        return Vectors(
            items=items,
            encoding=self.encoding,
            tokens=5,
            exact=True,
            truncated=self.truncated,
            warnings=("w",),
        )


async def test_chunks_of_all_texts_are_sent_in_one_call_and_reassigned_to_their_texts() -> None:
    texts = ["One two three. " * 30, "short", "词语和句子。" * 40]
    model = Model()
    call = Embed(texts=texts, input_type=InputType.INGEST)
    answer = await embed_chunks(ENDPOINT, SENTENCES, call, model, encoding=Encoding.F32)
    [asked] = model.calls
    assert asked == structs.replace(call, texts=answer.texts)
    assert [[one.place for one in chunks] for chunks in answer.items] == [chunk(t, SENTENCES) for t in texts]
    everything = [one for chunks in answer.items for one in chunks]
    assert [one.text for one in everything] == list(answer.texts)
    assert [struct.unpack("<2f", one.vector) for one in everything] == [
        (len(text), place) for place, text in enumerate(answer.texts)
    ]
    assert answer.vectors.tokens == 5


async def test_offsets_slice_the_text_in_code_points_and_in_utf16_units() -> None:
    text = "Wie schön 🙂🙂 ist es hier 👩‍👩‍👧! " * 30
    answer = await embed_chunks(ENDPOINT, TEN_WORDS, Embed(texts=[text]), Model(), encoding=Encoding.F32)
    units = text.encode("utf-16-le")
    assert len(answer.items[0]) > 5
    for one in answer.items[0]:
        assert text[one.place.start : one.place.end] == one.text
        assert units[2 * one.place.start_utf16 : 2 * one.place.end_utf16].decode("utf-16-le") == one.text


async def test_json_vectors_are_passed_through_unchanged() -> None:
    answer = await embed_chunks(
        ENDPOINT, WHOLE, Embed(texts=["abc", "d"]), Model(Encoding.JSON), encoding=Encoding.JSON
    )
    assert [[one.vector for one in chunks] for chunks in answer.items] == [[b"[3, 0.0]"], [b"[1, 1.0]"]]


def merged_as_elasticsearch_does(numbers: Sequence[float]) -> list[float]:
    """Slot j*512//total; each further vector is averaged with those already in the slot."""
    slots: dict[int, float] = {}
    for j, number in enumerate(numbers):
        slot = j * 512 // len(numbers)
        slots[slot] = (slots[slot] + number) / 2 if slot in slots else number
    return list(slots.values())


@pytest.mark.parametrize("words", [2560, 2570, 2600, 8000])
@pytest.mark.parametrize("encoding", Encoding)
async def test_more_than_512_chunks_are_merged_with_neighbors_into_512(
    words: int, encoding: Encoding
) -> None:
    text, other = " ".join(["word"] * words), "two words"
    total = len(chunk(text, TEN_WORDS))
    answer = await embed_chunks(
        ENDPOINT, TEN_WORDS, Embed(texts=[other, text]), Model(Encoding.JSON), encoding=encoding
    )
    assert len(answer.texts) == len(answer.vectors.items) == total + 1
    [[first], chunks] = answer.items
    assert first.text == other
    assert len(chunks) == min(total, 512)
    if encoding is Encoding.F32:
        places = [struct.unpack("<2f", one.vector)[1] for one in chunks]
        assert places == merged_as_elasticsearch_does(range(1, total + 1))
    else:
        assert chunks[-1].vector.startswith(b"[")
    assert (chunks[0].place.start, chunks[-1].place.end) == (0, len(text))
    for one in chunks:
        assert text[one.place.start : one.place.end] == one.text


async def test_chunking_five_megabytes_does_not_block_the_event_loop() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    text = "The harbour town wakes slowly. " * 165_000
    answer = await embed_chunks(
        ENDPOINT, DEFAULT_CHUNKING, Embed(texts=[text]), Model(), encoding=Encoding.F32
    )
    turning.cancel()
    assert turns > 100
    assert len(answer.items[0]) == 512
    assert len(answer.texts) > 3000


async def test_rejects_too_many_characters_before_chunking() -> None:
    texts = ["a" * chunks_module.MAX_CHARACTERS, "b"]
    model = Model()
    with pytest.raises(BodyTooLarge, match=r"6000001 characters in total; the maximum .* is 6000000"):
        await embed_chunks(ENDPOINT, TEN_WORDS, Embed(texts=texts), model, encoding=Encoding.F32)
    assert model.calls == []


async def test_rejects_too_many_chunks_in_one_request() -> None:
    most = chunks_module.MAX_CHUNKS
    fits = ["a b"] * most
    answer = await embed_chunks(ENDPOINT, WHOLE, Embed(texts=fits), Model(), encoding=Encoding.F32)
    assert len(answer.items) == most
    model = Model()
    with pytest.raises(BodyTooLarge, match=r"more than 8192 chunks.* increase max_chunk_size"):
        await embed_chunks(ENDPOINT, WHOLE, Embed(texts=[*fits, "a"]), model, encoding=Encoding.F32)
    assert model.calls == []


async def test_rejects_an_invalid_separator() -> None:
    settings = ChunkingSettings(strategy="recursive", max_chunk_size=10, separators=("(",))
    with pytest.raises(InvalidChunking, match="separators"):
        await embed_chunks(ENDPOINT, settings, Embed(texts=["a"]), Model(), encoding=Encoding.F32)


async def test_warns_of_chunks_that_may_be_or_were_too_long() -> None:
    measured = ChunkFit(words=9, language="Thai", words_in_english=99)
    endpoint = replace(ENDPOINT, facts=Facts(max_input_tokens=64, chunk_fit=measured))
    call = Embed(texts=["word " * 30])
    answer = await embed_chunks(endpoint, TEN_WORDS, call, Model(truncated=2), encoding=Encoding.F32)
    model, size, cut = answer.warnings
    assert model == "w"
    assert size.startswith("Chunks of 10 words can be longer than the 64 tokens that the model reads")
    assert cut == "2 of 5 chunks were longer than the model reads, and were cut."


async def test_does_not_warn_when_all_chunks_fit() -> None:
    measured = ChunkFit(words=10, language="Thai", words_in_english=99)
    endpoint = replace(ENDPOINT, facts=Facts(max_input_tokens=64, chunk_fit=measured))
    call = Embed(texts=["word " * 30])
    answer = await embed_chunks(endpoint, TEN_WORDS, call, Model(truncated=0), encoding=Encoding.F32)
    assert answer.warnings == ("w",)


async def test_texts_of_one_call_share_the_time_budget_for_separators() -> None:
    """Otherwise 2,000 texts of one second each would block a thread for half an hour."""
    hostile = ChunkingSettings(strategy="recursive", max_chunk_size=10, separators=("(a|aa)+X",))
    patience, text = TimeBudget(0.2), "a" * 25 + " b" * 12
    with pytest.raises(InvalidChunking):
        [chunk(text, hostile, patience) for _ in range(1000)]


async def test_slow_separators_block_only_other_chunking() -> None:
    hostile = ChunkingSettings(strategy="recursive", max_chunk_size=10, separators=("(a|aa)+X",))
    call = Embed(texts=["a" * 60 + " b" * 12])
    cutting = [
        asyncio.create_task(embed_chunks(ENDPOINT, hostile, call, Model(), encoding=Encoding.F32))
        for _ in range(40)
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(len, "such as resolving a name")
    assert not any(task.done() for task in cutting)
    names = [thread.name for thread in threading.enumerate()]
    assert 1 <= sum(name.startswith("hubgate-chunking") for name in names) <= 4
    for task in cutting:
        task.cancel()
    await asyncio.gather(*cutting, return_exceptions=True)
