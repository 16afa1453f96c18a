"""Unloading of idle workers, their memory and CPU use, and parallel lanes."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from tiny_model import TinyModelFolder, embed_request, embed_texts, worker_process

from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.batching import MAX_PADDED_TOKENS, TextQueue
from hubgate.runtime.machine import CpuShare, available_cpus, process_memory
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.process import worker_command
from hubgate.runtime.protocol import RankTexts, encode_frame
from hubgate.runtime.supervisor import LocalModel
from hubgate.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiny_model import Array

    from hubgate.runtime.model.compiled import Lane
    from hubgate.runtime.model.tokenizer import ModelInput


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TinyModelFolder:
    return TinyModelFolder(tmp_path_factory.mktemp("tiny"))


async def test_idle_model_is_unloaded_and_reloaded_by_next_call(
    folder: TinyModelFolder,
) -> None:
    model = LocalModel(folder.path, idle_seconds=0.05)
    assert model.memory is None
    first = await embed_texts(model, "w1")
    process = worker_process(model)
    await process._task
    assert model.memory is None
    assert (await embed_texts(model, "w1") == first).all()
    assert worker_process(model) is not process
    await model.close()


async def test_model_loaded_after_its_callers_left_is_unloaded(
    folder: TinyModelFolder,
) -> None:
    model = LocalModel(folder.path, idle_seconds=0.01)
    leaver = asyncio.create_task(model.ready())
    await asyncio.sleep(0)
    leaver.cancel()
    assert model._start is not None
    process = await model._start
    await process._task
    await model.close()


async def test_a_busy_model_is_not_unloaded(folder: TinyModelFolder) -> None:
    model = LocalModel(folder.path, idle_seconds=0.0)
    await model.ready()
    with model._in_use():
        first = await embed_texts(model, "w1 w2")
        process = worker_process(model)
        assert (await embed_texts(model, "w1 w2") == first).all()
        assert worker_process(model) is process
    await process._task
    await model.close()


async def test_worker_memory_is_reported_where_the_os_supports_it(folder: TinyModelFolder) -> None:
    model = LocalModel(folder.path)
    await model.ready()
    if sys.platform == "linux":
        assert (model.memory or 0) > 10_000_000
    await model.close()
    assert model.memory is None
    assert process_memory(2**22 + 1) is None


async def test_multiple_lanes_give_same_results_as_one(folder: TinyModelFolder) -> None:
    command = partial(worker_command, share=CpuShare(threads=2, lanes=2))
    model = LocalModel(folder.path, command=command)
    calls = [[f"w{(n * 7 + k) % 96} " * (1 + (n + k) % 30) for k in range(40)] for n in range(8)]
    answers = await asyncio.gather(*(embed_texts(model, *texts) for texts in calls))
    for texts, found in zip(calls, answers, strict=True):
        assert np.abs(found - np.array([folder.vector(text) for text in texts])).max() < 1e-5
    with pytest.raises(InvalidRequest, match="cannot rerank"):
        await model.request(lambda call: RankTexts(call, "w1", ["w2"], True, None))
    await model.close()


class _Looked(TextQueue):
    """Signals when each of two lanes has found no work and goes to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Semaphore(0)

    def __bool__(self) -> bool:
        found = super().__bool__()
        if not found:
            self.both.release()
        return found


class _Meeting:
    """A lane that runs its batch only once another lane runs too."""

    def __init__(self, lane: Lane, met: threading.Barrier) -> None:
        self._lane = lane
        self._met = met

    def run(self, rows: Sequence[ModelInput]) -> list[Array]:
        self._met.wait(240)
        return self._lane.run(rows)


def test_one_large_call_uses_every_lane(folder: TinyModelFolder) -> None:
    spec, waiting, met = read_model_spec(folder.path), _Looked(), threading.Barrier(2)
    model = CompiledModel(spec, share=CpuShare(threads=2, lanes=2))
    model.lanes = [cast("Lane", _Meeting(lane, met)) for lane in model.lanes]
    there, here = os.pipe()
    with os.fdopen(there, "rb") as requests, os.fdopen(here, "wb") as gateway:
        serving = threading.Thread(
            target=Worker(spec, model, io.BytesIO(), waiting).serve, args=(requests,), daemon=True
        )
        serving.start()
        for _ in model.lanes:
            waiting.both.acquire()
        texts = ["w1 " * 40] * (2 * MAX_PADDED_TOKENS // 48)
        gateway.write(encode_frame(embed_request(*texts)(1)))
        gateway.flush()
        for _ in model.lanes:  # both have taken all there is, or one waits in vain for the other
            assert waiting.both.acquire(timeout=240)
        gateway.close()
        serving.join()
    assert not met.broken


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        (CpuShare(2), CpuShare(2, 1)),
        (CpuShare(16), CpuShare(16, 2)),
        (CpuShare(4, 4), CpuShare(4, 4)),
        (CpuShare(2, 9), CpuShare(2, 2)),
    ],
)
def test_lane_has_eight_threads_by_default(given: CpuShare, settled: CpuShare) -> None:
    assert given.resolve() == settled


def test_model_uses_all_available_cpus() -> None:
    assert CpuShare().resolve().threads == available_cpus()
    assert available_cpus() <= (os.cpu_count() or 1)
