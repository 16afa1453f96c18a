"""An upstream in a process of its own that records when each request arrives, and costs little CPU time for it.

It answers as TGI's look-alike does: the first request of each path is passed on to one, and its response is repeated.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import signal


class Recorder:
    """Runs while its context is open."""

    def __enter__(self) -> Self:
        tests = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "servers.recorder"],
            env=os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests / 'support'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=240)

    def signal(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def arrivals(self) -> list[float]:
        """When each POST since the last call arrived, by `time.monotonic`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        times: list[float] = json.loads(self._line())
        return times

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class _Connection(asyncio.Protocol):
    """Requests must have a Content-Length, as the gateway's have."""

    def __init__(self, arrivals: list[float], replies: dict[bytes, bytes], example: str) -> None:
        self._arrivals = arrivals
        self._replies = replies
        self._example = example
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            _, _, length = head.lower().partition(b"\r\ncontent-length:")
            end += 4 + int(length.partition(b"\r\n")[0] or 0)
            if len(self._received) < end:
                return
            if head.startswith(b"POST"):
                self._arrivals.append(time.monotonic())
            line = head.partition(b"\r\n")[0]
            if line not in self._replies:
                self._replies[line] = self._ask(line.decode(), self._received[len(head) + 4 : end])
            self._transport.write(self._replies[line])
            self._received = self._received[end:]

    def _ask(self, line: str, body: bytes) -> bytes:
        method, path, _ = line.split()
        connection = http.client.HTTPConnection(self._example)
        connection.request(method, path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
        head = f"HTTP/1.1 {reply.status} {reply.reason}\r\ncontent-type: {reply.headers['content-type']}\r\n"
        return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


async def _serve(example: str) -> None:
    loop = asyncio.get_running_loop()
    arrivals: list[float] = []
    replies: dict[bytes, bytes] = {}
    server = await loop.create_server(lambda: _Connection(arrivals, replies, example), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 - for `Recorder`
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(arrivals), flush=True)  # noqa: T201
        arrivals.clear()


if __name__ == "__main__":
    import uvloop
    from lookalikes import lookalike

    with lookalike("tgi") as server:
        uvloop.run(_serve(urlsplit(server.url).netloc))
