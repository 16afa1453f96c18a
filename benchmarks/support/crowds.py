"""Many connections to one gateway, held by a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Self, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

_AT_ONCE = 200
"""Connections that are begun at a time."""
_FEW = 16
_PATIENCE = 300.0


class Crowd:
    """Connections that stay open after the first reply, such as idle ones or streams. Use it as a context."""

    def __init__(self) -> None:
        self.events = 0
        """Events of streams so far."""
        self._lines: list[_Line] = []

    def __enter__(self) -> Self:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._abort)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, port: int, requests: Sequence[bytes]) -> None:
        """Send each request over a connection of its own, which stays open, and wait until all replies have begun."""
        waiting = iter(requests)

        async def open_each() -> None:
            for request in waiting:
                line = await self._connect(port)
                self._lines.append(line)
                await line.sent(request)

        self._run(_together(open_each() for _ in range(_AT_ONCE)))

    def ask(self, port: int, requests: Iterable[bytes]) -> None:
        """Send all requests over a few connections, each after the reply to the one before has begun."""
        waiting = iter(requests)

        async def ask_each() -> None:
            line = await self._connect(port)
            for request in waiting:
                await line.sent(request)
            line.abort()

        self._run(_together(ask_each() for _ in range(_FEW)))

    def ask_again(self, request: bytes) -> None:
        """Send a request over each open connection, as the gateway closes those that are idle for long."""
        lines = iter(self._lines)

        async def ask_each() -> None:
            for line in lines:
                await line.sent(request)

        self._run(_together(ask_each() for _ in range(_FEW)))

    @property
    def lost(self) -> int:
        """Connections that the gateway has closed."""
        return sum(line.is_lost for line in self._lines)

    async def _connect(self, port: int) -> _Line:
        _, line = await self._loop.create_connection(partial(_Line, self), "127.0.0.1", port)
        return line

    def _run(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def _abort(self) -> None:
        for line in self._lines:
            line.abort()


async def _together(work: Iterator[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in islice(work, _AT_ONCE):
            group.create_task(one)


class _Line(asyncio.Protocol):
    """A connection. A reply is taken for whole, or for begun, with its first bytes after the head."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._answered: asyncio.Future[None] | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionError("the gateway closed a connection"))

    def data_received(self, data: bytes) -> None:
        self._crowd.events += data.count(b"data: ")
        if self._answered is None:
            return
        answered, self._answered = self._answered, None
        if data.startswith(b"HTTP/1.1 200"):
            answered.set_result(None)
        else:
            answered.set_exception(ConnectionError(f"the gateway answered {data[:500]!r}"))

    async def sent(self, request: bytes) -> None:
        """Send a request and wait for the beginning of its reply."""
        self._answered = answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await answered

    def abort(self) -> None:
        self._transport.abort()
