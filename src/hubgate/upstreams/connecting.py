"""From a host to a connection: its addresses, each checked, then a socket and its TLS."""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import aiohttp
from aiohttp.client_reqrep import ConnectionKey

from hubgate.upstreams.addresses import literal
from hubgate.upstreams.failures import failure, invalid_url
from hubgate.upstreams.resolving import trusting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.abc import AbstractResolver
    from yarl import URL

P = TypeVar("P", bound=asyncio.BaseProtocol)


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
    def key(self) -> ConnectionKey:
        """As aiohttp's errors want it."""
        return ConnectionKey(self.host, self.port, self.is_tls, True, None, None, None, None)

    @property
    def trusted(self) -> ssl.SSLContext:
        """What its certificate is checked against."""
        return trusting(self.ca_bundle) if self.ca_bundle else _default_context()


async def addresses_of(origin: Origin, names: AbstractResolver, where: str, seconds: float) -> Sequence[str]:
    """The addresses of an origin's host.

    Args:
        origin: whose host is a name, or an address that was checked.
        names: resolves, and checks what it finds.
        where: how messages name the server.
        seconds: that it may take.

    Raises:
        HubgateError: there are none, or one of them may not be asked.
    """
    if not origin.host:
        raise invalid_url()
    if literal(origin.host) is not None:
        return [origin.host]
    try:
        async with asyncio.timeout(seconds):
            return [found["host"] for found in await names.resolve(origin.host, origin.port)]
    except TimeoutError as error:
        raise failure(aiohttp.ConnectionTimeoutError(), where, seconds) from error
    except UnicodeError as error:  # a label of the name is empty or too long
        raise invalid_url() from error
    except OSError as error:
        raise failure(aiohttp.ClientConnectorDNSError(origin.key, error), where, seconds) from error


async def connected(
    origin: Origin, address: str, make: Callable[[], P], where: str, seconds: float, *, tls: bool
) -> P:
    """A connection to one of an origin's addresses.

    Raises:
        HubgateError: it does not come about.
    """
    loop, key = asyncio.get_running_loop(), origin.key
    context = origin.trusted if tls else None
    try:
        async with asyncio.timeout(seconds):
            _, protocol = await loop.create_connection(
                make, address, origin.port, ssl=context, server_hostname=origin.host if tls else None
            )
            return protocol
    except TimeoutError as error:
        raise failure(aiohttp.ConnectionTimeoutError(), where, seconds) from error
    except ssl.SSLCertVerificationError as error:
        raise failure(aiohttp.ClientConnectorCertificateError(key, error), where, seconds) from error
    except ssl.SSLError as error:
        raise failure(aiohttp.ClientConnectorSSLError(key, error), where, seconds) from error
    except OSError as error:
        raise failure(aiohttp.ClientConnectorError(key, error), where, seconds) from error


@functools.cache
def _default_context() -> ssl.SSLContext:
    return ssl.create_default_context()
