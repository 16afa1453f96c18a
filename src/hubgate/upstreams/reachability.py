"""The way to a server, step by step, for a diagnosis: its name, a connection, its certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.dial import Origin, addresses_of, connect
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
    (await connect(origin, addresses, where, SECONDS, tls=False)).abort()
    yield Step.TCP
    if origin.is_tls:
        (await connect(origin, addresses, where, SECONDS, tls=True)).abort()
        yield Step.TLS
