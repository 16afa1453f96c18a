"""Workers that end when nobody asks, what they take of the machine, and batches side by side."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial

import numpy as np
import pytest
from asking import Folder, process_of, vectors

from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.frames import RankTexts
from hubgate.runtime.process import memory_of, worker_command
from hubgate.runtime.share import Share, usable_cpus
from hubgate.runtime.supervisor import LocalModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("tiny"))


async def test_a_model_that_nobody_asks_is_unloaded_and_the_next_call_loads_it_again(folder: Folder) -> None:
    model = LocalModel(folder.path, idle_seconds=0.05)
    assert model.memory is None
    first = await vectors(model, "w1")
    process = process_of(model)
    await process._life
    assert model.memory is None
    assert (await vectors(model, "w1") == first).all()
    assert process_of(model) is not process
    await model.close()


async def test_a_model_that_loads_while_nobody_waits_any_more_is_unloaded_too(folder: Folder) -> None:
    model = LocalModel(folder.path, idle_seconds=0.01)
    leaver = asyncio.create_task(model.ready())
    await asyncio.sleep(0)
    leaver.cancel()
    assert model._start is not None
    process = await model._start
    await process._life
    await model.close()


async def test_a_busy_model_is_not_unloaded(folder: Folder) -> None:
    model = LocalModel(folder.path, idle_seconds=0.0)
    await model.ready()
    with model._in_use():
        first = await vectors(model, "w1 w2")
        process = process_of(model)
        assert (await vectors(model, "w1 w2") == first).all()
        assert process_of(model) is process
    await process._life
    await model.close()


async def test_the_memory_of_a_worker_is_told_where_the_system_tells_it(folder: Folder) -> None:
    model = LocalModel(folder.path)
    await model.ready()
    if sys.platform == "linux":
        assert (model.memory or 0) > 10_000_000
    await model.close()
    assert model.memory is None
    assert memory_of(2**22 + 1) is None


async def test_several_lanes_answer_as_one_does(folder: Folder) -> None:
    command = partial(worker_command, share=Share(threads=2, lanes=2))
    model = LocalModel(folder.path, command=command)
    calls = [[f"w{(n * 7 + k) % 96} " * (1 + (n + k) % 30) for k in range(40)] for n in range(8)]
    answers = await asyncio.gather(*(vectors(model, *texts) for texts in calls))
    for texts, found in zip(calls, answers, strict=True):
        assert np.abs(found - np.array([folder.vector(text) for text in texts])).max() < 1e-5
    with pytest.raises(InvalidRequest, match="ranks no texts"):
        await model.ask(lambda call: RankTexts(call, "w1", ["w2"], True, None))
    await model.close()


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        (Share(2), Share(2, 1)),
        (Share(16), Share(16, 2)),
        (Share(4, 4), Share(4, 4)),
        (Share(2, 9), Share(2, 2)),
    ],
)
def test_a_lane_has_eight_threads_unless_the_operator_says_otherwise(given: Share, settled: Share) -> None:
    assert given.settled() == settled


def test_a_model_takes_all_processors_that_it_may_use() -> None:
    assert Share().settled().threads == usable_cpus()
    assert usable_cpus() <= (os.cpu_count() or 1)
