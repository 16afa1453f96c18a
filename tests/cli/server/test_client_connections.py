"""Limits and timeouts of client connections, with real sockets and a simulated clock."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import uvicorn
from uvicorn.server import ServerState
from virtual_time import now, run

from hubgate.cli.server.addresses import Addresses
from hubgate.cli.server.connection import EXCESS_CONNECTIONS, Connection
from hubgate.web.http.body import BROKEN, EXCESS, FAULT, SLOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Client: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET / HTTP/1.1\r\nhost: gate\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: gate\r\n"
KEEP_ALIVE_SECONDS = 75
LARGE = 32 << 20


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """Tells the size of the body, and in the status what the server noted; `/slow` and `/late` take a minute, `/large` says much."""
    length, more = 0, True
    if scope["path"] == "/late":
        await asyncio.sleep(60)
    if scope["path"] == "/early":
        more = False
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(60)
    body = b" " * LARGE if scope["path"] == "/large" else f"{length} bytes".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    status = 503 if EXCESS in scope else {None: 200, SLOW: 408, BROKEN: 400}[scope.get(FAULT)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Door:
    """A listening server, and who came to it."""

    def __init__(self, most: int | None = None, addresses: Addresses | None = None) -> None:
        self.addresses = addresses
        self.config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",
            access_log=False,
            log_config=None,
            limit_concurrency=most,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self.config.load()
        self.state = ServerState()

    def connection(self) -> Connection:
        return Connection(config=self.config, server_state=self.state, app_state={}, addresses=self.addresses)

    @asynccontextmanager
    async def client(self, *, buffer: int = 1 << 16) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=buffer)
        try:
            yield reader, writer
        finally:
            writer.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        server = await asyncio.get_running_loop().create_server(self.connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for one in list(self.state.connections):
                one.transport.abort()
            await asyncio.gather(*self.state.tasks)


def met(client: Callable[[Client], Awaitable[None]]) -> None:
    """One client at the door."""

    async def main() -> None:
        async with Door().open() as door, door.client() as connected:
            await client(connected)

    run(main())


async def answer(client: Client) -> str:
    """The body of one answer, of which the connection stays open."""
    head = await client[0].readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return (await client[0].readexactly(length)).decode()


async def end(client: Client) -> bytes:
    """All that comes until the connection is closed."""
    try:
        return await client[0].read()
    except ConnectionResetError:
        return b""


class TestHeads:
    @pytest.mark.parametrize("spelled", [b"X-%d: y\r\n", b"X-%d:" + b"y" * 5000 + b"\r\n"])
    def test_endless_headers_are_rejected(self, spelled: bytes) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST)
            told, sent = asyncio.create_task(end(client)), 0
            while not told.done():
                client[1].write(spelled % sent)
                sent += 1
                await asyncio.sleep(0)
            assert sent * len(spelled) < 200_000

        met(client)

    @pytest.mark.parametrize("unfinished", [b"GET /" + b"a" * 70_000, POST + b"X-Long: " + b"a" * 70_000])
    def test_endless_header_line_is_rejected(self, unfinished: bytes) -> None:
        async def client(client: Client) -> None:
            client[1].write(unfinished)
            told = await end(client)
            assert told.startswith(b"HTTP/1.1 431 ")
            assert told.endswith(b"headers are too large.")
            assert now() < 1

        met(client)

    def test_complete_header_that_is_too_large_is_rejected(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n")
            assert (await end(client)).startswith(b"HTTP/1.1 431 ")

        met(client)

    def test_endless_trailers_are_rejected(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(
                POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Long: " + b"a" * 600_000
            )
            await end(client)
            assert now() < 1

        met(client)

    def test_invalid_http_is_rejected(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(b"good evening\r\n\r\n")
            assert (await end(client)).startswith(b"HTTP/1.1 400 ")

        met(client)

    def test_reads_60_kb_of_headers_and_the_body_after_them(self) -> None:
        async def client(client: Client) -> None:
            head = POST + b"X-Long: " + b"a" * 60_000 + b"\r\ncontent-length: 300000\r\n\r\n"
            client[1].write(head + b"b" * 300_000 + GET)
            assert await answer(client) == "300000 bytes"
            assert await answer(client) == "0 bytes"

        met(client)


class TestSilence:
    def test_connection_without_a_request_is_closed_after_10_seconds(self) -> None:
        async def client(client: Client) -> None:
            assert await end(client) == b""
            assert now() == pytest.approx(10, abs=0.1)

        met(client)

    def test_slow_headers_time_out(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST)
            told = asyncio.create_task(end(client))
            while not told.done():
                client[1].write(b"X-Drip: y\r\n")
                await asyncio.sleep(0.9)
            assert (await told).startswith(b"HTTP/1.1 408 ")
            assert now() == pytest.approx(10, abs=1)

        met(client)

    def test_first_byte_of_the_next_request_starts_its_timeout(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(GET)
            assert await answer(client) == "0 bytes"
            await asyncio.sleep(70)
            client[1].write(GET[:5])
            assert (await end(client)).startswith(b"HTTP/1.1 408 ")
            assert now() == pytest.approx(80, abs=0.1)

        met(client)

    def test_empty_line_does_not_keep_a_connection_open(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(GET)
            await answer(client)
            client[1].write(b"\r\n")
            await end(client)
            assert now() == pytest.approx(10, abs=0.1)

        met(client)

    def test_keep_alive_lasts_75_seconds(self) -> None:
        async def client(client: Client) -> None:
            for _ in range(3):
                client[1].write(GET)
                assert await answer(client) == "0 bytes"
                await asyncio.sleep(KEEP_ALIVE_SECONDS - 0.1)
            await asyncio.sleep(0.2)
            assert await end(client) == b""

        met(client)

    def test_stalled_body_times_out_after_30_seconds(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST + b"content-length: 1000000\r\n\r\n" + b"a" * 500_000)
            told = await end(client)
            assert told.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in told
            assert now() == pytest.approx(30, abs=0.1)

        met(client)

    @pytest.mark.parametrize(
        ("path", "status"), [(b"/", b"408"), (b"/early", b"200")], ids=["unanswered", "answered"]
    )
    def test_slow_body_times_out(self, path: bytes, status: bytes) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST.replace(b"/", path, 1) + b"content-length: 10000\r\n\r\n")
            told = asyncio.create_task(end(client))
            while not told.done():
                client[1].write(b"a")
                await asyncio.sleep(0.9)
            assert (await told).startswith(b"HTTP/1.1 " + status)
            assert now() == pytest.approx(30, abs=2)

        met(client)

    @pytest.mark.parametrize(("speed", "ends"), [(5_000, None), (3_000, 112), (200_000, 600)])
    def test_body_has_a_minimum_speed_and_a_maximum_duration(self, speed: int, ends: float | None) -> None:
        size = 1_000_000 if speed < 10_000 else 1 << 30

        async def client(client: Client) -> None:
            client[1].write(POST + b"content-length: %d\r\n\r\n" % size)
            sent, told = 0, asyncio.create_task(end(client))
            while not told.done() and sent < size:
                client[1].write(b"a" * speed)
                sent += speed
                await asyncio.sleep(1)
            client[1].write(GET.replace(b"host", b"connection: close\r\nhost"))
            head = await told
            assert head[:13] in ((b"HTTP/1.1 408 ", b"") if ends else (b"HTTP/1.1 200 ",))
            assert ends is None or now() == pytest.approx(ends, abs=2)

        met(client)

    def test_time_in_which_the_gateway_does_not_read_is_not_counted(self) -> None:
        async def client(client: Client) -> None:
            size = 10 << 20  # more than the system buffers
            client[1].write(POST.replace(b"/ ", b"/late ") + b"content-length: %d\r\n\r\n" % size)
            client[1].write(b"a" * size)
            assert await answer(client) == f"{size} bytes"
            assert now() == pytest.approx(60, abs=0.1)

        met(client)

    def test_body_is_not_awaited_after_the_response(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST.replace(b"/ ", b"/early ") + b"content-length: 10\r\n\r\n")
            assert await answer(client) == "0 bytes"
            assert await end(client) == b""
            assert now() == pytest.approx(30, abs=0.1)

        met(client)

    def test_response_may_be_slow(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST.replace(b"/ ", b"/slow ") + b"content-length: 3\r\n\r\nabc")
            assert await answer(client) == "3 bytes"
            assert now() == pytest.approx(60, abs=0.1)

        met(client)

    def test_partial_next_request_does_not_affect_the_first_response(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(GET.replace(b"/ ", b"/slow ", 1) + GET[:5])
            assert await answer(client) == "0 bytes"
            await end(client)
            assert now() == pytest.approx(60 + KEEP_ALIVE_SECONDS, abs=0.1)

        met(client)

    def test_too_large_pipelined_header_closes_the_connection_without_a_response(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(GET.replace(b"/ ", b"/slow ", 1))
            await asyncio.sleep(1)
            client[1].write(b"GET /" + b"a" * 70_000)
            assert await end(client) == b""

        met(client)

    def test_client_that_reads_nothing_is_disconnected(self) -> None:
        async def main() -> None:
            async with Door().open() as door, door.client(buffer=1024) as (_, writer):
                writer.write(GET.replace(b"/ ", b"/large ", 1))
                await asyncio.sleep(1)
                (connection,) = door.state.connections
                assert connection.transport.get_write_buffer_size() > LARGE // 2
                while door.state.connections:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(1)
                assert now() == pytest.approx(45, abs=15)

        run(main())

    def test_slow_reader_receives_the_whole_response(self) -> None:
        async def main() -> None:
            async with Door().open() as door, door.client(buffer=1024) as (reader, writer):
                writer.write(GET.replace(b"/ ", b"/large ", 1))
                await reader.readuntil(b"\r\n\r\n")
                for _ in range(16):
                    await asyncio.sleep(20)
                    assert len(await reader.readexactly(LARGE // 16)) == LARGE // 16

        run(main())

    def test_refilled_write_buffer_counts_as_progress_of_the_client(self) -> None:
        async def main() -> None:
            door, transport = Door(), Full()
            connection = door.connection()
            connection.connection_made(transport)
            connection.data_received(GET.replace(b"/ ", b"/large ", 1))
            for _ in range(6):
                await asyncio.sleep(10)
                connection.pause_writing()
                connection.resume_writing()
                assert not transport.aborted
            await asyncio.sleep(45)
            assert transport.aborted
            await asyncio.gather(*door.state.tasks)

        run(main())


class TestBodies:
    def test_invalid_chunk_is_answered_and_nothing_is_read_after_it(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await asyncio.sleep(1)
            client[1].write(b"no size\r\n" + GET)
            await asyncio.sleep(0)
            client[1].write(GET)
            told = await end(client)
            assert told.startswith(b"HTTP/1.1 400 ")
            assert told.count(b"HTTP/1.1") == 1

        met(client)

    def test_invalid_chunk_after_the_response_closes_the_connection(self) -> None:
        async def client(client: Client) -> None:
            client[1].write(POST.replace(b"/ ", b"/early ") + b"transfer-encoding: chunked\r\n\r\n")
            assert await answer(client) == "0 bytes"
            client[1].write(b"no size\r\n")
            await end(client)
            assert now() < 1

        met(client)

    def test_body_answered_unread_is_not_kept(self) -> None:
        async def main() -> None:
            async with Door().open() as door, door.client() as client:
                head = POST.replace(b"/ ", b"/early ") + b"content-length: 200000\r\n\r\n"
                client[1].write(head + b"a" * 100_000)
                assert await answer(client) == "0 bytes"
                client[1].write(b"a" * 50_000)
                await asyncio.sleep(1)
                (connection,) = door.state.connections
                assert isinstance(connection, Connection)
                assert connection._reading is not None
                assert connection._reading._parts == []

        run(main())


class TestCrowd:
    async def busy(self, door: Door, stack: AsyncExitStack) -> Client:
        client = await stack.enter_async_context(door.client())
        before = len(door.state.tasks)
        client[1].write(GET.replace(b"/ ", b"/slow ", 1))
        while len(door.state.tasks) == before:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
        return client

    def test_excess_connection_gets_an_error_and_is_closed(self) -> None:
        async def main() -> None:
            async with Door(2).open() as door, AsyncExitStack() as stack:
                first, second = await self.busy(door, stack), await self.busy(door, stack)
                third = await stack.enter_async_context(door.client())
                third[1].write(GET + GET)
                told = await end(third)
                assert told.startswith(b"HTTP/1.1 503 ")
                assert b"connection: close" in told
                assert told.count(b"HTTP/1.1") == 1
                assert await answer(first) == await answer(second) == "0 bytes"

        run(main())

    def test_longest_idle_connection_is_closed_for_a_new_one(self) -> None:
        async def main() -> None:
            async with Door(3).open() as door, AsyncExitStack() as stack:
                busy = await self.busy(door, stack)
                idle = [await stack.enter_async_context(door.client()) for _ in range(2)]
                for client in reversed(idle):
                    client[1].write(GET)
                    assert await answer(client) == "0 bytes"
                    await asyncio.sleep(1)
                new = await stack.enter_async_context(door.client())
                new[1].write(GET)
                assert await answer(new) == "0 bytes"
                assert await end(idle[1]) == b""
                idle[0][1].write(GET)
                assert await answer(idle[0]) == "0 bytes"
                assert await answer(busy) == "0 bytes"

        run(main())

    def test_address_may_open_many_connections_at_once_if_it_sends_requests(self) -> None:
        async def main() -> None:
            async with Door(addresses=Addresses(2)).open() as door, AsyncExitStack() as stack:
                callers = [await stack.enter_async_context(door.client()) for _ in range(8)]
                await asyncio.sleep(0.5)
                for caller in callers:
                    caller[1].write(GET)
                    assert await answer(caller) == "0 bytes"
                strangers = [await stack.enter_async_context(door.client()) for _ in range(8)]
                await asyncio.sleep(3)
                assert len(door.state.connections) == len(callers) + 2
                assert await end(strangers[0]) == b""

        run(main())

    def test_connections_beyond_the_excess_limit_are_dropped(self) -> None:
        async def main() -> None:
            async with Door(1).open() as door, AsyncExitStack() as stack:
                await self.busy(door, stack)
                clients = [
                    await stack.enter_async_context(door.client()) for _ in range(EXCESS_CONNECTIONS + 10)
                ]
                await asyncio.sleep(1)
                assert len(door.state.connections) == 1 + EXCESS_CONNECTIONS
                assert await end(clients[-1]) == b""

        run(main())


class Full(asyncio.Transport):
    """A connection on which a megabyte waits, always."""

    aborted = False

    def get_write_buffer_size(self) -> int:
        return 1 << 20

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True
