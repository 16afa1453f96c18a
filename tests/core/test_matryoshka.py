"""Vectors are shortened only for models that were trained for it."""

from __future__ import annotations

import math

import orjson
import pytest

from hubgate.core.matryoshka import ShortenStep, shorter_sizes
from hubgate.core.vectors import f32, floats
from hubgate.domain.calls import Call, Embed, Encoding, Result, Tokenize, Tokens, Vectors
from hubgate.domain.errors import InvalidRequest

NUMBERS = [math.sin(place + 1) + 0.25 for place in range(768)]
GEMMA, NOMIC = "google/embeddinggemma-300m", "nomic-ai/nomic-embed-text-v1.5"


class Model:
    """Returns the same 768 numbers for every text, and records its calls."""

    def __init__(self, encoding: Encoding = Encoding.F32) -> None:
        self.calls: list[Call] = []
        self.encoding = encoding

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        if isinstance(call, Tokenize):
            return Tokens([])
        item = f32(NUMBERS) if self.encoding is Encoding.F32 else orjson.dumps(NUMBERS)
        return Vectors(items=[item] * len(call.texts), encoding=self.encoding, tokens=7, exact=True)


async def shortened(call: Call, *, model: str | None = GEMMA, upstream: Model | None = None) -> Vectors:
    result = await ShortenStep(upstream or Model(), model=model, dimensions=768)(call)
    assert isinstance(result, Vectors)
    return result


def unit(numbers: list[float]) -> list[float]:
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


@pytest.mark.parametrize("encoding", Encoding)
async def test_shortened_vectors_are_normalized(encoding: Encoding) -> None:
    vectors = await shortened(Embed(texts=("a", "b"), dimensions=128), upstream=Model(encoding))
    assert vectors.encoding is Encoding.F32
    assert [floats(item) for item in vectors.items] == [pytest.approx(unit(NUMBERS[:128]), abs=1e-7)] * 2


async def test_shortening_keeps_token_counts() -> None:
    vectors = await shortened(Embed(texts=("a",), dimensions=128))
    assert (vectors.tokens, vectors.exact) == (7, True)


async def test_centers_vectors_before_shortening_for_models_that_need_it() -> None:
    vectors = await shortened(Embed(texts=("a",), dimensions=256), model=NOMIC)
    mean = sum(NUMBERS) / len(NUMBERS)
    assert floats(vectors.items[0]) == pytest.approx(
        unit([number - mean for number in NUMBERS[:256]]), abs=1e-6
    )


async def test_does_not_normalize_shortened_vectors_when_disabled() -> None:
    vectors = await shortened(Embed(texts=("a",), dimensions=128, normalize=False))
    assert vectors.items == [f32(NUMBERS[:128])]


@pytest.mark.parametrize("model", [GEMMA, "sentence-transformers/all-mpnet-base-v2", None])
async def test_drops_dimensions_option_equal_to_the_model_dimensions(model: str | None) -> None:
    upstream = Model(Encoding.JSON)
    vectors = await shortened(Embed(texts=("a",), dimensions=768), model=model, upstream=upstream)
    assert vectors.items == [orjson.dumps(NUMBERS)]
    assert upstream.calls == [Embed(texts=("a",))]


async def test_requests_full_vectors_for_every_size() -> None:
    """As floats, which are shortened, whatever the caller needs."""
    upstream = Model()
    for size in (128, 256, 512):
        call = Embed(texts=("a",), dimensions=size, encoding=Encoding.JSON)
        await shortened(call, upstream=upstream)
    assert upstream.calls == [Embed(texts=("a",), encoding=Encoding.F32)] * 3


@pytest.mark.parametrize("call", [Embed(texts=("a",)), Tokenize(texts=("a",))])
async def test_passes_calls_without_dimensions_through(call: Call) -> None:
    upstream = Model()
    await ShortenStep(upstream, model=GEMMA, dimensions=768)(call)
    assert upstream.calls[0] is call


