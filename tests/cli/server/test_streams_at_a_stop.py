"""Streams that a stopping gateway ends: the client gets a whole body, with an error event in the format of its API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest
from gateway_process import HUBGATE
from lookalikes import lookalike
from running_gateway import RunningGateway
from yarl import URL

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from gateway_process import Home

    from hubgate.settings import Settings

CHAT = {"model": "llm", "messages": [{"role": "user", "content": "hi"}], "stream": True}
STREAMS: dict[str, tuple[dict[str, object], str]] = {
    "/v1/chat/completions": (CHAT, '{"error":{"message":'),
    "/hf/llm/v1/chat/completions": (CHAT, '"error":'),
    "/hf/llm/generate_stream": ({"inputs": "hi"}, '"error":'),
    "/_inference/chat_completion/llm/_stream": ({"messages": CHAT["messages"]}, '"error":'),
    "/v1/responses": ({"model": "llm", "input": "hi", "stream": True}, '"type":"error"'),
    "/v1/chat": ({"model": "llm", "message": "hi", "stream": True}, '"finish_reason":"ERROR"'),
    "/v2/chat": (CHAT, '"finish_reason":"ERROR"'),
}
"""Path, body, and what the error event of this API has."""


def open_stream(stack: ExitStack, url: str, key: str, path: str) -> HTTPResponse:
    """A stream of which a part has arrived."""
    at = URL(url)
    connection = HTTPConnection(str(at.host), at.port, timeout=240)
    stack.callback(connection.close)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(STREAMS[path][0]), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.readline()
    return response


def test_each_api_gets_an_error_event_when_the_drain_is_over(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(lookalike("vllm", kind="llm"))
        gateway = stack.enter_context(RunningGateway(replace(settings, drain_seconds=0)))
        gateway.add("llm", url=server.url, task="chat_completion")
        server.fail("stall")
        streams = {path: open_stream(stack, gateway.url, gateway.admin_key, path) for path in STREAMS}
        gateway._loop.call_soon_threadsafe(gateway._server.handle_exit, signal.SIGTERM, None)
        for path, stream in streams.items():
            rest = stream.read().decode()  # raises IncompleteRead if it is torn
            last = rest.rstrip("\n").rpartition("\n\n")[2]
            assert STREAMS[path][1] in last, rest
            assert "shutting down" in rest, rest
            assert "[DONE]" not in rest
    assert [(one.name, one.levelname) for one in caplog.records if one.levelno >= 30] == [
        ("hubgate.cli.server.draining", "WARNING")
    ]
    assert f"cancelling {len(STREAMS)} requests" in caplog.text


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_stream_is_completed_while_the_gateway_drains(home: Home, stop: signal.Signals) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(lookalike("vllm", kind="llm"))
        gateway = stack.enter_context(home.serve())
        form = {"name": "llm", "url": server.url, "task": "chat_completion"}
        assert gateway.request("POST", "/api/endpoints", form, key=home.admin_key).status == 201
        server.fail("pause")
        stream = open_stream(stack, gateway.url, home.admin_key, "/v1/chat/completions")
        gateway.signal(stop)
        gateway.wait_for("stopping")
        server.heal()
        assert "error" not in stream.read().decode()
        assert gateway.wait() == 0
        assert "hubgate has stopped." in gateway.output
        assert " ERROR " not in gateway.output
        assert not gateway.traceback, gateway.traceback


def test_closed_terminal_is_a_clean_stop(home: Home) -> None:
    master, slave = os.openpty()
    env = home.env | {"PYTHONUNBUFFERED": ""}  # set where CI runs, and seldom elsewhere
    with subprocess.Popen([*HUBGATE, "serve"], env=env, stdout=slave, stderr=slave) as process:
        os.close(slave)
        output = b""
        while b"serves on" not in output:
            output += os.read(master, 4096)
        os.close(master)  # what it writes from now on fails
        process.send_signal(signal.SIGHUP)  # as the kernel does, for a process that this terminal controls
        assert process.wait(240) == 0


def test_nohup_lets_hubgate_outlive_its_terminal() -> None:
    """`nohup` starts a process that ignores SIGHUP, and a handler would undo that."""
    code = "import signal; from hubgate.cli.server.process import stop_signals; print(signal.SIGHUP in stop_signals())"
    for command, stops in (((), "True"), (("nohup",), "False")):
        done = subprocess.run(
            [*command, sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        assert done.stdout.strip() == stops
