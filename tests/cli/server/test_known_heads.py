"""A request with the same head as an earlier one is served as that one was, and only then."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import uvicorn
from running_gateway import RunningGateway
from uvicorn.server import ServerState

from hubgate.cli.server.connection import Connection
from hubgate.cli.server.known_heads import KnownHeads
from hubgate.web.http.asgi import read_body, respond
from hubgate.web.http.body import ARRIVED
from hubgate.web.http.head import HEAD, read_head
from hubgate.web.openai.routes import FACE

if TYPE_CHECKING:
    from hubgate.settings import Settings
    from hubgate.web.http.asgi import Receive, Scope, Send

KEY = "hg_0123abcd_aKeyThatMustNotStayInMemory"


def request(body: bytes, *headers: str, length: object = None, path: str = "/v1/embeddings") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gate",
        f"Authorization: Bearer {KEY}",
        "User-Agent: test",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


END = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\nx-end: 1"


class Server:
    """A server whose application offers every head to later requests, and a client of it."""

    def __init__(self) -> None:
        self.known: list[bool] = []
        """Of each request, whether its head was known."""
        self.scopes: list[Scope] = []
        self.heads = KnownHeads()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/end":
            await respond(send, 200, b"", headers=[(b"x-end", b"1")])
            return
        self.known.append(HEAD in scope)
        head = scope.get(HEAD) or read_head(scope, lambda *_: FACE, keys_in_path=True)
        scope[HEAD], scope["headers"] = head, head.public_headers
        body = await read_body(receive)
        self.scopes.append({name: value for name, value in scope.items() if name not in (HEAD, ARRIVED)})
        await respond(send, 200, b"%b %b" % (scope["path"].encode(), body))

    async def exchange(self, *parts: bytes) -> bytes:
        """What a client receives that sends these parts, and then a request to close, on one connection."""

        class Own(Connection):
            known_heads = self.heads

        config = uvicorn.Config(self.app, http=Own, lifespan="off", log_config=None, interface="asgi3")
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Own(config, state, {}), "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for part in (*parts, b"GET /end HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"):
                writer.write(part)
                await asyncio.sleep(0.01)
            received = (await reader.read()).partition(END)[0]
            writer.close()
            await asyncio.gather(*state.tasks)
            return received
        finally:
            server.close()


@pytest.fixture
def server() -> Server:
    return Server()


def bodies(received: bytes) -> list[bytes]:
    return [part.split(b"HTTP/")[0] for part in received.split(b"\r\n\r\n")[1:]]


async def test_repeated_head_is_known_whatever_the_length_of_the_body(server: Server) -> None:
    received = await server.exchange(*(request(body) for body in (b"a", b"", b"b" * 2000)))
    assert bodies(received) == [b"/v1/embeddings a", b"/v1/embeddings ", b"/v1/embeddings " + b"b" * 2000]
    assert server.known == [False, True, True]
    assert server.scopes[0] == server.scopes[1] == server.scopes[2]


async def test_head_is_known_on_another_connection(server: Server) -> None:
    await server.exchange(request(b"a"))
    await server.exchange(request(b"b"))
    assert server.known == [False, True]
    assert server.scopes[0]["client"] != server.scopes[1]["client"]


@pytest.mark.parametrize(
    "other",
    [
        request(b"b", "X-More: 1"),
        request(b"b", path="/v1/rerank"),
        request(b"b").replace(b"Bearer", b"bearer"),
        request(b"b").replace(b"Content-Length: 1", b"Content-Length:  1"),
        request(b"b").replace(b"Content-Length: 1", b"Content-Length: 01"),
        request(b"b").replace(b"Content-Length: 1", b"content-length: 1"),
        request(b"b").replace(b"Content-Length: 1\r\n", b"")[:-1],
    ],
)
async def test_other_head_is_not_known(server: Server, other: bytes) -> None:
    received = await server.exchange(request(b"a"), other)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert server.known == [False, False]


@pytest.mark.parametrize(
    "invalid",
    [
        request(b"b", "Content-Length: 1"),
        request(b"b", "Content-Length: 2"),
        request(b"b", "Transfer-Encoding: chunked"),
        request(b"b", "X-Name: a\0b"),
        request(b"b").replace(b"Content-Length: 1", b"Content-Length: 1\0"),
        request(b"b").replace(
            b"\r\nContent-Length: 1\r\n", b"\r\nContent-Length: \0\r\nContent-Length: 1\r\n"
        ),
    ],
)
async def test_invalid_head_is_refused_after_a_valid_one_and_never_known(
    server: Server, invalid: bytes
) -> None:
    for _ in range(2):
        received = await server.exchange(request(b"a"), invalid)
        assert received.count(b"HTTP/1.1 200 OK") == 1
        assert b"HTTP/1.1 400 Bad Request" in received
    assert server.known == [False, True]


async def test_known_head_with_two_requests_at_once_or_a_part_of_one(server: Server) -> None:
    both = request(b"b") + request(b"cc")
    parts = request(b"d" * 50)
    received = await server.exchange(
        request(b"a"), both, parts[:20], parts[20:-30], parts[-30:], request(b"e")
    )
    names = [body.split()[1] for body in bodies(received)]
    assert names == [b"a", b"b", b"cc", b"d" * 50, b"e"]
    assert server.known == [False, False, False, False, True]


@pytest.mark.parametrize(
    "first", [request(b"a", "Connection: close"), request(b"a").replace(b"HTTP/1.1", b"HTTP/1.0")]
)
async def test_head_after_which_the_connection_closes_is_not_remembered(server: Server, first: bytes) -> None:
    for _ in range(2):
        assert b"connection: close" in await server.exchange(first)
    assert server.known == [False, False]


async def test_few_of_the_heads_of_a_client_that_never_repeats_one_are_looked_up(server: Server) -> None:
    received = await server.exchange(*(request(b"a", f"Traceparent: {number}") for number in range(40)))
    assert received.count(b"HTTP/1.1 200 OK") == 40
    assert len(server.heads._scopes) < 20
    await server.exchange(*(request(b"a") for _ in range(3)))
    assert server.known[-3:] == [False, True, True]


async def test_known_heads_are_bounded_and_have_no_key(server: Server) -> None:
    heads = KnownHeads()
    for number in range(2000):
        data = request(b"", f"X-Number: {number}")
        found = heads.find(data)
        assert found is not None
        assert found.scope is None
        scope: Scope = {
            "type": "http",
            "asgi": {},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/embeddings",
            "raw_path": b"/v1/embeddings",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"host", b"gate"), (b"authorization", b"Bearer " + KEY.encode())],
        }
        head = read_head(scope, lambda *_: FACE, keys_in_path=True)
        scope[HEAD], scope["headers"] = head, head.public_headers
        heads.remember(found.digest, scope)
    again = heads.find(data)
    assert again is not None
    assert again.scope is not None
    assert len(heads._scopes) <= 1024
    assert KEY not in repr(heads._scopes)


def test_limit_or_revocation_of_a_key_holds_at_once_on_a_kept_connection(settings: Settings) -> None:
    with RunningGateway(settings) as gateway:
        gateway.request("POST", "/api/endpoints", {"name": "e5", "task": "text_embedding", "source": "fake"})
        made = gateway.request("POST", "/api/keys", {"name": "app"}).json()
        body = b'{"model": "e5", "input": "a"}'
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {made['key']}\r\n"
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        where = urlsplit(gateway.url)
        with socket.create_connection((where.hostname, where.port), timeout=240) as client:

            def status() -> bytes:
                client.sendall(data)
                return client.recv(65536).split(b" ")[1]

            assert [status() for _ in range(3)] == [b"200"] * 3
            assert gateway.request("PATCH", "/api/keys/app", {"requests_per_minute": 1}).status == 200
            assert [status() for _ in range(2)] == [b"200", b"429"]
            assert gateway.request("DELETE", "/api/keys/app").status in (200, 204)
            assert status() == b"401"
