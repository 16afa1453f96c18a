"""Streamed responses: slow readers, readers that disconnect, and cleanup."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add_generator
from scripted_gateway import ADMIN_KEY

from hubgate.web.http.body import ON_DISCONNECT

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import GenerationCall

    Message = MutableMapping[str, Any]

CHUNK = b'{"choices":[{"index":0,"delta":{"content":"word"}}]}'


class Reader:
    """A client that reads as it likes: one part for each time that `more` is released."""

    def __init__(self, *, stream: bool = True) -> None:
        body = {"model": "llm", "messages": [], "stream": stream}
        self._asked: list[Message] = [{"type": "http.request", "body": json.dumps(body).encode()}]
        self.more = asyncio.Semaphore(0)
        self._left = asyncio.Event()
        self.got: asyncio.Queue[Message] = asyncio.Queue()
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer " + ADMIN_KEY.encode())],
        }

    def leave(self) -> None:
        """As the server tells it."""
        self._left.set()
        self.scope[ON_DISCONNECT]()

    async def receive(self) -> Message:
        if self._asked:
            return self._asked.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.more.acquire()
        self.got.put_nowait(message)


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted)
    return scripted


async def test_slow_reader_applies_backpressure(gateway: ScriptedGateway) -> None:
    produced = 0

    def endless(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        nonlocal produced
        while True:
            produced += 1
            yield [CHUNK]

    gateway.script.told = endless
    reader = Reader()
    serving = asyncio.ensure_future(gateway.app(reader.scope, reader.receive, reader.send))
    for parts in range(1, 6):
        reader.more.release()
        await reader.got.get()
        await asyncio.sleep(0)
        assert produced <= parts
    reader.leave()
    reader.more.release()
    await serving
    assert gateway.script.streams[-1].closed == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_reader_disconnect_ends_the_call(gateway: ScriptedGateway, stream: bool) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def silence() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    gateway.script.pause = silence
    reader = Reader(stream=stream)
    for _ in range(9):
        reader.more.release()
    serving = asyncio.ensure_future(gateway.app(reader.scope, reader.receive, reader.send))
    if stream:
        assert (await reader.got.get())["status"] == 200
        assert b"hel" in (await reader.got.get())["body"]
    await began.wait()
    reader.leave()
    await serving
    assert ended.is_set()
    assert [events.closed for events in gateway.script.streams[-1:]] == ([1] if stream else [])
    assert 'cause="client_left",endpoint="llm"' in "".join(gateway.meter.lines())
