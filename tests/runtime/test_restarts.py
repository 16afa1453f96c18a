"""Crashing workers, and the errors that callers receive."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_model import TinyModelFolder, embed_request, embed_texts, worker_process, write_tiny_model

from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


SCRIPT_OF_NO_MODEL = "import sys; print('first line', file=sys.stderr); sys.exit('the disk is on fire')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TinyModelFolder:
    return TinyModelFolder(tmp_path_factory.mktemp("tiny"))


async def test_killed_worker_fails_calls_in_flight_and_next_call_restarts_it(
    folder: TinyModelFolder,
) -> None:
    model = LocalModel(folder.path)
    await embed_texts(model, "w1")
    first = worker_process(model)
    os.kill(first.pid, signal.SIGSTOP)
    calls = [asyncio.create_task(embed_texts(model, "w1")) for _ in range(3)]
    await asyncio.sleep(0)
    os.kill(first.pid, signal.SIGKILL)
    for call in calls:
        with pytest.raises(RuntimeFailed, match="ended by SIGKILL") as failed:
            await call
        assert failed.value.cause is Cause.RUNTIME_CRASHED
        assert failed.value.retryable
    with pytest.raises(RuntimeFailed, match="SIGKILL"):
        await first.request(embed_request("w1"))
    assert np.abs((await embed_texts(model, "w1"))[0] - folder.vector("w1")).max() < 1e-5
    assert worker_process(model).pid != first.pid
    await model.close()


async def test_cancelled_caller_does_not_interrupt_model_loading(
    folder: TinyModelFolder,
) -> None:
    model = LocalModel(folder.path)
    leaver = asyncio.create_task(embed_texts(model, "w1"))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert len(await embed_texts(model, "w1")) == 1
    await model.close()


class Attempts:
    """A worker command that only counts its starts, and the clock of its supervisor."""

    def __init__(self, script: str, log: Path) -> None:
        self.script, self.log, self.now = script, log, 100.0

    def clock(self) -> float:
        return self.now

    def command(self, folder: Path) -> Sequence[str]:
        return [sys.executable, "-c", f"open({str(self.log)!r}, 'a').write('+'); {self.script}"]

    def count(self) -> int:
        return len(self.log.read_text())

    def model(self) -> LocalModel:
        return LocalModel(self.log, clock=self.clock, command=self.command)


async def test_crash_while_loading_is_reported_and_restarts_back_off(
    tmp_path: Path,
) -> None:
    attempts = Attempts(SCRIPT_OF_NO_MODEL, tmp_path / "log")
    model = attempts.model()
    for _ in range(6):
        with pytest.raises(
            RuntimeFailed, match=r"ended with status 1\. Its last output: the disk is on fire"
        ) as failed:
            await model.request(embed_request("w1"))
        assert failed.value.cause is Cause.RUNTIME_CRASHED
    assert attempts.count() == 2
    assert failed.value.retry_after == 1.0
    for seconds, started in ((1, 3), (1, 3), (1, 4), (60, 5), (59, 6), (60, 7)):
        attempts.now += seconds
        with pytest.raises(RuntimeFailed):
            await model.request(embed_request("w1"))
        assert attempts.count() == started
    await model.close()


async def test_unusable_model_folder_is_rejected_with_reason(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    model = LocalModel(tmp_path)
    with pytest.raises(RuntimeFailed, match=r"1_Pooling/config\.json is missing") as failed:
        await model.ready()
    assert failed.value.cause is Cause.MODEL_UNUSABLE
    await model.close()


async def test_worker_that_sends_malformed_reply_is_killed(tmp_path: Path) -> None:
    attempts = Attempts(
        "import os, time; os.write(1, bytes([1, 0, 0, 0, 193])); time.sleep(600)", tmp_path / "log"
    )
    with pytest.raises(RuntimeFailed, match="SIGKILL"):
        await attempts.model().request(embed_request("w1"))


async def test_worker_program_that_cannot_start_raises_clear_error(tmp_path: Path) -> None:
    model = LocalModel(tmp_path, command=lambda folder: [str(folder / "nothing")])
    with pytest.raises(RuntimeFailed, match="could not be started: No such file") as failed:
        await model.ready()
    assert failed.value.cause is Cause.RUNTIME_CRASHED


async def test_closed_model_rejects_calls(folder: TinyModelFolder) -> None:
    model = LocalModel(folder.path)
    await model.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        await model.ready()


async def test_suspended_worker_is_killed_when_model_closes(folder: TinyModelFolder) -> None:
    model = LocalModel(folder.path)
    await model.ready()
    process = worker_process(model)
    os.kill(process.pid, signal.SIGSTOP)
    await process.close(patience=0)
    assert process.ended
