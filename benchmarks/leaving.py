"""The time until a client's disconnect reaches the model's server: its connection must close within 100 ms.

A server that begins an answer and never ends it notes when each connection closes. Clients ask it through the gateway,
in turns for a stream and for a whole answer, wait a random moment, and leave.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from support import machine
from support.gateway import bare_gateway
from support.leavers import written
from support.loopback import free_port
from support.table import show

if TYPE_CHECKING:
    from support.gateway import Gate

_ROUTE = "/v1/chat/completions"
_MODELS = {"object": "list", "data": [{"id": "slow", "owned_by": "vllm", "max_model_len": 512}]}
_ANSWER = {"choices": [{"index": 0, "text": "hi", "message": {"content": "hi"}, "finish_reason": "stop"}]}
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a long text"}}]}\n\n'
_BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
)


class Server:
    """Answers the gateway's own questions, begins to answer the others, and notes when a connection closes."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[None] = asyncio.Queue()
        self.closed: asyncio.Queue[float] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (line for line in head.lower().splitlines() if line.startswith(b"content-length:")), b":0"
        )
        body = await reader.readexactly(int(length.partition(b":")[2]))
        if b"stay" not in body:
            answer = json.dumps(_ANSWER if body else _MODELS).encode()
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer)
            writer.write(head + answer)
            await writer.drain()
        else:
            if b'"stream":true' in body:
                writer.write(_BEGUN)
            self.asked.put_nowait(None)
            await reader.read()
            self.closed.put_nowait(time.perf_counter())
        writer.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How soon a client that leaves is felt at the server.")
    parser.add_argument("--quick", action="store_true", help="20 of each instead of 200")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as made,
        bare_gateway(Path(made) / "gate", machine.two_cores().measured) as gateway,
    ):
        times = asyncio.run(_measure(gateway, 20 if options.quick else 200))
    print("\nA client leaves: milliseconds until its connection to the model's server closes (goal: 100)\n")
    rows = [(name, f"{median(ms):.1f}", f"{max(ms):.1f}", str(len(ms))) for name, ms in times.items()]
    show(("", "median", "longest", "clients"), rows)


async def _measure(gateway: Gate, times: int) -> dict[str, list[float]]:
    held, port = Server(), free_port()
    server = await asyncio.start_server(held.serve, "127.0.0.1", port)
    await asyncio.to_thread(gateway.register, "slow", f"http://127.0.0.1:{port}", "chat_completion")
    key = gateway.key()
    found: dict[str, list[float]] = {"a stream": [], "a whole answer": []}
    async with server:
        for _ in range(times):
            for name, ms in found.items():
                body = {
                    "model": "slow",
                    "messages": [{"role": "user", "content": "stay"}],
                    "stream": name == "a stream",
                }
                _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port)
                writer.write(written(gateway.url + _ROUTE, key, body))
                await asyncio.wait_for(held.asked.get(), 30)
                await asyncio.sleep(random.uniform(0, 0.1))
                left = time.perf_counter()
                writer.transport.abort()
                ms.append((await asyncio.wait_for(held.closed.get(), 30) - left) * 1000)
    return found


if __name__ == "__main__":
    main()
