"""`hubgate serve --workers N`: several gateways on one port of one machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deploy.steady_load import SteadyLoad
from gateway_process import Home
from tiny_model import TinyModelFolder

from hubgate.cli.server.workers import run_workers
from hubgate.settings import InvalidSetting, Settings

if TYPE_CHECKING:
    from gateway_process import GatewayProcess

WORKERS = 2


def workers_of(gateway: GatewayProcess) -> list[int]:
    """The process ids of its workers."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii")
    return [int(pid) for pid in children.split()]


def own_urls(gateway: GatewayProcess) -> list[str]:
    ports = gateway.wait_for(r"with \d+ workers \(on ([\d, ]+)\)")[1].split(", ")
    return [f"http://127.0.0.1:{port}" for port in ports]


def embedding(url: str, model: str, key: str) -> list[float]:
    body = json.dumps({"model": model, "input": "w1 w2"}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/v1/embeddings", body, headers), timeout=240
    ) as reply:
        found: list[float] = json.load(reply)["data"][0]["embedding"]
        return found


def model_processes(home: Home) -> list[int]:
    """The processes that run the local models of this home."""
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and f"{home.env['HUBGATE_HOME']}/workers/models" in command_line(process)
    ]


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text("utf-8", "replace")
    except OSError:  # it has ended
        return ""


def test_workers_share_a_port_and_models_and_a_killed_one_comes_back(
    tmp_path: Path, migrated_url: str
) -> None:
    key = secrets.token_urlsafe(24)
    home = Home(tmp_path, key)
    home.env |= {"HUBGATE_DATABASE_URL": migrated_url, "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32)}
    model = TinyModelFolder(tmp_path / "tiny")
    with ExitStack() as stack:
        gateway = stack.enter_context(home.serve("--workers", str(WORKERS)))
        first, second = own_urls(gateway)
        words = {"name": "words", "task": "text_embedding", "source": "fake", "dimensions": 8}
        tiny = {"name": "tiny", "task": "text_embedding", "source": "local", "model": str(model.path)}
        for form in (words, tiny):
            assert gateway.request("POST", "/api/endpoints", form, key=key).status == 201
        listed = home.run("gates")  # with the key of this machine's commands, at either worker
        assert (listed.status, listed.out.count("serving")) == (0, WORKERS), listed
        assert embedding(first, "tiny", key) == embedding(second, "tiny", key)
        (model_process,) = model_processes(home)
        victim, survivor = workers_of(gateway)
        with (
            SteadyLoad([second], key=key, model="words", callers=2) as others,
            SteadyLoad([gateway.url], key=key, model="words", callers=8) as load,
        ):
            load.wait_for(5)
            os.kill(victim, signal.SIGKILL)
            gateway.wait_for(r"worker 1 was ended by SIGKILL: starting it again in 0 seconds")
            gateway.wait_for("worker 1 serves again")
            others.wait_for(5)
        assert others.failures == [], "calls of the other worker"
        # A call that was being served, and one on a connection that came while the kernel closed the worker's sockets.
        assert len(load.failures) <= 2 * 8, "each caller had at most two calls at the killed worker"
        assert len(workers_of(gateway)) == WORKERS
        assert survivor in workers_of(gateway)
        assert embedding(second, "tiny", key)
        assert model_processes(home) == [model_process]
        gateway.signal(signal.SIGHUP)  # it must not end the parent before its workers
        assert gateway.wait() == 0
        assert gateway.output.count("stopping: finishing requests in flight") == WORKERS
        assert not gateway.traceback, gateway.traceback


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--workers needs PostgreSQL"),
        ({"HUBGATE_DATABASE_URL": "postgresql://h/d", "HUBGATE_PORT": "65534"}, "must be at most 65533"),
    ],
)
def test_settings_that_workers_cannot_have_are_refused_in_one_sentence(
    tmp_path: Path, given: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message) as refused:
        run_workers(Settings.from_env({"HUBGATE_HOME": str(tmp_path), **given}), WORKERS)
    assert str(refused.value).count(". ") == 0


def test_workers_that_cannot_start_stop_with_one_error(tmp_path: Path, database_url: str) -> None:
    home = Home(tmp_path)
    home.env |= {"HUBGATE_DATABASE_URL": database_url}
    refused = home.run("serve", "--workers", "3")
    assert refused.status == 1
    assert refused.err.count("HUBGATE_SECRET_KEY must be set") == 1
