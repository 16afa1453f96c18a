"""Streams over HTTP, and the ways to a server: silence, slow readers, proxies, certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lookalikes import lookalike
from raw_server import raw_server

from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint
from hubgate.upstreams.addresses import AddressRule
from hubgate.upstreams.messages import HttpRequest
from hubgate.upstreams.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from hubgate.upstreams.messages import HttpStream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Talk: TypeAlias = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Raw:
    """A server that talks as it is told, and says what became of its connections."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0
        self.closed = asyncio.Event()
        """By the other side."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with raw_server(self.answer) as port:
            yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def opened(**options: float) -> AsyncIterator[PooledClient]:
    client = PooledClient(AddressRule(), **options)  # type: ignore[arg-type] # seconds
    try:
        yield client
    finally:
        await client.close()


def get(url: str, **fields: object) -> HttpRequest:
    return HttpRequest(method="GET", url=url, **fields)  # type: ignore[arg-type] # as the tests name them


async def drained(stream: HttpStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def failure(asked: Awaitable[object]) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await asked
    return caught.value


async def test_pieces_come_as_they_are_sent_and_the_connection_is_used_again() -> None:
    going_on = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))
        await going_on.wait()
        writer.write(chunk(b"two") + chunk(b""))

    raw = Raw(talk)
    async with raw.running() as url, opened() as client:
        for _ in range(2):
            going_on.clear()
            stream = await client.stream(get(url))
            assert stream.status == 200
            pieces = aiter(stream)
            assert await anext(pieces) == b"one"
            going_on.set()
            assert [piece async for piece in pieces] == [b"two"]
            await stream.aclose()
        assert raw.connections == 1


async def test_who_has_read_all_that_matters_waits_for_the_end_to_keep_the_connection() -> None:
    done = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: [DONE]\n\n"))
        await done.wait()
        writer.write(chunk(b""))

    raw = Raw(talk)
    async with raw.running() as url, opened() as client:
        for _ in range(2):
            done.clear()
            stream = await client.stream(get(url))
            await anext(aiter(stream))
            done.set()
            await stream.finish()
        assert raw.connections == 1


async def test_a_reply_that_does_not_end_after_all_that_matters_is_closed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: [DONE]\n\n"))

    raw = Raw(talk)
    async with raw.running() as url, opened() as client:
        stream = await client.stream(get(url))
        await anext(aiter(stream))
        await stream.finish()
        await raw.closed.wait()


async def test_closing_and_leaving_close_the_connection_at_once() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))

    for leave in (True, False):
        raw = Raw(talk)
        async with raw.running() as url, opened() as client:
            stream = await client.stream(get(url))
            pieces = aiter(stream)
            await anext(pieces)
            if leave:
                reader = asyncio.ensure_future(anext(pieces))
                await asyncio.sleep(0)
                reader.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reader
            await stream.aclose()
            await raw.closed.wait()


async def test_silence_between_two_pieces_is_a_timeout() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))

    async with Raw(talk).running() as url, opened(silence_seconds=0.1) as client:
        for seconds in (None, 0.2):
            stream = await client.stream(get(url, silence=seconds))
            pieces = aiter(stream)
            await anext(pieces)
            error = await failure(anext(pieces))
            await stream.aclose()
            assert error.cause is Cause.UPSTREAM_TIMEOUT
            assert f"{seconds or 0.1:g} seconds" in error.message


async def test_headers_that_never_come_are_a_timeout_and_a_break_is_a_lost_connection() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say nothing."""

    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"5\r\non")
        writer.close()

    async with opened() as client:
        async with Raw(silent).running() as url:
            assert (await failure(client.stream(get(url, timeout=0.1)))).cause is Cause.UPSTREAM_TIMEOUT
        async with Raw(breaking).running() as url:
            stream = await client.stream(get(url))
            error = await failure(drained(stream))
            await stream.aclose()
        assert error.cause is Cause.CONNECTION_LOST


