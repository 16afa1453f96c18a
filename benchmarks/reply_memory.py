"""The memory of a gateway whose clients send little and get much: RSS at the start, at the peak and after it.

    python benchmarks/reply_memory.py [calls-8 calls-32 calls-64 unread-40 batch chats]

A call is 2,048 short texts, 16 KB, for 1,024 dimensions: 22 MB of reply. `unread-40` are 40 clients that do not read for
45 s, `batch` is one file of 200 such calls (4 MB), and `chats` are four batches of 250 chats of 1 MB each.

The goal is a peak within 300 MB of the start.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.client
import json
import struct
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from support.gateway import gateway
from support.loopback import free_port, wait_for
from support.processes import Process
from support.table import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.gateway import Gate

_GOAL_MB = 300
_DIMENSIONS, _TEXTS = 1024, 2048
_ROWS, _CHATS, _CHAT_BYTES = 200, 250, 1_000_000
_UNREAD_SECONDS = 45
_ENDED = {"completed", "failed", "cancelled", "expired"}
_ALL = ("calls-8", "calls-32", "calls-64", "unread-40", "batch", "chats")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The memory of replies.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(_ALL))
    parser.add_argument("--batch-seconds", type=float, default=120, help="how long a batch is watched")
    parser.add_argument("--model", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        asyncio.run(_serve_model(options.model))
        return
    rows = [_measured(part, options.batch_seconds) for part in options.parts or _ALL]
    show(("", "start, MB", "peak, MB", "after, MB", "result"), rows)
    if any(float(row[2]) - float(row[1]) > _GOAL_MB for row in rows):
        sys.exit(f"More than {_GOAL_MB} MB above the start.")


def _measured(part: str, seconds: float) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder, port = Path(made), free_port()
        command = [sys.executable, __file__, "--model", str(port)]
        server = stack.enter_context(Process(command, core=None, output=folder / "model.log"))
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/v1/models", server.check)
        gate = stack.enter_context(gateway(folder / "gate", None, cached=False))
        gate.register("large", url)
        gate.register("chat", url, "chat_completion")
        time.sleep(2)
        begin = _rss(gate)
        with _peak(gate) as peak:
            result = _run(gate, part, seconds)
        time.sleep(3)
        return part, f"{begin:.0f}", f"{peak[0]:.0f}", f"{_rss(gate):.0f}", result


def _run(gate: Gate, part: str, seconds: float) -> str:
    kind, _, number = part.partition("-")
    if kind == "calls":
        return _call(gate, int(number), 0)
    if kind == "unread":
        return _call(gate, int(number), _UNREAD_SECONDS)
    if kind == "batch":
        body: dict[str, object] = {"model": "large", "input": [f"text {n}" for n in range(_TEXTS)]}
        return _batches(gate, "/v1/embeddings", [body] * _ROWS, 1, seconds)
    message = [{"role": "user", "content": "x" * _CHAT_BYTES}]
    return _batches(
        gate, "/v1/chat/completions", [{"model": "chat", "messages": message}] * _CHATS, 4, seconds
    )


def _call(gate: Gate, count: int, unread: float) -> str:
    """Send calls at once; returns how many got which status."""
    headers = {**gate.key(), "Content-Type": "application/json"}

    def call(number: int) -> int | str:
        connection = http.client.HTTPConnection(urlsplit(gate.url).netloc, timeout=300)
        body = {"model": "large", "input": [f"{number} {n}" for n in range(_TEXTS)]}
        try:
            connection.request("POST", "/v1/embeddings", json.dumps(body), headers)
            response = connection.getresponse()
            if unread:
                time.sleep(unread)
            response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        else:
            return response.status

    with ThreadPoolExecutor(count) as clients:
        found = list(clients.map(call, range(count)))
    return ", ".join(f"{found.count(one)} x {one}" for one in sorted(set(found), key=str))


def _batches(gate: Gate, path: str, bodies: list[dict[str, object]], count: int, seconds: float) -> str:
    """Create batches of one file; returns their status and progress after a time."""
    lines = (
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": path, "body": body})
        for n, body in enumerate(bodies)
    )
    file = _upload(gate, "\n".join(lines).encode())
    form = {"input_file_id": file, "endpoint": path, "completion_window": "24h"}
    made = [gate.ask("POST", "/v1/batches", form).json()["id"] for _ in range(count)]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = [gate.ask("GET", f"/v1/batches/{one}").json() for one in made]
        if all(one["status"] in _ENDED for one in found):
            break
        time.sleep(0.5)
    return ", ".join(f"{one['status']} {one['request_counts']['completed']}" for one in found)


def _upload(gate: Gate, content: bytes) -> str:
    """As the admin, whose batches they are."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    )
    connection = http.client.HTTPConnection(urlsplit(gate.url).netloc, timeout=300)
    headers = {**gate._admin, "Content-Type": f"multipart/form-data; boundary={boundary}"}  # noqa: SLF001
    connection.request(
        "POST", "/v1/files", head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), headers
    )
    return str(json.loads(connection.getresponse().read())["id"])


def _rss(gate: Gate) -> float:
    """Of the gateway's own process, in MB."""
    for line in Path(f"/proc/{gate.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise SystemExit("The gateway has ended.")


@contextlib.contextmanager
def _peak(gate: Gate) -> Iterator[list[float]]:
    """The largest RSS, looked at 20 times a second."""
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], _rss(gate))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


async def _serve_model(port: int) -> None:
    """A model server whose vectors are all the same, and whose chats take half a second."""
    numbers = [(n % 255 - 127) / 2048 for n in range(_DIMENSIONS)]
    spelled = base64.b64encode(struct.pack(f"<{_DIMENSIONS}f", *numbers))
    vectors = {"base64": b'"%b"' % spelled, "float": orjson.dumps(numbers)}

    async def embed(request: web.Request) -> web.Response:
        form = orjson.loads(await request.read())
        texts = form["input"] if isinstance(form["input"], list) else [form["input"]]
        vector = vectors[form.get("encoding_format", "float")]
        data = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%b}' % (n, vector) for n in range(len(texts))
        )
        usage = orjson.dumps({"prompt_tokens": len(texts), "total_tokens": len(texts)})
        body = b'{"object":"list","data":[%b],"model":"large","usage":%b}' % (data, usage)
        return web.Response(body=body, content_type="application/json")

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.5)
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "large",
                "choices": [choice],
                "usage": usage,
            }
        )

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "large", "object": "model"}]})

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/embeddings", embed)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