async def test_forwards_dimensions_when_model_dimensions_are_unknown() -> None:
    upstream, call = Model(), Embed(texts=("a",), dimensions=128)
    await ShortenStep(upstream, model=GEMMA, dimensions=None)(call)
    assert upstream.calls[0] is call


@pytest.mark.parametrize(
    ("model", "asked", "says"),
    [
        (GEMMA, 100, "may be truncated to 128 or 256 or 512"),
        (GEMMA, 769, "returns vectors of 768 dimensions"),
        (GEMMA, 0, "cannot be 0"),
        (NOMIC, 63, "any number of dimensions from 64 to 767"),
        ("BAAI/bge-m3", 512, r"\[BAAI/bge-m3\] returns vectors of 768 dimensions and is not known"),
        (None, 512, "the model returns vectors of 768 dimensions and is not known"),
    ],
)
async def test_rejects_unsupported_dimensions_with_reason_and_remedy(
    model: str | None, asked: int, says: str
) -> None:
    upstream = Model()
    with pytest.raises(InvalidRequest, match=says) as refusal:
        await shortened(Embed(texts=("a",), dimensions=asked), model=model, upstream=upstream)
    assert "[dimensions]" in refusal.value.remedy
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("model", "dimensions", "sizes"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", 1024, range(32, 1024)),
        ("Qwen/Qwen3-Embedding-8B", 4096, range(32, 4096)),
        ("Qwen/Qwen3-Embedding-0.6B-GGUF", 1024, range(32, 1024)),
        ("/models/nomic-embed-text-v1.5.Q8_0.gguf", 768, range(64, 768)),
        ("nomic-ai/nomic-embed-text-v2-moe", 768, range(256, 768)),
        ("nomic-ai/nomic-embed-text-v1", 768, ()),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", 768, (256,)),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", 1024, (256,)),
        ("Snowflake/snowflake-arctic-embed-m", 768, ()),
        ("mixedbread-ai/mxbai-embed-large-v1", 1024, (512,)),
        ("jinaai/jina-embeddings-v3", 512, (32, 64, 128, 256)),
        ("google/embeddinggemma-2", 768, (128, 256, 512)),
        ("jinaai/jina-embeddings-v5-text-small-retrieval", 1024, (32, 64, 128, 256, 512, 768)),
        ("jinaai/jina-embeddings-v5-text-nano", 768, (32, 64, 128, 256, 512)),
        ("ibm-granite/granite-embedding-311m-multilingual-r2", 768, (128, 256, 384, 512)),
        ("Alibaba-NLP/gte-multilingual-base", 768, range(128, 768)),
        ("sentence-transformers/all-MiniLM-L6-v2", 384, ()),
        (None, 384, ()),
    ],
)
def test_finds_supported_sizes_by_model_name(
    model: str | None, dimensions: int, sizes: range | tuple[int, ...]
) -> None:
    assert shorter_sizes(model, dimensions) == sizes


def test_fine_tuned_model_is_not_treated_as_its_base_model() -> None:
    assert shorter_sizes("someone/embeddinggemma-300m-medical", 768) == ()
    assert shorter_sizes("someone/my-qwen3-embedding-0.6b", 1024) == ()


def test_copy_has_the_sizes_of_its_original() -> None:
    assert shorter_sizes("someone/tiny", 768, original=GEMMA) == (128, 256, 512)


def test_sizes_of_the_card_apply_to_a_model_that_the_table_does_not_have() -> None:
    assert shorter_sizes("someone/tuned", 768, published=(64, 256, 768)) == (64, 256)
    assert shorter_sizes(GEMMA, 768, published=(64, 256)) == (128, 256, 512)


def test_operator_allows_any_size_from_the_smallest_on() -> None:
    assert shorter_sizes("someone/tuned", 768, published=(256,), smallest=32) == range(32, 768)
    assert shorter_sizes(GEMMA, 768, smallest=100) == range(100, 768)
    assert not shorter_sizes("someone/tuned", 768, smallest=800)
