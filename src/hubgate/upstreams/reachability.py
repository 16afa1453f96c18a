"""Reaching a server step by step, for a diagnosis: DNS, TCP, TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.dial import Origin, Resolve, connect, parse_url, resolve_by_system, resolve_origin

SECONDS = 10.0
"""Timeout of each step."""


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
    addresses = await resolve_origin(origin, rule, resolve, where, SECONDS)
    yield Step.DNS
    (await connect(origin, addresses, where, SECONDS, tls=False)).abort()
    yield Step.TCP
    if origin.is_tls:
        (await connect(origin, addresses, where, SECONDS, tls=True)).abort()
        yield Step.TLS
