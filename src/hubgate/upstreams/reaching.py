"""The way to a server, step by step, for a diagnosis: its name, a connection, its certificate."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_reqrep import ConnectionKey

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.failures import failure
from hubgate.upstreams.resolving import CheckedResolver, target, trusting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.upstreams.addresses import AddressRule

SECONDS = 10.0
"""For each step."""


async def reach(url: str, rule: AddressRule, *, ca_bundle: str | None = None) -> AsyncIterator[Step]:
    """Go the way to a server without asking anything there: each step once it is done.

    Args:
        url: of the server, or of the proxy before it.
        rule: which addresses may be asked.
        ca_bundle: a file of certificates, instead of the system's.

    Raises:
        HubgateError: the next step fails.
    """
    parsed, where = target(url, rule)
    trusted = trusting(ca_bundle) if ca_bundle else ssl.create_default_context()
    yield Step.ADDRESS
    host, port = parsed.raw_host or "", parsed.port or 443
    is_tls = parsed.scheme == "https"
    key = ConnectionKey(host, port, is_tls, True, None, None, None, None)
    resolver = CheckedResolver(rule, aiohttp.ThreadedResolver())
    try:
        async with asyncio.timeout(SECONDS):
            addresses = await resolver.resolve(host, port)
    except TimeoutError as error:
        raise failure(error, where, SECONDS) from error
    except OSError as error:
        raise failure(aiohttp.ClientConnectorDNSError(key, error), where, SECONDS) from error
    yield Step.DNS
    await _connect(addresses[0]["host"], port, key, where, None)
    yield Step.TCP
    if is_tls:
        await _connect(addresses[0]["host"], port, key, where, trusted)
        yield Step.TLS


async def _connect(
    address: str, port: int, key: ConnectionKey, where: str, tls: ssl.SSLContext | None
) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(
                address, port, ssl=tls, server_hostname=key.host if tls else None
            )
    except TimeoutError as error:
        raise failure(aiohttp.ConnectionTimeoutError(), where, SECONDS) from error
    except ssl.SSLCertVerificationError as error:
        raise failure(aiohttp.ClientConnectorCertificateError(key, error), where, SECONDS) from error
    except ssl.SSLError as error:
        raise failure(aiohttp.ClientConnectorSSLError(key, error), where, SECONDS) from error
    except OSError as error:
        raise failure(aiohttp.ClientConnectorError(key, error), where, SECONDS) from error
    writer.transport.abort()
