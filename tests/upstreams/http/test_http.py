"""The HTTP client against real sockets: replies, every kind of failure, and refused addresses."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from certificates import server_context, write_certificate
from http_client import open_http_client
from lookalikes import LookAlike, lookalike
from raw_server import raw_server

from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InvalidEndpoint,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import MAX_ERROR_BYTES
from hubgate.upstreams.http.messages import HttpReply, HttpRequest
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path


class Names:
    """A name server that answers each name from its script, one answer after the other."""

    def __init__(self, **script: list[str]) -> None:
        self.script = {name.replace("_", "."): list(addresses) for name, addresses in script.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        answers = self.script.get(host)
        if not answers:
            raise OSError(None, f"no such name: {host}")
        return answers.pop(0).split()


@asynccontextmanager
async def replying(reply: bytes) -> AsyncIterator[str]:
    """A server that answers whatever comes with these bytes and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with raw_server(answer) as port:
        yield f"http://127.0.0.1:{port}"


def get(url: str, timeout: float | None = None) -> HttpRequest:
    return HttpRequest(method="GET", url=url, timeout=timeout)


async def failure(send: Awaitable[HttpReply]) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await send
    return caught.value


async def test_reply_has_status_headers_and_body() -> None:
    with lookalike("tei", key="k") as server:
        async with open_http_client() as client:
            reply = await client.send(get(server.url + "/health"))
            assert (reply.status, reply.body) == (200, b"")
            reply = await client.send(HttpRequest(method="POST", url=server.url + "/embed", body=b"{}"))
            assert reply.status == 401
            assert reply.headers.get("CONTENT-TYPE") == "text/plain"
            assert (reply.content_type, reply.is_html) == ("text/plain", False)


async def test_request_has_user_agent_and_accepts_json() -> None:
    with lookalike("tei") as server:
        async with open_http_client() as client:
            await client.send(get(server.url + "/info"))
        headers = server.requests[0].headers
        assert headers["user-agent"].startswith("hubgate/")
        assert headers["accept"] == "application/json"
        assert "cookie" not in headers


async def test_connections_are_reused() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nOk")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async with raw_server(answer) as port, open_http_client() as client:
        for _ in range(3):
            assert (await client.send(get(f"http://127.0.0.1:{port}"))).body == b"Ok"
    assert connections == 1


async def test_idle_connections_are_closed() -> None:
    closed: list[asyncio.Event] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed.append(left := asyncio.Event())
        while head := await reader.read(1000):
            length = int(head.split()[1][1:])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length)
        left.set()

    async with raw_server(answer) as port, open_http_client(keep_alive_seconds=0.1) as client:
        url = f"http://127.0.0.1:{port}"
        await asyncio.gather(*(client.send(get(f"{url}/2")) for _ in range(2)))
        await asyncio.gather(*(left.wait() for left in closed))
        assert len(closed) == 2
    async with raw_server(answer) as port, open_http_client(keep_alive_seconds=0) as client:
        for _ in range(2):
            assert (await client.send(get(f"http://127.0.0.1:{port}/2"))).body == b"xx"
        assert len(closed) == 4, "a connection that its server may be closing was used"


async def test_header_with_line_break_is_rejected() -> None:
    with lookalike("tei") as server:
        async with open_http_client() as client:
            request = HttpRequest(method="GET", url=server.url, headers={"Authorization": "Bearer a\r\nX: b"})
            assert isinstance(await failure(client.send(request)), InvalidEndpoint)
        assert server.requests == []


async def test_large_body_is_received_completely() -> None:
    body = b'{"inputs": ["' + b"x" * 1_500_000 + b'"]}'
    with lookalike("tei") as server:
        async with open_http_client() as client:
            await client.send(HttpRequest(method="POST", url=server.url + "/embed", body=body))
        assert server.requests[0].body == body


async def test_gzip_reply_is_decompressed() -> None:
    packed = gzip.compress(b"hello")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with replying(head + packed) as url, open_http_client() as client:
        assert (await client.send(get(url))).body == b"hello"


async def test_invalid_gzip_reply_is_unreadable() -> None:
    async with (
        replying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello") as url,
        open_http_client() as client,
    ):
        error = await failure(client.send(get(url)))
    assert isinstance(error, UpstreamUnreadable)
    assert error.cause is Cause.UNREADABLE_REPLY


