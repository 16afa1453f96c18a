"""Requests and responses of HTTP/1.1 on a client's connection, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
import uvicorn
from uvicorn.server import ServerState

from hubgate.cli.server.connection import Connection
from hubgate.web.http.body import ON_DISCONNECT

if TYPE_CHECKING:
    from hubgate.web.http.asgi import Message, Receive, Scope, Send

HOST = b"host: gate\r\n\r\n"


async def whole(receive: Receive) -> bytes:
    parts, more = b"", True
    while more:
        message = await receive()
        parts += message["body"]
        more = message["more_body"]
    return parts


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Does what the path says."""
    path, headers = scope["path"], list[tuple[bytes, bytes]]()
    body = b"%b %b" % (path.encode(), await whole(receive))
    if path == "/slow":
        await asyncio.sleep(0.05)
    if path == "/fails":
        raise ValueError("on purpose")
    if path == "/split":
        headers.append((b"x-name", b"value\r\nx-other: 1"))
    if path not in ("/unknown-length", "/cut"):
        headers.append((b"content-length", b"%d" % len(body)))
    status = 204 if path == "/nothing" else 200
    await send({"type": "http.response.start", "status": status, "headers": [] if status == 204 else headers})
    if path == "/cut":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        return
    if path == "/unknown-length":
        for part in (b"a", b"", b"bc"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        body = b""
    if path == "/too-long":
        body += b"x"
    if path == "/too-short":
        body = body[:-1]
    await send({"type": "http.response.body", "body": b"" if status == 204 else body})


async def exchange(*parts: bytes, default: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """What the server sends to a client that sends these parts, until it closes the connection."""
    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = default or []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        received = await reader.read()
        writer.close()
        await asyncio.gather(*state.tasks)
        return received
    finally:
        server.close()


def request(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n" + HOST


CLOSE = "connection: close"


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    sent = (
        request("/slow") + request("/a", "content-length: 3", method="POST") + b"abc" + request("/b", CLOSE)
    )
    received = await exchange(sent)
    bodies = [part.split(b"HTTP/")[0] for part in received.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"/slow ", b"/a abc", b"/b "]


async def test_request_that_arrives_byte_by_byte_is_answered() -> None:
    sent = request("/a%20b?c=d", CLOSE, "transfer-encoding: chunked", method="POST") + b"2\r\nde\r\n0\r\n\r\n"
    received = await exchange(*(sent[at : at + 9] for at in range(0, len(sent), 9)))
    assert received.endswith(b"\r\n\r\n/a b de")


@pytest.mark.parametrize("close", ["connection: close", "connection: Close, x"])
async def test_connection_closes_after_the_response_that_the_client_wants_last(close: str) -> None:
    received = await exchange(request("/a", close) + request("/b"))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"\r\nconnection: close\r\n" in received


async def test_http_1_0_closes() -> None:
    received = await exchange(request("/a", version="1.0"))
    assert b"\r\nconnection: close\r\n" in received
    assert received.endswith(b"\r\n\r\n/a ")


async def test_default_headers_are_in_each_response_and_may_close_the_connection() -> None:
    default = [(b"date", b"today"), (b"connection", b"close")]
    received = await exchange(request("/a"), default=default)
    assert received.startswith(b"HTTP/1.1 200 OK\r\ndate: today\r\nconnection: close\r\n")
    assert received.count(b"connection: close") == 1


async def test_response_of_unknown_length_is_chunked() -> None:
    received = await exchange(request("/unknown-length", CLOSE))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"


@pytest.mark.parametrize("path", ["/a", "/unknown-length"])
async def test_response_to_head_has_no_body(path: str) -> None:
    received = await exchange(request(path, CLOSE, method="HEAD"))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert received.count(b"\r\n\r\n") == 1


async def test_response_204_has_no_body_and_no_length() -> None:
    received = await exchange(request("/nothing", CLOSE))
    assert received == b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"


async def test_body_is_asked_for_when_the_client_waits_for_that() -> None:
    head = request("/a", CLOSE, "expect: 100-continue", "content-length: 1", method="POST")
    received = await exchange(head, b"b")
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.endswith(b"/a b")


@pytest.mark.parametrize("path", ["/fails", "/split", "/too-long"])
async def test_failure_before_the_response_is_a_500(path: str) -> None:
    received = await exchange(request(path))
    assert received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nconnection: close\r\n" in received
    assert received.endswith(b"\r\n\r\nInternal Server Error")
    assert b"x-other" not in received


@pytest.mark.parametrize("path", ["/cut", "/too-short"])
async def test_failure_within_the_response_closes_the_connection(path: str) -> None:
    received = await exchange(request(path))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not received.endswith(b"0\r\n\r\n")


async def test_server_calls_on_disconnect_until_the_response_is_complete() -> None:
    left: list[str] = []
    began, told = asyncio.Event(), asyncio.Event()

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ON_DISCONNECT] = lambda: left.append(scope["path"])
        if scope["path"] == "/waits":
            began.set()
            await receive()
            message: Message = await receive()
            assert message["type"] == "http.disconnect"
            told.set()
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(note, http=Connection, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.sendall(request("/done") + request("/waits"))
        await began.wait()
    await told.wait()
    server.close()
    assert left == ["/waits"]
