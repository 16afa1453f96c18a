"""From a URL to a connection: the host's addresses, each checked, then a socket and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from yarl import URL

from hubgate.domain.diagnosis import Step
from hubgate.domain.errors import Cause, InvalidEndpoint, UpstreamUnreachable
from hubgate.upstreams.http.addresses import AddressRule, parse_address
from hubgate.upstreams.http.connection import Connection
from hubgate.upstreams.http.failures import invalid_url, report_connect_errors, unknown_name
from hubgate.upstreams.named_files import in_own_thread, read_regular
from hubgate.upstreams.urls import host_of

_REACH_SECONDS = 10.0
"""Timeout of each step of a diagnosis."""


class Origin(NamedTuple):
    """The server or proxy that a connection leads to."""

    host: str
    port: int
    is_tls: bool
    ca_bundle: str | None

    @classmethod
    def of(cls, url: URL, ca_bundle: str | None) -> Origin:
        is_tls = url.scheme == "https"
        return cls(url.raw_host or "", url.port or (443 if is_tls else 80), is_tls, ca_bundle)

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Resolve(Protocol):
    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name, in the order in which to try them.

        Raises:
            OSError: the name cannot be resolved.
        """
        ...


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Resolve a name as the machine does; see `Resolve`.

    IPv4 comes first: many machines have an IPv6 address but no IPv6 route, and each attempt may take its full timeout.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys(str(address[0]) for *_, address in ordered))


@functools.lru_cache(maxsize=1024)
def parse_url(url: str, rule: AddressRule) -> tuple[URL, str]:
    """The parsed URL, and the name of its server for messages.

    A host that is an address is checked here, once, since it cannot change. A name is checked when it is resolved.

    Raises:
        InvalidEndpoint: the URL is invalid, or its address is not allowed.
    """
    try:
        parsed = URL(url)
        where = host_of(url)
    except ValueError as error:
        raise invalid_url() from error
    rule.check_host(parsed.raw_host or "")
    return parsed, where


async def resolve_origin(
    origin: Origin, rule: AddressRule, resolve: Resolve, where: str, seconds: float
) -> Sequence[str]:
    """The addresses of an origin's host, all of them allowed. Connect only to one of these.

    Args:
        origin: its host is a name or an address.
        rule: which addresses are allowed.
        resolve: resolves a name.
        where: the name of the server in messages.
        seconds: timeout.

    Raises:
        HubgateError: the host has no address, or one that is not allowed.
    """
    if not origin.host:
        raise invalid_url()
    if address := parse_address(origin.host):
        rule.check(address, origin.host)
        return [str(address)]
    try:
        async with report_connect_errors(where, seconds):
            found = await _resolve(origin, resolve, where)
    except UnicodeError as error:  # a label of the name is empty or too long
        raise invalid_url() from error
    for one in found:
        rule.check(ip_address(one), origin.host)
    return found


async def _resolve(origin: Origin, resolve: Resolve, where: str) -> Sequence[str]:
    try:
        found = await resolve(origin.host, origin.port)
    except OSError as error:
        raise unknown_name(origin.host, where, error) from error
    if not found:
        raise unknown_name(origin.host, where)
    return found


async def connect(
    origin: Origin, addresses: Sequence[str], where: str, seconds: float, *, tls: bool
) -> Connection:
    """Connect to the first of an origin's addresses that accepts, with a timeout for each.

    Raises:
        HubgateError: the last address cannot be connected to either.
    """
    *others, last = addresses
    for address in others:
        with contextlib.suppress(UpstreamUnreachable):
            return await _connect(origin, address, where, seconds, tls=tls)
    return await _connect(origin, last, where, seconds, tls=tls)


async def _connect(origin: Origin, address: str, where: str, seconds: float, *, tls: bool) -> Connection:
    context = await tls_context(origin.ca_bundle) if tls else None
    connection = Connection()
    try:
        async with report_connect_errors(where, seconds):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address,
                origin.port,
                ssl=context,
                server_hostname=origin.host if tls else None,
            )
    except BaseException:
        connection.discard()
        raise
    return connection


async def reach(
    url: str, rule: AddressRule, *, ca_bundle: str | None = None, resolve: Resolve = resolve_by_system
) -> AsyncIterator[Step]:
    """Connect to a server without sending a request. Yields each step when it has succeeded.

    Args:
        url: of the server, or of the proxy in front of it.
        rule: which addresses are allowed.
        ca_bundle: a file of certificates, instead of the system's.
        resolve: resolves host names.

    Raises:
        HubgateError: the next step fails.
    """
    parsed, where = parse_url(url, rule)
    origin = Origin.of(parsed, ca_bundle)
    yield Step.ADDRESS
    addresses = await resolve_origin(origin, rule, resolve, where, _REACH_SECONDS)
    yield Step.DNS
    (await connect(origin, addresses, where, _REACH_SECONDS, tls=False)).abort()
    yield Step.TCP
    if origin.is_tls:
        (await connect(origin, addresses, where, _REACH_SECONDS, tls=True)).abort()
        yield Step.TLS


async def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Verifies a server's certificate: with the system's authorities, or with those of a file, which is read each time.

    Raises:
        InvalidEndpoint: the file cannot be read, or contains no certificates.
    """
    if not ca_bundle:
        return _context(None)
    try:
        return await in_own_thread(functools.partial(_read_context, ca_bundle))
    except (OSError, ValueError) as error:  # ssl's own error is an OSError, and so is TimeoutError
        raise InvalidEndpoint(
            "The file in [ca_bundle] cannot be read, or contains no certificates in PEM format.",
            remedy="Use the path of a regular PEM file that hubgate's process may read, on a disk that responds.",
            cause=Cause.INVALID_ENDPOINT,
        ) from error


def _read_context(ca_bundle: str) -> ssl.SSLContext:
    # Text between the certificates may be in any language, and OpenSSL accepts only ASCII.
    certificates = read_regular(ca_bundle).decode("ascii", "ignore")
    if "-----BEGIN" not in certificates:  # for an empty string, ssl would use the system's
        raise ValueError("no certificates")
    return _context(certificates)


@functools.lru_cache(maxsize=64)
def _context(certificates: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificates)
