"""The way to a server, step by step, for a diagnosis: its name, a connection, its certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.dial import Origin, addresses_of, connected
from hubgate.upstreams.http.resolve import Resolve, system_addresses, target

SECONDS = 10.0
"""For each step."""


async def reach(
    url: str, rule: AddressRule, *, ca_bundle: str | None = None, resolve: Resolve = system_addresses
) -> AsyncIterator[Step]:
    """Go the way to a server without asking anything there: each step once it is done.

    Args:
        url: of the server, or of the proxy before it.
        rule: which addresses may be asked.
        ca_bundle: a file of certificates, instead of the system's.
        resolve: finds the addresses of a name.

    Raises:
        HubgateError: the next step fails.
    """
    parsed, where = target(url, rule)
    origin = Origin.of(parsed, ca_bundle)
    yield Step.ADDRESS
    addresses = await addresses_of(origin, rule, resolve, where, SECONDS)
    yield Step.DNS
    await _touch(origin, addresses, where, tls=False)
    yield Step.TCP
    if origin.is_tls:
        await _touch(origin, addresses, where, tls=True)
        yield Step.TLS


async def _touch(origin: Origin, addresses: Sequence[str], where: str, *, tls: bool) -> None:
    (await connected(origin, addresses, _Touch, where, SECONDS, tls=tls)).transport.abort()


class _Touch(asyncio.Protocol):
    """Connects, and no more."""

    transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast("asyncio.WriteTransport", transport)
