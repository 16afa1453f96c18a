"""HTTP proxies: their credentials, tunnels through them, and the proxies that the environment names."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hubgate.domain.errors import InvalidEndpoint
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import MAX_HEADER_BYTES, Connection
from hubgate.upstreams.http.dial import Origin, parse_url, tls_context
from hubgate.upstreams.http.failures import (
    EXCHANGE_ERRORS,
    exchange_error,
    report_connect_errors,
    tunnel_refused,
)
from hubgate.upstreams.http.messages import basic_credentials


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. The credentials in its URL are not in its `repr`."""

    origin: Origin
    authorization: str = field(repr=False)
    """The Proxy-Authorization header with its line end; empty without credentials."""

    @classmethod
    def of(cls, url: str, rule: AddressRule, ca_bundle: str | None) -> Proxy:
        """The proxy at a URL.

        Raises:
            InvalidEndpoint: its address is not allowed, or it is not an HTTP proxy.
        """
        parsed, _ = parse_url(url, rule)
        if parsed.scheme not in {"http", "https"}:
            raise InvalidEndpoint(
                "The proxy is not an HTTP proxy.",
                remedy="Use a URL such as http://proxy.example.com:3128.",
            )
        credentials = basic_credentials(parsed)
        return cls(
            Origin.of(parsed, ca_bundle),
            f"Proxy-Authorization: {credentials}\r\n" if credentials else "",
        )

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"the proxy {self.origin.authority}"


class ConnectionKey(NamedTuple):
    """Requests with the same key can share a connection."""

    where: str
    """The name of the server in messages."""
    origin: Origin
    proxy: Proxy | None

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def of(cls, url: str, proxy: str | None, ca_bundle: str | None, rule: AddressRule) -> ConnectionKey:
        """The key for a URL, with the URL of a proxy if there is one.

        Raises:
            InvalidEndpoint: a URL is invalid, or its address is not allowed.
        """
        parsed, where = parse_url(url, rule)
        return cls(where, Origin.of(parsed, ca_bundle), Proxy.of(proxy, rule, ca_bundle) if proxy else None)

    @property
    def plain_proxy(self) -> Proxy | None:
        """The proxy that reads the requests. Through a tunnel, it does not."""
        return None if self.origin.is_tls else self.proxy


async def open_tunnel(
    connection: Connection, proxy: Proxy, origin: Origin, where: str, seconds: float
) -> None:
    """Open a tunnel through a proxy, and TLS to the server behind it.

    Args:
        connection: a new one to the proxy; aborted if this fails.
        proxy: the proxy.
        origin: the server behind it.
        where: the name of the server in messages.
        seconds: timeout of each of the two steps.

    Raises:
        UpstreamError: the proxy or the server fails.
    """
    try:
        await _send_connect(connection, proxy, origin, where, seconds)
        context = await tls_context(origin.ca_bundle)
        async with report_connect_errors(where, seconds):
            transport = await asyncio.get_running_loop().start_tls(
                connection.transport, connection, context, server_hostname=origin.host
            )
            if transport is None:  # lost at once
                raise ConnectionResetError  # noqa: TRY301 - reported by the context
            connection.connection_made(transport)
    except BaseException:
        connection.abort()
        raise


async def _send_connect(
    connection: Connection, proxy: Proxy, origin: Origin, where: str, seconds: float
) -> None:
    line = f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n{proxy.authorization}\r\n"
    try:
        connection.send(line.encode("ascii"), b"", MAX_HEADER_BYTES, streams=True)
        await connection.wait_for_head(asyncio.get_running_loop().time() + seconds)
    except EXCHANGE_ERRORS as error:
        if connection.status < 300:  # otherwise the status says more than a broken body
            name = f"The proxy {proxy.origin.authority}"
            raise exchange_error(error, name, seconds) from error
    if not 200 <= connection.status < 300:
        raise tunnel_refused(where, connection.status)


def environment_proxy(url: str) -> str | None:
    """The proxy for a URL by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, as other programs read them."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not proxy or proxy_bypass(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
