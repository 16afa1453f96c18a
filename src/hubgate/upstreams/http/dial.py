"""From a host to a connection: its addresses, each checked, then a socket and its TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

from yarl import URL

from hubgate.domain.errors import UpstreamUnreachable
from hubgate.upstreams.http.addresses import AddressRule, literal
from hubgate.upstreams.http.connection import Connection
from hubgate.upstreams.http.failures import connecting_to, invalid_url, unknown_name
from hubgate.upstreams.http.resolve import Resolve, trusting


class Origin(NamedTuple):
    """What a connection leads to."""

    host: str
    port: int
    is_tls: bool
    ca_bundle: str | None

    @classmethod
    def of(cls, url: URL, ca_bundle: str | None) -> Origin:
        """Of a URL that was checked."""
        is_tls = url.scheme == "https"
        return cls(url.raw_host or "", url.port or (443 if is_tls else 80), is_tls, ca_bundle)

    @property
    def authority(self) -> str:
        """Host and port, as a URL spells them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def addresses_of(
    origin: Origin, rule: AddressRule, resolve: Resolve, where: str, seconds: float
) -> Sequence[str]:
    """The addresses of an origin's host, each of which may be asked. What is connected to must be one of these.

    Args:
        origin: whose host is a name, or an address.
        rule: says which addresses may be asked.
        resolve: finds those of a name.
        where: how messages name the server.
        seconds: that it may take.

    Raises:
        HubgateError: there are none, or one of them may not be asked.
    """
    if not origin.host:
        raise invalid_url()
    if address := literal(origin.host):
        rule.check(address, origin.host)
        return [str(address)]
    try:
        async with connecting_to(where, seconds):
            found = await _resolved(origin, resolve, where)
    except UnicodeError as error:  # a label of the name is empty or too long
        raise invalid_url() from error
    for one in found:
        rule.check(ip_address(one), origin.host)
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
    context = await trusting(origin.ca_bundle) if tls else None
    connection = Connection()
    try:
        async with connecting_to(where, seconds):
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


async def _resolved(origin: Origin, resolve: Resolve, where: str) -> Sequence[str]:
    try:
        found = await resolve(origin.host, origin.port)
    except OSError as error:
        raise unknown_name(origin.host, where, error) from error
    if not found:
        raise unknown_name(origin.host, where)
    return found
