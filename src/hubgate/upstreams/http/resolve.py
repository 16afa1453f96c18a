"""Where a URL leads: the rule on its host, the addresses of a name, and how a CA bundle is read."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from yarl import URL

from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.failures import invalid_url
from hubgate.upstreams.named_files import in_own_thread, read_regular
from hubgate.upstreams.urls import host_of


class Resolve(Protocol):
    """Finds the addresses of a name."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """They, in the order in which to try them.

        Raises:
            OSError: it has none.
        """
        ...


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """What the machine's own name service tells; see `Resolve`.

    IPv4 comes first: many a machine has an IPv6 address and no way from there, and each try may take its seconds.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys(str(address[0]) for *_, address in ordered))


@functools.lru_cache(maxsize=1024)
def target(url: str, rule: AddressRule) -> tuple[URL, str]:
    """The URL as it will be asked, and how messages name its server.

    A name is checked when it is resolved. An address is checked here, once, since it cannot change.

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


async def trusting(ca_bundle: str | None) -> ssl.SSLContext:
    """What checks a server's certificate: against the system's, or those of a file, which is read each time.

    Raises:
        InvalidEndpoint: the file cannot be read, or holds no certificates.
    """
    if not ca_bundle:
        return _context(None)
    try:
        return await in_own_thread(partial(_context_of, ca_bundle))
    except (OSError, ValueError) as error:  # ssl's own error is an OSError, and so is TimeoutError
        raise InvalidEndpoint(
            "The file of certificates in [ca_bundle] cannot be read, or holds none in PEM form.",
            remedy="Give the path of a regular PEM file that the gateway's process may read, on a disk that answers.",
            cause=Cause.INVALID_ENDPOINT,
        ) from error


def _context_of(ca_bundle: str) -> ssl.SSLContext:
    # What stands between the certificates may be in any language, and OpenSSL wants ASCII.
    certificates = read_regular(ca_bundle).decode("ascii", "ignore")
    if "-----BEGIN" not in certificates:  # for an empty text, ssl would take the system's
        raise ValueError("no certificates")
    return _context(certificates)


@functools.lru_cache(maxsize=64)
def _context(certificates: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificates)
