"""After a thousand clients disconnect at random moments, no socket, queue slot or permit is leaked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from lookalikes import LookAlike, lookalike
from running_gateway import RunningGateway, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings

WORDS = " ".join(f"word{n}" for n in range(200))


@pytest.fixture
def model() -> Iterator[LookAlike]:
    """A server that writes a word each millisecond, for as long as a fifth of a second."""
    with lookalike("vllm", kind="llm", seconds=0.001) as server:
        yield server


@pytest.fixture
def gateway(settings: Settings, model: LookAlike) -> Iterator[RunningGateway]:
    with RunningGateway(settings) as running:
        running.add("llm", url=model.url, task="chat_completion", rate_limit={"requests_per_minute": 60_000})
        yield running


def chat(gateway: RunningGateway, *, stream: bool) -> bytes:
    """A whole request, as it goes over the wire."""
    messages = [{"role": "user", "content": WORDS}]
    body = json.dumps({"model": "llm", "messages": messages, "stream": stream, "max_tokens": 200}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {urlsplit(gateway.url).netloc}\r\n"
        f"Authorization: Bearer {gateway.admin_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def leave(gateway: RunningGateway, request: bytes, after: float) -> None:
    """Ask, read for so many seconds, and go without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port)
    writer.write(request[: int(len(request) * min(1.0, after * 100))])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(after):
            while await reader.read(65536):
                pass
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def leave_while_served(gateway: RunningGateway, request: bytes, model: LookAlike) -> None:
    """Ask, and go without a word when the server is at work on it."""
    before = len(model.posts)
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port)
    writer.write(request)
    await asyncio.to_thread(eventually, lambda: len(model.posts) > before)
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def sockets() -> int:
    """Open sockets of this process, in which gateway and server run."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            count += "socket" in str(link.readlink())
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sockets are counted where Linux shows them")
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_thousand_clients_that_disconnect_at_random_leak_nothing(
    gateway: RunningGateway, model: LookAlike, stream: bool
) -> None:
    chance = random.Random(7)
    pipeline = gateway.service.pipelines()["llm"]
    assert pipeline.queue is not None
    request = chat(gateway, stream=stream)

    async def storm() -> None:
        some = asyncio.Semaphore(50)

        async def one() -> None:
            async with some:
                await leave(gateway, request, chance.uniform(0.001, 0.06))

        await asyncio.gather(*(one() for _ in range(1000)))

    asyncio.run(leave(gateway, request, 0.5))  # what stays open anyway is open now
    before = sockets()
    asyncio.run(storm())
    queue = pipeline.queue
    eventually(lambda: queue.in_flight == 0 and queue.queued_calls == 0)
    eventually(lambda: model.streams == 0)
    eventually(lambda: sockets() <= before)
    assert (
        gateway.request("POST", "/v1/chat/completions", json.loads(request.partition(b"\r\n\r\n")[2])).status
        == 200
    )


def test_abandoned_stream_ends_at_the_server(gateway: RunningGateway, model: LookAlike) -> None:
    asyncio.run(leave_while_served(gateway, chat(gateway, stream=True), model))
    eventually(lambda: model.abandoned == 1 and model.streams == 0)


def test_abandoned_call_is_cancelled_not_failed(gateway: RunningGateway, model: LookAlike) -> None:
    asyncio.run(leave_while_served(gateway, chat(gateway, stream=True), model))
    model.wait_until(lambda server: server.abandoned == 1)

    def row() -> dict[str, int]:
        (found,) = gateway.request("GET", "/api/usage?endpoint=llm").json()["rows"] or [{"cancelled": 0}]
        return dict(found)

    eventually(lambda: row()["cancelled"] == 1)
    assert (row()["requests"], row()["errors"]) == (1, 0)
    assert gateway.request("GET", "/api/usage?by=cause").json()["rows"] == []


def test_abandoned_call_ends_at_the_server(settings: Settings) -> None:
    with lookalike("vllm", kind="llm") as model, RunningGateway(settings) as gateway:
        gateway.add("llm", url=model.url, task="chat_completion")
        model.fail("hang", method="POST")
        asyncio.run(leave_while_served(gateway, chat(gateway, stream=False), model))
        model.wait_until(lambda server: server.abandoned == 1)
        model.heal()
