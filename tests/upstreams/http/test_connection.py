"""One connection and misbehaving servers: leftover data never reaches the next request."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from raw_server import raw_server

from hubgate.domain.errors import UpstreamUnreadable
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import MAX_ERROR_BYTES, MAX_HEADER_BYTES, Connection
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = 8 * 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def asked(*replies: bytes, reads: bool = True) -> AsyncIterator[tuple[PooledClient, str, list[int]]]:
    """A client, and a server that gives one reply after the other; `reads` is whether it takes the requests' bodies.

    The list has the number of the connection on which each request came.
    """
    left, came, connections = list(replies), [], 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                came.append(mine)
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                if reads:
                    await reader.readexactly(length)
                writer.write(left.pop(0))
                await writer.drain()
                if not reads and length > len("{}"):
                    writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's
                    await asyncio.Event().wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    client = PooledClient(AddressRule())
    try:
        async with raw_server(answer) as port:
            yield client, f"http://127.0.0.1:{port}/", came
    finally:
        await client.close()


def post(url: str, body: bytes = b"{}") -> HttpRequest:
    return HttpRequest(method="POST", url=url, body=body, timeout=20.0)


async def test_abandoned_stream_does_not_block_the_next_reply() -> None:
    size = 120_000
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)
    async with asked(long, long, OK) as (client, url, came):
        stream = await client.stream(post(url))
        await stream.aclose()
        stream = await client.stream(post(url))
        async for _ in stream:
            break
        await stream.aclose()
        assert (await client.send(post(url))).body == b"ok"
        assert len(came) == 3


async def test_early_reply_is_read_even_if_server_stops_reading() -> None:
    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with asked(early, OK, reads=False) as (client, url, came):
        assert (await client.send(post(url, b"x" * LARGE))).status == 413
        assert (await client.send(post(url))).body == b"ok"
        assert came == [1, 2], "a connection with half a request on it was used again"


async def test_connection_is_not_reused_after_a_server_crash() -> None:
    """Like uvicorn: it sends a 500 without `Connection: close`, and then closes."""
    async with asked(OK.replace(b"200 OK", b"500 Internal Server Error"), OK, OK) as (client, url, came):
        assert (await client.send(post(url))).status == 500
        assert (await client.send(post(url))).body == b"ok"
        assert (await client.send(post(url))).body == b"ok"
        assert came == [1, 2, 2]


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ",
    ],
    ids=["reason", "header", "chunk extension", "trailer"],
)
async def test_endless_line_is_rejected(begun: bytes) -> None:
    async with asked(begun + b"a" * LARGE) as (client, url, _):
        with pytest.raises(UpstreamUnreadable):
            await client.send(post(url))


@pytest.mark.parametrize("fields", [b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b""])
async def test_reply_that_switches_protocols_is_an_error_that_says_so(
    fields: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with asked(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\x81\x00" % fields) as (client, url, _):
        with pytest.raises(UpstreamUnreadable, match="status 101 and switched to another protocol"):
            await client.send(post(url))
    assert not caplog.records


async def test_many_small_headers_count_towards_the_header_limit() -> None:
    many = b"a:\r\n" * (MAX_HEADER_BYTES // 16)
    async with asked(OK.replace(b"Content", many + b"Content")) as (client, url, _):
        with pytest.raises(UpstreamUnreadable):
            await client.send(post(url))


async def test_error_page_is_decompressed_only_as_far_as_it_is_read() -> None:
    packer = zlib.compressobj(wbits=31)
    page = packer.compress(bytes(LARGE)) + packer.flush()
    head = b"HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(page)
    async with asked(head + page) as (client, url, _):
        assert len((await client.send(post(url))).body) == MAX_ERROR_BYTES + 1


async def test_cancelling_while_sending_the_body_closes_the_connection() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def reads_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        try:
            while await reader.read(LARGE):
                pass
        except ConnectionError:
            pass
        left.set()

    client = PooledClient(AddressRule())
    async with raw_server(reads_slowly) as port:
        caller = asyncio.create_task(client.send(post(f"http://127.0.0.1:{port}/", bytes(8 * LARGE))))
        await begun.wait()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await left.wait()
    await client.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
BOUND = LARGE // 8


def gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(body) + packer.flush()


FAILS = {
    "too large": CHUNKED % (LARGE, bytes(LARGE)),
    "announced as too large": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE,
    "a bomb": PACKED % (len(gzip(bytes(LARGE))), gzip(bytes(LARGE))),
    "not complete": PACKED % (9, gzip(b"hello")[:9]),
    "not gzip": PACKED % (5, b"hello"),
    "not HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "upgraded": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
    "large headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEADER_BYTES + b"\r\n",
}


@pytest.mark.parametrize("reply", FAILS.values(), ids=FAILS)
async def test_failed_exchange_is_freed_immediately(reply: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        async with asked(reply) as (client, url, _):
            with pytest.raises(UpstreamUnreadable):
                await client.send(replace(post(url), max_reply_bytes=BOUND))
            await client.close()  # what was wrong with the content alone does not end the connection
            await asyncio.sleep(0)  # the transport lets go in the loop's next turn
            assert not [one for one in gc.get_objects() if type(one) is Connection]
    finally:
        gc.enable()


async def test_decompression_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip(bytes(32 * LARGE))
    async with asked(PACKED % (len(bomb), bomb)) as (client, url, _):
        tracemalloc.start()
        try:
            with pytest.raises(UpstreamUnreadable, match=f"more than {BOUND} bytes"):
                await client.send(replace(post(url), max_reply_bytes=BOUND))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * BOUND


async def test_large_chunked_reply_is_assembled() -> None:
    body = b"0123456789abcdef" * (LARGE // 16)
    async with asked(CHUNKED % (LARGE, body), PACKED % (len(gzip(body)), gzip(body))) as (client, url, came):
        assert (await client.send(post(url))).body == body
        assert (await client.send(post(url))).body == body
        assert came == [1, 1]


async def test_reply_keeps_its_status_while_its_body_is_decoded() -> None:
    """A large body is decoded in a thread; meanwhile the connection takes other requests, whose replies differ."""
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    large = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + 64 * chunk + b"0\r\n\r\n"
    other = OK.replace(b"200 OK", b"404 Not Found")
    async with asked(large, *[other] * 1000) as (_, url, _):
        client = PooledClient(AddressRule(), max_reply_bytes=128 << 20)
        reading = asyncio.create_task(client.send(post(url)))
        for together in range(1, 30):  # one more each time, so that all idle connections are used
            await asyncio.gather(*(client.send(post(url)) for _ in range(together)))
            if reading.done():
                break
        reply = await reading
        assert (reply.status, len(reply.body)) == (200, 64 << 20)
        await client.close()
