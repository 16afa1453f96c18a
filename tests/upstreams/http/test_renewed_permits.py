"""Permits expire: after a slow connect, a request is sent under a new permit, and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from http_client import open_http_client
from lookalikes import lookalike
from raw_server import raw_server

from hubgate.core.traffic.permits import Permit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.upstreams.http.messages import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class SlowNames:
    """A name server that takes five seconds the first time, by its own clock."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self.asked = 0
        self._meanwhile = meanwhile

    def clock(self) -> float:
        return self.now

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        if self.asked == 1:
            self.now += 5.0
            self._meanwhile()
        return ["127.0.0.1"]


def get(port: int, permit: Permit, host: str = "slow.test") -> HttpRequest:
    return HttpRequest(method="GET", url=f"http://{host}:{port}/health", permit=permit)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_permit_that_expires_while_connecting_is_renewed_before_sending() -> None:
    names = SlowNames()
    limiter = RateLimiter(60, clock=names.clock)
    with lookalike("tei") as server:
        async with open_http_client(resolve=names) as client:
            permit = await limiter.acquire()
            await client.send(get(port_of(server.url), permit))
            limiter.release(permit)
    assert len(server.requests) == 1
    assert limiter.used() == 1
    assert permit.logged.expires == 5 + 60.05
    assert limiter.try_acquire() is None  # the next slot is a second after the one that was used
    names.now = 6.0
    assert limiter.try_acquire() is not None


async def test_fast_connection_keeps_the_first_permit() -> None:
    limiter = RateLimiter(60, burst=2, clock=lambda: 0.0)
    with lookalike("tei") as server:
        async with open_http_client() as client:
            for ask in (client.send, client.stream):
                permit = await limiter.acquire()
                first = permit.logged
                reply = await ask(HttpRequest(method="GET", url=server.url + "/health", permit=permit))
                assert permit.logged is first
                assert first.expires == 60.05
                assert reply.status == 200
                limiter.release(permit)


async def test_reconnects_when_server_closes_while_waiting_for_a_permit() -> None:
    others: list[Permit | None] = []
    names = SlowNames(lambda: others.append(limiter.try_acquire()))
    limiter = RateLimiter(60, clock=names.clock)
    closed = asyncio.Event()
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 2:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with raw_server(answer) as port, open_http_client(resolve=names) as client:
        permit = await limiter.acquire()
        asking = asyncio.create_task(client.send(get(port, permit)))
        await closed.wait()
        await asyncio.sleep(0.01)  # until the client has heard of it, too
        names.now = 6.0
        assert others[0] is not None
        limiter.release(others[0])
        assert (await asking).status == 200
    assert connections == 2


async def test_cancelling_while_waiting_for_a_permit_closes_the_connection() -> None:
    others: list[Permit | None] = []
    names = SlowNames(lambda: others.append(limiter.try_acquire()))
    limiter = RateLimiter(60, clock=names.clock)
    connected, ended = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        ended.set()

    async with raw_server(answer) as port, open_http_client(resolve=names) as client:
        permit = await limiter.acquire()
        asking = asyncio.create_task(client.send(get(port, permit)))
        await connected.wait()
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await ended.wait()
        limiter.release(permit)
    assert limiter.used() == 1  # the other's


async def test_server_that_accepts_late_gets_one_request_under_a_new_permit() -> None:
    """Its accept queue is full at first, so the kernel retries after a second."""
    heard: list[bytes] = []
    ended = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head := await reader.read(65536):
            heard.append(head)
            writer.write(OK)
            await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.release()

    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        where = listening.getsockname()[:2]
        loop, limiter = asyncio.get_running_loop(), RateLimiter(600)
        other = socket.create_connection(where)
        permit = await limiter.acquire()
        first = permit.logged
        async with open_http_client() as client:
            asking = asyncio.create_task(client.send(get(where[1], permit, host="127.0.0.1")))
            await asyncio.sleep(first.send_by - loop.time())  # the permit lapses
            async with await asyncio.start_server(answer, sock=listening):
                assert (await asking).status == 200
                other.close()
                await client.close()
                for _ in (other, client):
                    await ended.acquire()
    limiter.release(permit)
    assert len(heard) == 1
    assert permit.logged is not first
    assert limiter.used() == 1