async def test_oversized_reply_is_rejected_and_error_page_read_in_part() -> None:
    head = b"HTTP/1.1 %s\r\nContent-Length: 3000000\r\n\r\n"
    async with open_http_client(max_reply_bytes=1000) as client:
        async with replying(head % b"200 OK" + b"x" * 3_000_000) as url:
            error = await failure(client.send(get(url)))
            assert isinstance(error, UpstreamUnreadable)
            assert "more than 1000 bytes, the limit set by HUBGATE_MAX_REPLY_BYTES" in error.message
        async with replying(head % b"500 No" + b"x" * 3_000_000) as url:
            reply = await client.send(get(url))
            assert reply.status == 500
            assert MAX_ERROR_BYTES < len(reply.body) < 3_000_000


async def test_redirect_is_not_followed_and_target_is_named_without_secrets() -> None:
    with lookalike("tei", fault="redirect") as server:
        async with open_http_client() as client:
            error = await failure(client.send(get(server.url)))
    assert isinstance(error, UpstreamUnreachable)
    assert (error.cause, error.retryable) == (Cause.UPSTREAM_REDIRECTS, False)
    assert "http://elsewhere.example:81" in error.message
    assert "secret" not in str(error)


async def test_redirect_to_a_malformed_url_is_an_error() -> None:
    async with (
        replying(b"HTTP/1.1 302 Found\r\nLocation: http://[bad\r\nContent-Length: 0\r\n\r\n") as url,
        open_http_client() as client,
    ):
        assert (await failure(client.send(get(url)))).cause is Cause.UPSTREAM_REDIRECTS


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("close", Cause.CONNECTION_LOST),
        ("half", Cause.CONNECTION_LOST),
        ("not-http", Cause.NOT_AN_API),
        ("hang", Cause.UPSTREAM_TIMEOUT),
    ],
)
async def test_lost_connection_and_timeout_are_different_errors(fault: str, cause: Cause) -> None:
    with lookalike("tei", fault=fault) as server:
        async with open_http_client() as client:
            error = await failure(client.send(get(server.url, timeout=0.2 if fault == "hang" else None)))
    assert error.cause is cause
    assert server.url in error.message
    assert error.remedy


async def test_refused_connection_is_reported() -> None:
    with lookalike("tei") as server:
        pass
    async with open_http_client() as client:
        error = await failure(client.send(get(server.url)))
    assert (error.cause, error.retryable) == (Cause.CONNECTION_REFUSED, True)


async def test_connection_that_is_never_established_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # the queue of connections is full when they wait in it
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        async with open_http_client(connect_seconds=0.2) as client:
            error = await failure(client.send(get(f"http://127.0.0.1:{listener.getsockname()[1]}")))
        for one in waiting:
            one.close()
    assert error.cause is Cause.UPSTREAM_TIMEOUT
    assert "Timed out connecting to http://127.0.0.1" in error.message


@pytest.mark.parametrize(
    ("host", "code", "remedy"),
    [
        ("gone.endpoints.huggingface.cloud", socket.EAI_NONAME, "Check the URL for typos."),
        ("gone.endpoints.huggingface.cloud", socket.EAI_AGAIN, "Check the network connection"),
        ("router.huggingface.co", socket.EAI_NONAME, "Check the network connection"),
    ],
)
async def test_dns_failure_has_a_fitting_remedy(host: str, code: int, remedy: str) -> None:
    """It suggests a misspelling neither for names built into hubgate nor when no name server answered."""

    async def fail(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(code, "no")

    async with open_http_client(resolve=fail) as client:
        error = await failure(client.send(get(f"http://{host}")))
    assert error.cause is Cause.NAME_NOT_RESOLVED
    assert host in error.message
    assert error.remedy.startswith(remedy)


async def test_unreachable_network_is_reported() -> None:
    async with open_http_client() as client:
        error = await failure(client.send(get("http://127.255.255.255:9")))
    assert error.cause in {Cause.CONNECTION_REFUSED, Cause.CONNECTION_LOST}
    assert "127.255.255.255" in error.message


@pytest.mark.parametrize("url", ["http://", "http://" + "ä" * 80, "http://a..b", "http://[::1"])
async def test_invalid_url_is_rejected(url: str) -> None:
    async with open_http_client() as client:
        assert isinstance(await failure(client.send(get(url))), InvalidEndpoint)


async def test_untrusted_certificate_is_reported_with_reason(tmp_path: Path) -> None:
    with lookalike("tei", tls=server_context(write_certificate(tmp_path))) as server:
        async with open_http_client() as client:
            error = await failure(client.send(get(server.url)))
    assert (error.cause, error.retryable) == (Cause.TLS_FAILED, False)
    assert "self-signed certificate" in error.message


async def test_https_to_a_plain_http_server_is_reported() -> None:
    with lookalike("tei") as server:
        async with open_http_client() as client:
            error = await failure(client.send(get(server.url.replace("http:", "https:"))))
    assert error.cause is Cause.TLS_FAILED
    assert "plain HTTP" in error.message


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data", "http://2852039166", "http://[::ffff:169.254.169.254]"]
)
async def test_cloud_metadata_address_is_never_contacted(url: str) -> None:
    async with open_http_client() as client:
        assert (await failure(client.send(get(url)))).cause is Cause.ADDRESS_REFUSED


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254"])
async def test_name_that_resolves_to_metadata_address_is_refused(address: str) -> None:
    names = Names(innocent_example=[address])
    async with open_http_client(resolve=names) as client:
        error = await failure(client.send(get("http://innocent.example/")))
    assert error.cause is Cause.ADDRESS_REFUSED
    assert "innocent.example" in error.message


