"""all-MiniLM-L6-v2 through the whole runtime: the vectors of sentence-transformers, vLLM and infinity.

`tests/data/golden` is written by `scripts/record_golden_vectors.py`; the engines' exchanges were recorded from them.
"""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytest_asyncio

from hubgate.domain.calls import Embed, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.upstreams.local.source import LocalSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hubgate.domain.ports import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
DATA = Path(__file__).parents[2] / "data"
GOLDEN = json.loads((DATA / "golden" / "all-minilm-l6-v2.json").read_text("utf-8"))
TEXTS = [row["text"] for row in GOLDEN["rows"]]
VECTORS = np.array([np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in GOLDEN["rows"]])
TOLERANCE = 1e-4
"""What is promised. Measured: 2.4e-7 at most."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm() -> AsyncIterator[Upstream]:
    source = LocalSource()
    model = Endpoint(
        name="minilm",
        task=Task.TEXT_EMBEDDING,
        source=Source.LOCAL,
        model="sentence-transformers/all-MiniLM-L6-v2",
    )
    yield source.open(Target(model))
    await source.close()


async def embed(upstream: Upstream, texts: Sequence[str], **options: Any) -> np.ndarray[Any, Any]:
    result = await upstream(Embed(texts=texts, **options))
    assert isinstance(result, Vectors)
    return np.array([np.frombuffer(item, "<f4") for item in result.items])


async def test_batch_matches_sentence_transformers(minilm: Upstream) -> None:
    assert np.abs(await embed(minilm, TEXTS) - VECTORS).max() < TOLERANCE


async def test_single_texts_match_sentence_transformers(minilm: Upstream) -> None:
    for text, vector in zip(TEXTS, VECTORS, strict=True):
        assert np.abs((await embed(minilm, [text]))[0] - vector).max() < TOLERANCE, text


async def test_vector_does_not_depend_on_other_texts_in_batch(minilm: Upstream) -> None:
    order = list(range(len(TEXTS))) * 2
    random.Random(5).shuffle(order)
    found = await embed(minilm, [TEXTS[index] for index in order])
    assert np.abs(found - VECTORS[order]).max() < TOLERANCE


async def test_truncation_matches_sentence_transformers(
    minilm: Upstream,
) -> None:
    long = [text for text in TEXTS if len(text) > 1000]
    result = await minilm(Embed(texts=[*long, "short"]))
    assert isinstance(result, Vectors)
    assert result.text_tokens is not None
    assert result.text_truncated is not None
    assert GOLDEN["max_seq_length"] == 256
    for tokens, cut in zip(result.text_tokens, result.text_truncated, strict=True):
        assert tokens == 256 if cut else tokens <= 256
    assert result.truncated == sum(result.text_truncated) >= 3
    assert (result.tokens, result.exact) == (sum(result.text_tokens), True)


async def test_unnormalized_vector_has_same_direction(minilm: Upstream) -> None:
    raw = await embed(minilm, TEXTS, normalize=False)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.01
    assert np.abs(raw / lengths - VECTORS).max() < TOLERANCE


@pytest.mark.parametrize("engine", ["vllm-0.32.0-embed", "infinity-0.0.78-embed"])
async def test_vectors_match_other_engines(minilm: Upstream, engine: str) -> None:
    exchanges = json.loads((DATA / "engines" / f"{engine}.json").read_text("utf-8"))
    answered = [
        (exchange["request"]["body"], json.loads(exchange["response"]["body"])["data"])
        for exchange in exchanges
        if exchange["label"] in {"emb /v1/embeddings", "emb no model /v1/embeddings"}
    ]
    for question, rows in answered:
        texts = question["input"] if isinstance(question["input"], list) else [question["input"]]
        recorded = np.array([row["embedding"] for row in rows])
        assert np.abs(await embed(minilm, texts) - recorded).max() < TOLERANCE
    assert len(answered) == 2


async def test_tokens_match_vllm(minilm: Upstream) -> None:
    exchanges = json.loads((DATA / "engines" / "vllm-0.32.0-embed.json").read_text("utf-8"))
    recorded = next(json.loads(e["response"]["body"]) for e in exchanges if e["label"] == "tokenize")
    result = await minilm(Tokenize(texts=["hello"]))
    assert isinstance(result, Tokens)
    assert [token.id for token in result.items[0]] == recorded["tokens"]
