"""Streamed replies over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from raw_server import raw_server

from hubgate.domain.errors import Cause, UpstreamUnreachable, UpstreamUnreadable
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hubgate.upstreams.http.messages import HttpStream

    Write: TypeAlias = Callable[[bytes], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Server:
    """Runs its script for each request; counts connections, closed connections, and bytes accepted."""

    def __init__(self, script: Callable[[Write], Awaitable[None]]) -> None:
        self._script = script
        self.connections = 0
        self.taken = 0
        self.left = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()
            self.taken += len(data)

        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                gone = asyncio.ensure_future(self._watch(reader, writer))
                try:
                    await self._script(write)
                finally:
                    gone.cancel()
                    await asyncio.gather(gone, return_exceptions=True)
        self.left.set()

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof() and reader.exception() is None and not writer.is_closing():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.005)
        self.left.set()


@asynccontextmanager
async def serving(script: Callable[[Write], Awaitable[None]]) -> AsyncIterator[Server]:
    held = Server(script)
    async with raw_server(held.serve) as port:
        held.url = f"http://127.0.0.1:{port}/stream"
        yield held


@pytest.fixture
async def client() -> AsyncIterator[PooledClient]:
    opened = PooledClient(AddressRule())
    yield opened
    await opened.close()


def get(url: str, **options: Any) -> HttpRequest:
    return HttpRequest(method="GET", url=url, **options)


async def read(stream: HttpStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_chunks_arrive_as_sent_and_the_connection_is_reused(client: PooledClient) -> None:
    go_on = asyncio.Event()

    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: 1\n\n"))
        await go_on.wait()
        await write(chunk(b"data: 2\n\n") + END)

    async with serving(script) as server:
        for _ in range(2):
            go_on.clear()
            stream = await client.stream(get(server.url))
            assert (stream.status, stream.headers.get("Content-TYPE")) == (200, "text/event-stream")
            pieces = aiter(stream)
            assert await anext(pieces) == b"data: 1\n\n"
            go_on.set()
            assert await anext(pieces) == b"data: 2\n\n"
            await stream.finish()
            await stream.aclose()
        assert server.connections == 1


async def test_closing_an_unfinished_stream_closes_its_connection(client: PooledClient) -> None:
    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: 1\n\n"))
        await asyncio.Event().wait()

    async with serving(script) as server:
        stream = await client.stream(get(server.url))
        await stream.aclose()
        await asyncio.wait_for(server.left.wait(), 10)


async def test_cancelling_before_the_headers_closes_the_connection(client: PooledClient) -> None:
    asked = asyncio.Event()

    async def script(write: Write) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(script) as server:
        caller = asyncio.create_task(client.stream(get(server.url)))
        await asked.wait()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.wait_for(server.left.wait(), 10)


async def test_stalled_and_broken_streams_are_different_errors(client: PooledClient) -> None:
    stalls = True

    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: 1\n\n"))
        if stalls:
            await asyncio.Event().wait()
        raise ConnectionError

    async with serving(script) as server:
        stream = await client.stream(get(server.url, read_timeout=0.05))
        with pytest.raises(UpstreamUnreachable) as raised:
            await read(stream)
        assert raised.value.cause is Cause.UPSTREAM_TIMEOUT
        await stream.aclose()
        stalls = False
        stream = await client.stream(get(server.url))
        with pytest.raises(UpstreamUnreachable) as raised:
            await read(stream)
        assert raised.value.cause is Cause.CONNECTION_LOST
        await stream.aclose()


async def test_finish_awaits_end_of_stream_to_keep_the_connection(
    client: PooledClient,
) -> None:
    done = asyncio.Event()

    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: [DONE]\n\n"))
        await done.wait()
        await write(END)

    async with serving(script) as server:
        for _ in range(2):
            done.clear()
            stream = await client.stream(get(server.url))
            await anext(aiter(stream))
            done.set()
            await stream.finish()
        assert server.connections == 1


async def test_finish_closes_a_stream_that_does_not_end(client: PooledClient) -> None:
    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: [DONE]\n\n"))
        await asyncio.Event().wait()

    async with serving(script) as server:
        stream = await client.stream(get(server.url))
        await anext(aiter(stream))
        await stream.finish()
        await asyncio.wait_for(server.left.wait(), 10)


async def test_cancelled_reader_closes_its_connection(client: PooledClient) -> None:
    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: 1\n\n"))
        await asyncio.Event().wait()

    async with serving(script) as server:
        stream = await client.stream(get(server.url))
        pieces = aiter(stream)
        await anext(pieces)
        reader = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await stream.aclose()
        await asyncio.wait_for(server.left.wait(), 10)


async def test_client_read_timeout_applies_unless_request_sets_one() -> None:
    async def script(write: Write) -> None:
        await write(HEAD + chunk(b"data: 1\n\n"))
        await asyncio.Event().wait()

    client = PooledClient(AddressRule(), read_seconds=0.1)
    async with serving(script) as server:
        for seconds in (None, 0.2):
            stream = await client.stream(get(server.url, read_timeout=seconds))
            with pytest.raises(UpstreamUnreachable, match=f"sent nothing for {seconds or 0.1:g} seconds"):
                await read(stream)
            await stream.aclose()
    await client.close()


async def test_first_piece_may_take_the_time_of_the_whole_request(client: PooledClient) -> None:
    async def script(write: Write) -> None:
        await write(HEAD)
        await asyncio.sleep(0.3)
        await write(chunk(b"data: 1\n\n") + END)

    async with serving(script) as server:
        stream = await client.stream(get(server.url, timeout=60, read_timeout=0.1))
        assert await read(stream) == b"data: 1\n\n"
        await stream.aclose()


async def test_missing_headers_time_out(client: PooledClient) -> None:
    async def script(write: Write) -> None:
        await asyncio.Event().wait()

    async with serving(script) as server:
        with pytest.raises(UpstreamUnreachable) as raised:
            await client.stream(get(server.url, timeout=0.1))
        assert raised.value.cause is Cause.UPSTREAM_TIMEOUT


async def test_slow_reader_applies_backpressure_and_loses_nothing(
    client: PooledClient,
) -> None:
    total = 32 * 1024 * 1024
    piece = b"x" * 65536

    async def script(write: Write) -> None:
        await write(HEAD)
        for _ in range(total // len(piece)):
            await write(chunk(piece))
        await write(END)

    async with serving(script) as server:
        stream = await client.stream(get(server.url))
        before = -1
        while before != server.taken:  # until nothing moves any more
            before = server.taken
            await asyncio.sleep(0.1)
        assert server.taken < total / 2
        size = 0
        async for part in stream:
            size += len(part)
        assert size == total
        await stream.aclose()


async def test_error_reply_is_read_whole_and_a_huge_one_in_part(client: PooledClient) -> None:
    sizes = [10, 10_000_000]

    async def script(write: Write) -> None:
        size = sizes.pop(0)
        await write(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    async with serving(script) as server:
        for bound in (10, 1_000_000):
            stream = await client.stream(get(server.url))
            reply = await stream.rest()
            assert reply.status == 500
            assert 10 <= len(reply.body) <= bound


async def test_body_without_length_ends_with_the_connection(client: PooledClient) -> None:
    async def script(write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        raise ConnectionError

    async with serving(script) as server:
        assert (await client.send(get(server.url))).body == b"all of it"
        stream = await client.stream(get(server.url))
        assert await read(stream) == b"all of it"
        await stream.aclose()


async def test_client_skips_early_hints_drops_extra_reply_and_rejects_endless_headers() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOk"
    replies = [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole,
        whole + whole,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 1000) for n in range(100)) + b"\r\n",
    ]

    async def script(write: Write) -> None:
        await write(replies.pop(0))

    client = PooledClient(AddressRule())
    async with serving(script) as server:
        reply = await client.send(get(server.url))
        assert (reply.body, dict(reply.headers)) == (b"Ok", {"content-length": "2"})
        assert (await client.send(get(server.url))).body == b"Ok"
        with pytest.raises(UpstreamUnreadable):
            await client.send(get(server.url))
        assert server.connections == 2
        await client.close()


async def test_unrequested_gzip_is_decompressed_within_the_limit() -> None:
    packed = gzip.compress(b"x" * 10_000)
    bodies = [packed, packed[:-9], gzip.compress(b"x" * 10_000_000)]

    async def script(write: Write) -> None:
        body = bodies.pop(0)
        await write(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    client = PooledClient(AddressRule(), max_reply_bytes=20_000)
    async with serving(script) as server:
        assert (await client.send(get(server.url))).body == b"x" * 10_000
        with pytest.raises(UpstreamUnreadable, match="cannot be decompressed"):
            await client.send(get(server.url))
        with pytest.raises(UpstreamUnreadable, match="more than 20000 bytes"):
            await client.send(get(server.url))
        await client.close()