async def test_a_slow_reader_holds_the_server_up_and_not_the_memory() -> None:
    """The server can send no more than the sockets and a small buffer take; then it must wait."""
    sent = 0
    full = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD)
        while True:
            writer.write(chunk(b"x" * 65_536))
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                full.set()
                await writer.drain()
            sent += 65_536

    async with Raw(talk).running() as url, opened() as client:
        stream = await client.stream(get(url))
        await asyncio.wait_for(full.wait(), 20)
        held = sent
        assert held < 32 * 1024 * 1024
        read = 0
        async for piece in stream:
            read += len(piece)
            if read > held:
                break
        await stream.aclose()


async def test_the_rest_of_an_error_is_read_in_part() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)

    async with Raw(talk).running() as url, opened() as client:
        reply = await (await client.stream(get(url))).rest()
    assert reply.status == 500
    assert 64 * 1024 < len(reply.body) < 3_000_000


class Proxy:
    """An HTTP proxy: it forwards plain requests, and tunnels others, for those who bear the password."""

    def __init__(self, password: str | None = None) -> None:
        self.asked: list[bytes] = []
        self._password = password

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b"\r\n")[0])
        if self._password and b"Proxy-Authorization: Basic " not in head:
            writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif head.startswith(b"CONNECT"):
            host, port = head.split()[1].split(b":")
            there, out = await asyncio.open_connection(host.decode(), int(port))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                await asyncio.gather(_copied(reader, out), _copied(there, writer))
            finally:
                out.transport.abort()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOk")
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with raw_server(self.answer) as port:
            yield f"127.0.0.1:{port}"


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_a_proxy_is_asked_where_the_endpoint_names_one() -> None:
    proxy = Proxy(password="p")
    async with proxy.running() as where, opened() as client:
        reply = await client.send(get("http://model.example/health", proxy=f"http://u:p@{where}"))
        assert reply.body == b"Ok"
        refused = await client.send(get("http://model.example/health", proxy=f"http://{where}"))
        assert refused.status == 407
    assert proxy.asked == [b"GET http://model.example/health HTTP/1.1"] * 2


async def test_a_proxy_that_is_not_there_or_lets_nobody_through_is_named() -> None:
    async with opened() as client:
        error = await failure(client.send(get("http://model.example/", proxy="http://127.0.0.1:9")))
        assert error.cause is Cause.CONNECTION_REFUSED
        assert "the proxy 127.0.0.1:9" in error.message
        async with Proxy(password="p").running() as where:
            error = await failure(client.send(get("https://model.example/", proxy=f"http://{where}")))
        assert "407" in error.message
        assert not error.retryable
        refused = await failure(client.send(get("http://model.example/", proxy="http://169.254.169.254")))
        assert refused.cause is Cause.ADDRESS_REFUSED


def made_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def test_a_certificate_of_the_operators_own_is_accepted_where_its_file_is_named(tmp_path: Path) -> None:
    path = made_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with lookalike("tei", tls=context) as server:
        async with opened() as client:
            assert (await failure(client.send(get(server.url)))).cause is Cause.TLS_FAILED
            reply = await client.send(get(server.url + "/health", ca_bundle=str(path)))
            assert reply.status == 200
            async with Proxy().running() as where:
                tunnelled = get(server.url + "/health", ca_bundle=str(path), proxy=f"http://{where}")
                assert (await client.send(tunnelled)).status == 200


async def test_a_file_of_certificates_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = made_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("nothing yet")
    with lookalike("tei", tls=context) as server:
        async with opened() as client:
            asked = get(server.url + "/health", ca_bundle=str(bundle))
            assert isinstance(await failure(client.send(asked)), InvalidEndpoint)
            bundle.write_bytes(path.read_bytes())
            os.utime(bundle, ns=(1, 1))
            assert (await client.send(asked)).status == 200


async def test_a_file_of_certificates_that_is_not_there_is_told() -> None:
    async with opened() as client:
        error = await failure(client.send(get("https://127.0.0.1:9", ca_bundle="/nowhere/ca.pem")))
    assert isinstance(error, InvalidEndpoint)
    assert "[ca_bundle]" in error.message
