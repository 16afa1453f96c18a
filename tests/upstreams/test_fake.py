"""The fake source: vectors without a model."""

from __future__ import annotations

import asyncio
import math

import pytest

from hubgate.core.vectors import floats
from hubgate.domain.calls import Embed, Encoding, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import Endpoint, Engine, Source, Target, Task
from hubgate.upstreams.fake import DEFAULT_DIMENSIONS, FakeSource


def endpoint(**settings: int) -> Endpoint:
    return Endpoint(name="fake", task=Task.TEXT_EMBEDDING, source=Source.FAKE, **settings)  # type: ignore[arg-type]


async def embed(call: Embed, **settings: int) -> Vectors:
    result = await FakeSource().open(Target(endpoint(**settings)))(call)
    assert isinstance(result, Vectors)
    return result


def cosine(left: bytes, right: bytes) -> float:
    return sum(a * b for a, b in zip(floats(left), floats(right), strict=True))


async def test_same_text_has_the_same_unit_vector() -> None:
    vectors = await embed(Embed(texts=["hello world", "hello world", "other"]))
    assert vectors.items[0] == vectors.items[1] != vectors.items[2]
    assert vectors.encoding is Encoding.F32
    assert [len(floats(item)) for item in vectors.items] == [DEFAULT_DIMENSIONS] * 3
    assert math.hypot(*floats(vectors.items[0])) == pytest.approx(1)
    assert (vectors.tokens, vectors.exact, vectors.truncated) == (5, True, 0)


async def test_texts_that_share_words_are_more_similar() -> None:
    vectors = await embed(Embed(texts=["the cat sat down", "a cat sat up", "quarterly revenue grew"]))
    near, far = cosine(vectors.items[0], vectors.items[1]), cosine(vectors.items[0], vectors.items[2])
    assert near > far + 0.2


async def test_dimensions_come_from_the_call_or_the_endpoint() -> None:
    assert len((await embed(Embed(texts=["a"]), dimensions=12)).items[0]) == 4 * 12
    assert len((await embed(Embed(texts=["a"], dimensions=3), dimensions=12)).items[0]) == 4 * 3


@pytest.mark.parametrize("text", ["", "   ", *(f"word{n} other{n} third{n}" for n in range(40))])
async def test_text_whose_words_cancel_out_still_has_a_vector(text: str) -> None:
    vectors = await embed(Embed(texts=[text]), dimensions=1)
    assert abs(floats(vectors.items[0])[0]) == 1


async def test_normalization_can_be_disabled() -> None:
    vectors = await embed(Embed(texts=["one two three"], normalize=False))
    assert math.hypot(*floats(vectors.items[0])) > 1.5


async def test_each_word_is_a_token_with_offsets() -> None:
    upstream = FakeSource().open(Target(endpoint()))
    result = await upstream(Tokenize(texts=["zwei  Wörter", ""]))
    assert isinstance(result, Tokens)
    assert [[(t.text, t.start, t.stop, t.special) for t in text] for text in result.items] == [
        [("zwei", 0, 4, False), ("Wörter", 6, 12, False)],
        [],
    ]
    await upstream.close()


async def test_detect_reports_the_fake_engine() -> None:
    source = FakeSource()
    facts = await source.detect(Target(endpoint(dimensions=5)))
    assert (facts.engine, facts.model, facts.dimensions) == (Engine.FAKE, "fake", 5)
    await source.close()


async def test_text_of_megabytes_is_truncated_without_blocking_the_event_loop() -> None:
    upstream = FakeSource().open(Target(endpoint()))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    result = await upstream(Embed(texts=["word " * 6_000_000, *["some words " * 2000] * 20]))
    task.cancel()
    assert isinstance(result, Vectors)
    assert result.text_truncated == [True, *[False] * 20]
    assert result.truncated == 1
    assert turns >= 20
