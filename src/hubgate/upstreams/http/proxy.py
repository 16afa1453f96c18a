"""The way through an HTTP proxy: who it is, what it wants to see, and the tunnel to a server behind it."""

from __future__ import annotations

import asyncio
import base64
import functools
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hubgate.domain.errors import InvalidEndpoint
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import MAX_HEADER_BYTES, Connection
from hubgate.upstreams.http.dial import Origin
from hubgate.upstreams.http.failures import TROUBLE, connecting_to, failure, not_let_through
from hubgate.upstreams.http.resolve import target, trusting


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; the name and the password in its URL are not in its `repr`."""

    origin: Origin
    authorization: str = field(repr=False)
    """The header that lets requests in, with its line end; empty without a name."""

    @classmethod
    def of(cls, url: str, rule: AddressRule, ca_bundle: str | None) -> Proxy:
        """The proxy at a URL.

        Raises:
            InvalidEndpoint: its address may not be asked, or it is no HTTP proxy.
        """
        parsed, _ = target(url, rule)
        if parsed.scheme not in {"http", "https"}:
            raise InvalidEndpoint(
                "The proxy on the way is none that speaks HTTP.",
                remedy="Give one by a URL such as http://proxy.example.com:3128.",
            )
        named = parsed.user is not None or parsed.password is not None
        word = base64.b64encode(f"{parsed.user or ''}:{parsed.password or ''}".encode()).decode()
        return cls(Origin.of(parsed, ca_bundle), f"Proxy-Authorization: Basic {word}\r\n" if named else "")

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"the proxy {self.origin.authority}"


class Way(NamedTuple):
    """How requests to one URL go; connections are kept by it."""

    where: str
    """How messages name the server."""
    origin: Origin
    proxy: Proxy | None

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def of(cls, url: str, proxy: str | None, ca_bundle: str | None, rule: AddressRule) -> Way:
        """The way to a URL, by a proxy's URL if there is one.

        Raises:
            InvalidEndpoint: an address may not be asked, or a URL is none.
        """
        parsed, where = target(url, rule)
        return cls(where, Origin.of(parsed, ca_bundle), Proxy.of(proxy, rule, ca_bundle) if proxy else None)

    @property
    def reader(self) -> Proxy | None:
        """The proxy that reads the requests; one that a tunnel leads through does not."""
        return None if self.origin.is_tls else self.proxy


async def tunnel(connection: Connection, proxy: Proxy, origin: Origin, where: str, seconds: float) -> None:
    """Have a proxy put a connection through to a server, and speak TLS with that.

    Args:
        connection: to the proxy, on which nothing was sent yet; aborted if it is not put through.
        proxy: that it leads to.
        origin: that it shall lead to.
        where: how messages name the server.
        seconds: for each of the two steps.

    Raises:
        UpstreamError: the proxy or the server does not do its part.
    """
    try:
        await _put_through(connection, proxy, origin, where, seconds)
        context = await trusting(origin.ca_bundle)
        async with connecting_to(where, seconds):
            transport = await asyncio.get_running_loop().start_tls(
                connection.transport, connection, context, server_hostname=origin.host
            )
            if transport is None:  # it was lost as soon as it was there
                raise ConnectionResetError  # noqa: TRY301 - told by the context
            connection.connection_made(transport)
    except BaseException:
        connection.abort()
        raise


async def _put_through(
    connection: Connection, proxy: Proxy, origin: Origin, where: str, seconds: float
) -> None:
    line = f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n{proxy.authorization}\r\n"
    try:
        connection.send(line.encode("ascii"), b"", MAX_HEADER_BYTES, streams=True)
        await connection.begun(asyncio.get_running_loop().time() + seconds)
    except TROUBLE as error:
        if connection.status < 300:  # else it said no, whatever is the matter with its page
            name = f"The proxy {proxy.origin.authority}"
            raise failure(error, name, seconds) from error
    if not 200 <= connection.status < 300:
        raise not_let_through(where, connection.status)


def proxy_of_environment(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name for a URL, as other programs read them."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not proxy or proxy_bypass(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
