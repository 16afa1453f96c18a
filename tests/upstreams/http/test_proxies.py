"""Requests through an HTTP proxy: what it receives, its credentials, and its failures."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from certificates import server_context, write_certificate
from http_client import open_http_client
from lookalikes import lookalike
from lookalikes.hub_api import running_hub_api
from raw_server import raw_server

from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, UpstreamUnreachable
from hubgate.domain.hub import ModelSearch
from hubgate.settings import Settings
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.proxy import Proxy, environment_proxy
from hubgate.upstreams.hub.client import open_hub

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from pathlib import Path

    from lookalikes import LookAlike

HTTP = "http://model.example/health?a=1"
HTTPS = "https://model.example/health"


class ForwardProxy:
    """Answers plain requests itself, and tunnels to `there` whatever server is requested.

    Args:
        there: the port of the server behind the tunnel.
        word: the `name:password` that it requires.
        answer: the reply to CONNECT, instead of a tunnel.
    """

    def __init__(self, there: int = 0, *, word: str | None = None, answer: bytes | None = None) -> None:
        self._there = there
        self._word = word
        self._answer = answer
        self.connections = 0
        self.heads: list[bytes] = []

    @property
    def asked(self) -> list[bytes]:
        """The first line of each request."""
        return [head.partition(b"\r\n")[0] for head in self.heads]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                await self._do(head, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def _do(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = base64.b64encode(self._word.encode()) if self._word else None
        if word and b"\r\nProxy-Authorization: Basic %b\r\n" % word not in head:
            writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        elif not head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOk")
        elif self._answer is not None:
            writer.write(self._answer)
            writer.close()
        else:
            there, out = await asyncio.open_connection("127.0.0.1", self._there)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                await asyncio.gather(_copied(reader, out), _copied(there, writer))
            finally:
                out.transport.abort()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        async with raw_server(self.talk, tls=tls) as port:
            yield f"127.0.0.1:{port}"


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: Path) -> Iterator[LookAlike]:
    """A model server behind TLS."""
    with lookalike("tei", tls=server_context(certificate)) as server:
        yield server


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def get(url: str, proxy: str, ca_bundle: Path | None = None) -> HttpRequest:
    return HttpRequest(method="GET", url=url, proxy=proxy, ca_bundle=str(ca_bundle) if ca_bundle else None)


async def failure(asked: Awaitable[object]) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await asked
    return caught.value


class TestPlain:
    async def test_proxy_receives_the_full_url_and_connection_is_reused(self) -> None:
        proxy = ForwardProxy()
        async with proxy.running() as where, open_http_client() as client:
            for _ in range(2):
                assert (await client.send(get(HTTP, f"http://{where}"))).body == b"Ok"
        assert proxy.asked == [b"GET http://model.example/health?a=1 HTTP/1.1"] * 2
        assert b"\r\nHost: model.example\r\n" in proxy.heads[0]
        assert b"Proxy-Authorization" not in proxy.heads[0]
        assert proxy.connections == 1

    async def test_proxy_receives_credentials_from_its_url(self) -> None:
        proxy = ForwardProxy(word="jo@corp:p:ä/")
        async with proxy.running() as where, open_http_client() as client:
            reply = await client.send(get(HTTP, f"http://jo%40corp:p:%C3%A4%2F@{where}"))
            assert reply.status == 200
            assert (await client.send(get(HTTP, f"http://{where}"))).status == 407
            assert (await client.send(get(HTTP, f"http://jo@{where}"))).status == 407
        assert proxy.connections == 3, "who shows something else is somebody else"

    async def test_stream_works_through_proxy(self) -> None:
        async with ForwardProxy().running() as where, open_http_client() as client:
            stream = await client.stream(get(HTTP, f"http://{where}"))
            assert b"".join([piece async for piece in stream]) == b"Ok"
            await stream.aclose()

    async def test_tls_proxy_forwards_plain_http(self, certificate: Path) -> None:
        proxy = ForwardProxy()
        async with proxy.running(server_context(certificate)) as where, open_http_client() as client:
            reply = await client.send(get(HTTP, f"https://{where}", certificate))
            assert reply.body == b"Ok"
            error = await failure(client.send(get(HTTP, f"https://{where}")))
        assert error.cause is Cause.TLS_FAILED
        assert f"the proxy {where}" in error.message


class TestTunnel:
    async def test_tls_runs_through_tunnel_and_connection_is_reused(
        self, secure: LookAlike, certificate: Path
    ) -> None:
        proxy = ForwardProxy(port_of(secure.url), word="u:p")
        async with proxy.running() as where, open_http_client() as client:
            for _ in range(2):
                asked = get(secure.url + "/health", f"http://u:p@{where}", certificate)
                assert (await client.send(asked)).status == 200
            stream = await client.stream(get(secure.url + "/info", f"http://u:p@{where}", certificate))
            assert b"model_id" in b"".join([piece async for piece in stream])
            await stream.aclose()
        assert proxy.asked == [f"CONNECT 127.0.0.1:{port_of(secure.url)} HTTP/1.1".encode()]
        assert not any("proxy-authorization" in asked.headers for asked in secure.requests)

    async def test_connections_are_not_shared_between_servers_or_proxies(
        self, secure: LookAlike, certificate: Path
    ) -> None:
        proxies = [ForwardProxy(port_of(secure.url)) for _ in range(2)]
        async with proxies[0].running() as one, proxies[1].running() as two, open_http_client() as client:
            for where in (one, two):
                for url in (secure.url + "/health", HTTP):
                    assert (await client.send(get(url, f"http://{where}", certificate))).status == 200
        assert [proxy.connections for proxy in proxies] == [2, 2]

    async def test_tunnel_through_tls_proxy_works(self, secure: LookAlike, certificate: Path) -> None:
        async with (
            ForwardProxy(port_of(secure.url)).running(server_context(certificate)) as where,
            open_http_client() as client,
        ):
            reply = await client.send(get(secure.url + "/health", f"https://{where}", certificate))
            assert reply.status == 200

    async def test_server_with_untrusted_certificate_is_named(self, secure: LookAlike) -> None:
        async with ForwardProxy(port_of(secure.url)).running() as where, open_http_client() as client:
            error = await failure(client.send(get(secure.url, f"http://{where}")))
        assert (error.cause, error.retryable) == (Cause.TLS_FAILED, False)
        assert secure.url in error.message

    async def test_server_without_tls_behind_proxy_is_reported(self) -> None:
        with lookalike("tei") as server:
            async with ForwardProxy(port_of(server.url)).running() as where, open_http_client() as client:
                error = await failure(client.send(get(HTTPS, f"http://{where}")))
        assert "https://model.example failed: the server uses plain HTTP" in error.message

    @pytest.mark.parametrize(
        ("answer", "said", "retryable"),
        [
            (
                b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno",
                r"refused the tunnel to https://model\.example\S* \(403\)",
                False,
            ),
            (
                b"HTTP/1.1 502 No\r\nContent-Encoding: gzip\r\n\r\n",
                r"refused the tunnel to https://model\.example\S* \(502\)",
                True,
            ),
            (b"", "The proxy .* closed the connection", True),
            (b"SSH-2.0-x\r\n", "The proxy .* did not reply in HTTP", False),
            (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "Cannot connect to https://model", True),
        ],
        ids=["403", "502", "nothing", "not http", "more than a tunnel"],
    )
    async def test_proxy_that_refuses_the_tunnel_is_reported(
        self, answer: bytes, said: str, retryable: bool
    ) -> None:
        async with ForwardProxy(answer=answer).running() as where, open_http_client() as client:
            with pytest.raises(HubgateError, match=said) as caught:
                await client.send(get(HTTPS, f"http://{where}"))
        assert caught.value.retryable is retryable

    async def test_proxy_that_requires_a_password_is_reported(self) -> None:
        async with ForwardProxy(word="u:p").running() as where, open_http_client() as client:
            error = await failure(client.send(get(HTTPS, f"http://u:wrong@{where}")))
        assert "The proxy refused the tunnel to https://model.example (407)" in error.message
        assert "wrong" not in str(error)
        assert not error.retryable

    async def test_silent_proxy_times_out_and_cancelling_closes_the_connection(self) -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            left.set()

        async with raw_server(silent) as port:
            proxy = f"http://127.0.0.1:{port}"
            async with open_http_client(connect_seconds=0.1) as client:
                error = await failure(client.send(get(HTTPS, proxy)))
                assert error.cause is Cause.UPSTREAM_TIMEOUT
                assert f"The proxy 127.0.0.1:{port} did not respond" in error.message
                await asyncio.wait_for(left.wait(), 10)
            asked.clear()
            left.clear()
            async with open_http_client() as client:
                caller = asyncio.create_task(client.send(get(HTTPS, proxy)))
                await asked.wait()
                caller.cancel()
                await asyncio.gather(caller, return_exceptions=True)
                await asyncio.wait_for(left.wait(), 10)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_tunnels_work_on_uvloop(secure: LookAlike, certificate: Path, scheme: str) -> None:
    """`hubgate serve` uses it where available, and it has its own implementation of TLS in TLS."""
    uvloop = pytest.importorskip("uvloop", reason="there is no uvloop for this platform")

    async def asked() -> list[int]:
        tls = server_context(certificate) if scheme == "https" else None
        async with ForwardProxy(port_of(secure.url)).running(tls) as where, open_http_client() as client:
            request = get(secure.url + "/health", f"{scheme}://{where}", certificate)
            return [(await client.send(request)).status for _ in range(2)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(asked()) == [200, 200]


class TestWhichProxies:
    async def test_unreachable_proxy_is_named(self) -> None:
        async with open_http_client() as client:
            for url in (HTTP, HTTPS):
                error = await failure(client.send(get(url, "http://127.0.0.1:9")))
                assert error.cause is Cause.CONNECTION_REFUSED
                assert "the proxy 127.0.0.1:9" in error.message

    async def test_address_rule_applies_to_proxies_and_their_names(self) -> None:
        async def metadata(host: str, port: int) -> list[str]:
            return ["169.254.169.254"]

        async with open_http_client(resolve=metadata) as client:
            for proxy in ("http://169.254.169.254", "http://proxy.example:3128"):
                assert (await failure(client.send(get(HTTP, proxy)))).cause is Cause.ADDRESS_REFUSED
            behind = get("http://169.254.169.254/latest", "http://127.0.0.1:9")
            assert (await failure(client.send(behind))).cause is Cause.ADDRESS_REFUSED
        async with open_http_client(AddressRule(allow_private=False)) as client:
            assert (
                await failure(client.send(get(HTTP, "http://127.0.0.1:9")))
            ).cause is Cause.ADDRESS_REFUSED

    async def test_proxy_with_unsupported_scheme_is_rejected(self) -> None:
        async with open_http_client() as client:
            assert isinstance(await failure(client.send(get(HTTP, "socks5://127.0.0.1:9"))), InvalidEndpoint)

    def test_proxy_password_is_not_shown(self) -> None:
        proxy = Proxy.of("http://u:hunter2@[::1]", AddressRule(), None)
        assert proxy.name == "the proxy [::1]:80"
        assert "hunter2" not in repr(proxy)
        assert base64.b64encode(b"u:hunter2").decode() not in repr(proxy)


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)

    def test_no_proxy_is_used_when_environment_names_none(self) -> None:
        assert environment_proxy("https://huggingface.co/api") is None

    @pytest.mark.parametrize(
        ("environment", "url", "proxy"),
        [
            ({"HTTPS_PROXY": "http://p:1"}, "https://hub.example/a", "http://p:1"),
            ({"HTTPS_PROXY": "http://p:1"}, "http://hub.example/a", None),
            ({"http_proxy": "u:p@p:1"}, "http://hub.example/a", "http://u:p@p:1"),
            ({"ALL_PROXY": "http://p:1"}, "https://hub.example/a", "http://p:1"),
            ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x, .hub.example"}, "https://hub.example/a", None),
            ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "hub.example:444"}, "https://hub.example:444", None),
            (
                {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "hub.example:444"},
                "https://hub.example",
                "http://p:1",
            ),
            ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "::1"}, "https://[::1]:8/a", None),
            ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://hub.example/a", None),
        ],
    )
    def test_proxy_variables_follow_common_conventions(
        self, environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert environment_proxy(url) == proxy

    async def test_hub_requests_use_the_proxy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = ForwardProxy(word="u:p")
        with running_hub_api() as site:
            settings = Settings(home=tmp_path, secret_key_file=tmp_path / "key", hf_endpoint=site.url)
            hub = open_hub(settings)
            try:
                async with proxy.running() as where:
                    monkeypatch.setenv("HTTP_PROXY", f"http://u:p@{where}")
                    with pytest.raises(HubgateError):  # it answers "Ok" to all that it is asked
                        await hub.search(ModelSearch(), None)
                    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
                    with pytest.raises(
                        UpstreamUnreachable, match=r"cannot be reached: .* the proxy 127\.0\.0\.1:9"
                    ):
                        await hub.search(ModelSearch(), None)
                    assert site.asked == []
                    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
                    assert await hub.search(ModelSearch(), None)
            finally:
                await hub.close()
        assert proxy.asked[0].startswith(f"GET {site.url}/api/models?".encode())
