"""Calls to a worker, one at a time and concurrently, as the gateway makes them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio
from tiny_model import HIDDEN, TinyModelFolder, embed_request, embed_texts, worker_process, write_json

from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.protocol import Embedded, Tokenized, TokenizeTexts
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TinyModelFolder:
    return TinyModelFolder(tmp_path_factory.mktemp("tiny"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(folder: TinyModelFolder) -> AsyncIterator[LocalModel]:
    """One model for all: a test that ends its worker finds that the next call starts another."""
    model = LocalModel(folder.path)
    yield model
    await model.close()


async def test_vectors_are_returned_in_order_of_texts(model: LocalModel, folder: TinyModelFolder) -> None:
    texts = [f"w{n} " * (1 + n % 40) for n in range(90)]
    assert (await model.ready()).width == HIDDEN
    found = await embed_texts(model, *texts)
    assert np.abs(found - np.array([folder.vector(text) for text in texts])).max() < 1e-5


async def test_concurrent_calls_get_their_own_vectors_in_order(
    model: LocalModel, folder: TinyModelFolder
) -> None:
    calls = [
        [f"w{(n * 7 + k) % 96} " * (1 + (n + k) % 30) for k in range(1 if n % 4 else 60)] for n in range(16)
    ]
    answers = await asyncio.gather(*(embed_texts(model, *texts) for texts in calls))
    for texts, found in zip(calls, answers, strict=True):
        assert np.abs(found - np.array([folder.vector(text) for text in texts])).max() < 1e-5


async def test_normalization_follows_model_unless_call_overrides_it(model: LocalModel) -> None:
    lengths = {}
    for normalize in (None, True, False):
        reply = await model.request(embed_request("w1 w2", normalize=normalize))
        assert isinstance(reply, Embedded)
        lengths[normalize] = np.linalg.norm(np.frombuffer(reply.vectors, "<f4"))
    assert lengths[None] == pytest.approx(1, abs=1e-6) == lengths[True]
    assert lengths[False] != pytest.approx(1, abs=1e-2)


async def test_tokens_and_truncated_texts_are_counted_exactly(model: LocalModel) -> None:
    reply = await model.request(embed_request("", "w1 w2", "w3 " * 200))
    assert isinstance(reply, Embedded)
    assert reply.tokens == [2, 4, 48]
    assert reply.truncated == [False, False, True]


async def test_prompt_precedes_each_text_and_unknown_prompt_is_rejected(
    model: LocalModel, folder: TinyModelFolder
) -> None:
    reply = await model.request(embed_request("w5", prompt="query"))
    assert isinstance(reply, Embedded)
    assert np.abs(np.frombuffer(reply.vectors, "<f4") - folder.vector("w1 w2 w5")).max() < 1e-5
    with pytest.raises(InvalidRequest, match=r"no prompt named \[other\]. Its prompts: nothing, query"):
        await model.request(embed_request("w5", prompt="other"))


async def test_no_texts_give_no_vectors(model: LocalModel) -> None:
    assert (await embed_texts(model)).shape == (0, HIDDEN)


async def test_worker_tokenizes_texts(model: LocalModel) -> None:
    reply = await model.request(lambda call: TokenizeTexts(call, ["w1", ""], True))
    assert isinstance(reply, Tokenized)
    assert [[token.text for token in tokens] for tokens in reply.items] == [
        ["[CLS]", "w1", "[SEP]"],
        ["[CLS]", "[SEP]"],
    ]


async def test_lone_surrogate_is_rejected_without_affecting_other_calls(model: LocalModel) -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        await model.request(embed_request("\ud83d"))
    assert len(await embed_texts(model, "w1")) == 1


async def test_cancelled_caller_does_not_affect_others(model: LocalModel, folder: TinyModelFolder) -> None:
    await model.ready()
    process = worker_process(model)
    os.kill(process.pid, signal.SIGSTOP)
    leavers = [asyncio.create_task(embed_texts(model, *["w1 w2 w3"] * 400)) for _ in range(3)]
    stays = asyncio.create_task(embed_texts(model, "w7"))
    await asyncio.sleep(0)
    for leaver in leavers:
        leaver.cancel()
    os.kill(process.pid, signal.SIGCONT)
    assert np.abs((await stays)[0] - folder.vector("w7")).max() < 1e-5
    assert all(leaver.cancelled() for leaver in leavers)
    assert worker_process(model) is process
    assert not process._calls


async def test_default_prompt_is_added_only_to_texts_without_a_prompt(tmp_path: Path) -> None:
    folder = TinyModelFolder(tmp_path)
    write_json(
        tmp_path / "config_sentence_transformers.json",
        {"prompts": {"query": "w1 w2 ", "passage": "w3 "}, "default_prompt_name": "passage"},
    )
    model = LocalModel(folder.path)
    try:
        found = await embed_texts(model, "w5", "w1 w2 w5", "w3 w5")
    finally:
        await model.close()
    expected = np.array([folder.vector(text) for text in ("w3 w5", "w1 w2 w5", "w3 w5")])
    assert np.abs(found - expected).max() < 1e-5