async def test_dns_rebinding_to_metadata_address_is_refused() -> None:
    """The checked address is the one connected to: a second DNS answer is checked again."""
    names = Names(rebinding_example=["127.0.0.1", "169.254.169.254"])
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with replying(closing) as url:
        target = url.replace("127.0.0.1", "rebinding.example")
        async with open_http_client(resolve=names) as client:
            assert (await client.send(get(target))).status == 200
        async with open_http_client(resolve=names) as client:
            assert (await failure(client.send(get(target)))).cause is Cause.ADDRESS_REFUSED
    assert names.script["rebinding.example"] == []


async def test_every_resolved_address_is_checked_before_connecting() -> None:
    with lookalike("tei") as server:
        names = Names(innocent_example=["127.0.0.1 169.254.169.254"])
        async with open_http_client(resolve=names) as client:
            error = await failure(client.send(get(server.url.replace("127.0.0.1", "innocent.example"))))
        assert error.cause is Cause.ADDRESS_REFUSED
        assert server.requests == []


async def test_next_resolved_address_is_tried_when_connection_is_refused() -> None:
    with lookalike("tei") as server:
        names = Names(model_example=["127.255.255.254 127.0.0.1"])
        async with open_http_client(resolve=names) as client:
            url = server.url.replace("127.0.0.1", "model.example")
            assert (await client.send(get(url + "/health"))).status == 200


async def test_dns_without_addresses_or_without_answer_is_reported() -> None:
    async def nothing(host: str, port: int) -> Sequence[str]:
        return []

    async def silence(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    for resolve, cause in ((nothing, Cause.NAME_NOT_RESOLVED), (silence, Cause.UPSTREAM_TIMEOUT)):
        async with open_http_client(resolve=resolve, connect_seconds=0.05) as client:
            assert (await failure(client.send(get("http://model.example")))).cause is cause


async def test_loopback_is_refused_when_private_addresses_are_forbidden() -> None:
    with lookalike("tei") as server:
        async with open_http_client(AddressRule(allow_private=False)) as client:
            for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
                assert (await failure(client.send(get(url)))).cause is Cause.ADDRESS_REFUSED
        assert server.requests == []


async def when(server: LookAlike, condition: Callable[[LookAlike], bool]) -> None:
    await asyncio.to_thread(server.wait_until, condition)


async def test_cancelled_request_closes_its_connection() -> None:
    with lookalike("tei", fault="hang") as server:
        async with open_http_client() as client:
            caller = asyncio.create_task(client.send(get(server.url)))
            await when(server, lambda s: len(s.requests) == 1)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            await when(server, lambda s: s.abandoned == 1)


async def test_unused_client_closes() -> None:
    await PooledClient(AddressRule()).close()


def test_repr_of_request_and_reply_hides_their_content() -> None:
    request = HttpRequest(
        method="POST", url="http://h", headers={"Authorization": "hunter2"}, body=b"hunter2"
    )
    reply = HttpReply(status=200, headers={"a": "hunter2"}, body=b"hunter2")
    assert "hunter2" not in f"{request!r} {reply!r}"
