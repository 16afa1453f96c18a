"""From a URL to what may be connected to: addresses and names are checked here, and the CA bundle is read."""

from __future__ import annotations

import functools
import ssl
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.upstreams.failures import invalid_url
from hubgate.upstreams.urls import host_of

if TYPE_CHECKING:
    from socket import AddressFamily

    from hubgate.upstreams.addresses import AddressRule


class CheckedResolver(AbstractResolver):
    """Resolves names, and refuses a name of which any address may not be asked."""

    def __init__(self, rule: AddressRule, names: AbstractResolver) -> None:
        self._rule = rule
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AF_INET) -> list[ResolveResult]:
        """The addresses that will be connected to, each checked."""
        results = await self._names.resolve(host, port, family)
        for result in results:
            self._rule.check(ip_address(result["host"]), host)
        return results

    async def close(self) -> None:
        """Free the resolver."""
        await self._names.close()


@functools.lru_cache(maxsize=1024)
def target(url: str, rule: AddressRule) -> tuple[URL, str]:
    """The URL as aiohttp will use it, and how messages name its server.

    aiohttp asks its resolver for names alone: an address is checked here, once, since it cannot change.

    Raises:
        InvalidEndpoint: the address may not be asked, or the URL is none.
    """
    try:
        parsed = URL(url)
        where = host_of(url)
    except ValueError as error:
        raise invalid_url() from error
    rule.check_host(parsed.raw_host or "")
    return parsed, where


def trusting(ca_bundle: str) -> ssl.SSLContext:
    """What checks a server's certificate against a file; the file is read again when it has changed.

    Raises:
        InvalidEndpoint: the file cannot be read, or holds no certificates.
    """
    try:
        return _context(ca_bundle, Path(ca_bundle).stat().st_mtime_ns)
    except (OSError, ValueError) as error:  # ssl's own error is an OSError
        raise InvalidEndpoint(
            "The file of certificates in [ca_bundle] cannot be read, or holds none in PEM form.",
            remedy="Give the path of a PEM file that the gate's process may read.",
            cause=Cause.INVALID_ENDPOINT,
        ) from error


@functools.lru_cache(maxsize=64)
def _context(ca_bundle: str, changed_at: int) -> ssl.SSLContext:  # noqa: ARG001 - a new file is a new context
    return ssl.create_default_context(cafile=ca_bundle)
