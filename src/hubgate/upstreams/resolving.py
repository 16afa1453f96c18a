"""Where a URL leads: the rule on its host, the addresses of a name, and how a CA bundle is read."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from yarl import URL

from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.upstreams.failures import invalid_url
from hubgate.upstreams.urls import host_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.upstreams.addresses import AddressRule


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


def trusting(ca_bundle: str | None) -> ssl.SSLContext:
    """What checks a server's certificate: against the system's, or a file, which is read again when it has changed.

    Raises:
        InvalidEndpoint: the file cannot be read, or holds no certificates.
    """
    if not ca_bundle:
        return _context(None, 0)
    try:
        return _context(ca_bundle, Path(ca_bundle).stat().st_mtime_ns)
    except (OSError, ValueError) as error:  # ssl's own error is an OSError
        raise InvalidEndpoint(
            "The file of certificates in [ca_bundle] cannot be read, or holds none in PEM form.",
            remedy="Give the path of a PEM file that the gate's process may read.",
            cause=Cause.INVALID_ENDPOINT,
        ) from error


@functools.lru_cache(maxsize=64)
def _context(ca_bundle: str | None, changed_at: int) -> ssl.SSLContext:  # noqa: ARG001 - a new file is a new context
    return ssl.create_default_context(cafile=ca_bundle)
