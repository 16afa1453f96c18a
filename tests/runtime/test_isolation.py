"""Isolation of the worker: no network, no gateway secrets, reserved stdout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import uvloop
from tiny_model import HIDDEN, MAX_TOKENS, TinyModelFolder, embed_texts

from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.process import WorkerProcess, worker_command
from hubgate.runtime.protocol import EmbedTexts, Ready, encode_frame
from hubgate.runtime.supervisor import LocalModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TinyModelFolder:
    return TinyModelFolder(tmp_path_factory.mktemp("tiny"))


def test_worker_exits_at_end_of_input_and_reserves_stdout(folder: TinyModelFolder) -> None:
    requests = encode_frame(EmbedTexts(1, ["w1"], None, True, False, None))[:-3]
    done = subprocess.run(worker_command(folder.path), input=requests, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout == encode_frame(Ready(HIDDEN, "f32", MAX_TOKENS))


def test_worker_exits_with_reason_on_malformed_request(folder: TinyModelFolder) -> None:
    done = subprocess.run(
        worker_command(folder.path), input=b"\x01\0\0\0\xc1", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"msgspec." in done.stderr.splitlines()[-1]


async def test_worker_receives_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HUBGATE_SECRET_KEY", "HUBGATE_ADMIN_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "not for workers")
    file = tmp_path / "environment"
    script = f"import os, json, pathlib; pathlib.Path({str(file)!r}).write_text(json.dumps(dict(os.environ)))"
    process = await WorkerProcess.start([sys.executable, "-c", script])
    with pytest.raises(RuntimeFailed, match="ended with status 0"):
        await process.ready()
    environment = json.loads(file.read_text())
    assert environment["PATH"] == os.environ["PATH"]
    assert "not for workers" not in environment.values()


WITH_CHILD = """
import os, time
if os.fork() == 0:
    os.closerange(0, 2)
    os.closerange(3, 300)
time.sleep(60)
"""


def test_call_to_a_killed_worker_fails_with_its_end() -> None:
    """Its input is closed before its errors, which a child of it holds here. uvloop then refuses to write."""

    async def main() -> None:
        worker = await WorkerProcess.start([sys.executable, "-c", WITH_CHILD])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.ready(), 1)
        os.kill(worker.pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
        call = asyncio.create_task(
            worker.request(lambda number: EmbedTexts(number, ["a"], None, True, False, None))
        )
        await asyncio.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):  # on a slow machine it had no child yet
            os.killpg(worker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeFailed):
            await asyncio.wait_for(call, 30)

    uvloop.run(main())


WATCHED = """
import os, runpy, sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        os._exit(99)
sys.addaudithook(watch)
"""


async def test_loading_and_embedding_make_no_network_access(folder: TinyModelFolder, tmp_path: Path) -> None:
    """Also where OpenVINO's telemetry is installed, which reports on import: here a decoy that ends the process."""
    (tmp_path / "openvino_telemetry.py").write_text("import os; os._exit(98)")
    worker = f"""
sys.path.insert(0, {str(tmp_path)!r})
sys.argv = ["worker", {str(folder.path)!r}]
runpy.run_module("hubgate.runtime.worker", run_name="__main__")
"""
    model = LocalModel(folder.path, command=lambda _: [sys.executable, "-c", WATCHED + worker])
    assert np.abs((await embed_texts(model, "w1"))[0] - folder.vector("w1")).max() < 1e-5
    await model.close()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("import socket; socket.getaddrinfo('localhost', 1)", 99),
        ("import socket; socket.socket().connect(('127.0.0.1', 1))", 99),
        ("pass", 0),
    ],
)
def test_socket_audit_detects_dns_lookups_and_connections(line: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED + line], check=False, capture_output=True)
    assert done.returncode == status


def test_openvino_is_imported_only_where_its_telemetry_is_blocked() -> None:
    """`causal.py` imports `graph.py` before OpenVINO GenAI."""
    source = Path(__file__).parents[2] / "src"
    importers = [
        file.name
        for file in source.rglob("*.py")
        if any(
            line.startswith(("import openvino", "from openvino"))
            for line in file.read_text("utf-8").splitlines()
        )
    ]
    assert sorted(importers) == ["causal.py", "graph.py"]
