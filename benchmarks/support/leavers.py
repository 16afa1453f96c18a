"""Clients of which every tenth disconnects early."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

_LEAVE_EVERY = 10
_PATIENCE = 0.03
"""Seconds that the impatient wait for a model that takes a tenth of a second."""


class Requests(NamedTuple):
    """The three that are sent, as whole HTTP/1.1 requests."""

    usual: bytes
    slow: bytes
    large: bytes


def written(url: str, headers: Mapping[str, str], body: object) -> bytes:
    """A POST as it goes over the wire."""
    parts = urlsplit(url)
    data = json.dumps(body).encode()
    named = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + data


async def send(url: str, requests: Requests, count: int, *, clients: int) -> None:
    """Send so many requests from so many clients; nine in ten must be answered with 200, the others are left."""
    address = urlsplit(url)
    assert address.hostname == "127.0.0.1"
    assert address.port is not None
    turns = iter(range(count))
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(address.port, requests, turns))


async def _client(port: int, requests: Requests, turns: Iterator[int]) -> None:
    ways = (_leave_while_sending, _leave_at_once, _leave_while_waiting, _leave_while_reading)
    line: _Line | None = None
    for turn in turns:
        if line is None or line.lost:
            line = await _connect(port)
        if turn % _LEAVE_EVERY:
            line.write(requests.usual)
            await line.answered()
        else:
            await ways[turn // _LEAVE_EVERY % len(ways)](line, requests)
            line.abort()
    if line is not None:
        line.abort()


def _leave_while_sending(line: _Line, requests: Requests) -> Coroutine[None, None, None]:
    line.write(requests.usual[: len(requests.usual) // 2])
    return asyncio.sleep(0)


def _leave_at_once(line: _Line, requests: Requests) -> Coroutine[None, None, None]:
    line.write(requests.usual)
    return asyncio.sleep(0)


def _leave_while_waiting(line: _Line, requests: Requests) -> Coroutine[None, None, None]:
    line.write(requests.slow)
    return asyncio.sleep(_PATIENCE)


def _leave_while_reading(line: _Line, requests: Requests) -> Coroutine[None, None, None]:
    line.write(requests.large)
    return line.begun()


async def _connect(port: int) -> _Line:
    _, line = await asyncio.get_running_loop().create_connection(_Line, "127.0.0.1", port)
    return line


class _Line(asyncio.Protocol):
    """One connection, one request at a time: the reply's status and length are read, nothing else."""

    def __init__(self) -> None:
        self.lost = False
        self._head = b""
        self._left = -1
        self._first = self._last = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        for awaited in (self._first, self._last):
            if not awaited.done():
                awaited.set_exception(exc or ConnectionError("the server closed the connection"))
                with contextlib.suppress(BaseException):
                    awaited.exception()

    def data_received(self, data: bytes) -> None:
        if not self._first.done():
            self._first.set_result(None)
        if self._left < 0:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._head = b""
            self._left = self._length(head)
        self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self._last.set_result(None)

    def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._first, self._last = loop.create_future(), loop.create_future()
        self._transport.write(data)

    async def begun(self) -> None:
        """Wait for the first bytes of the reply."""
        await self._first

    async def answered(self) -> None:
        """Wait for the whole reply."""
        await self._last

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()
        self.lost = True

    def _length(self, head: bytes) -> int:
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the server answered {head[:300]!r}")
        lines = head.lower().split(b"\r\n")
        return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
