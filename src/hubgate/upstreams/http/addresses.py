"""Where the gate may connect to.

An operator gives URLs to a process that stands inside a network, so some addresses are never asked: those of the
machine's own cloud (metadata services hand out credentials), link-local, multicast, unspecified and reserved ones.
Loopback and private ranges are where engines live; they are allowed unless the operator says otherwise.
The rule is applied to the addresses that are connected to (see `dial`), so that neither a
name nor a second answer of the name server nor an odd spelling gets round it.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TypeAlias

from hubgate.domain.errors import Cause, InvalidEndpoint

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254",  # AWS, Azure, Google, DigitalOcean, Oracle
            "169.254.170.2",  # AWS containers
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's host
            "192.0.0.192",  # Oracle, older
            "fd00:ec2::254",  # AWS
            "fd20:ce::254",  # Google
        ),
    )
)
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_NEVER = (
    _THIS_NETWORK,  # reaches the machine itself on Linux
    ipaddress.ip_network("fec0::/10"),  # IPv6's first, withdrawn idea of a private range
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_WHERE_NAT64_PUTS_IT = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
"""The bytes of an address that hold the IPv4 one, behind a prefix of 48, 56, 64 and 96 bits (RFC 6052, 2.2)."""
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Which addresses may be connected to."""

    allow_private: bool = True

    def check_host(self, host: str) -> None:
        """Refuse a host that is an address, in any spelling, and may not be asked. A name passes: see `check`.

        Raises:
            InvalidEndpoint: with cause `address_refused`.
        """
        address = literal(host)
        if address is not None:
            self.check(address, host)

    def check(self, address: Address, host: str) -> None:
        """Refuse an address that may not be connected to; `host` is what the operator wrote.

        Raises:
            InvalidEndpoint: with cause `address_refused`.
        """
        for judged in _carried(address) or (address,):
            kind = _refused_kind(judged)
            if kind:
                raise _refused(
                    host, address, f"{kind}, which the gate never asks", "Register a model server's address."
                )
            if not self.allow_private and not judged.is_global:
                raise _refused(
                    host,
                    address,
                    "a loopback or private address, and this gate allows only public ones",
                    "The gate's operator can allow them: HUBGATE_ALLOW_PRIVATE_ADDRESSES=true.",
                )


def literal(host: str) -> Address | None:
    """The address that a host spells (dotted, decimal, octal, hexadecimal, shortened, IPv6), `None` for a name."""
    bare = host.strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare))
    except (OSError, ValueError):
        return None


def _refused_kind(address: Address) -> str | None:
    if address in _METADATA:
        return "a cloud's metadata service"
    if address.is_loopback:
        return None
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or any(address in network for network in _NEVER):
        return "an unspecified address"
    if address.is_reserved:
        return "a reserved address"
    return None


def _carried(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses inside an IPv6 one, to which a gateway on the way delivers: it is judged by those."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    if address in _LOCAL_NAT64:
        return _carried_locally(address)
    if address in _IPV4_COMPATIBLE and int(address) > 1:
        return (ipaddress.IPv4Address(int(address)),)
    return ()


def _carried_locally(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """All that such an address may be read as: which it is, only the network's gateway knows (RFC 8215)."""
    read = [
        ipaddress.IPv4Address(bytes(address.packed[place] for place in places))
        for places in _WHERE_NAT64_PUTS_IT
    ]
    # A reading of the bytes beside the IPv4 address, which are zero.
    return tuple(one for one in read if one not in _THIS_NETWORK) or (read[-1],)


def _refused(host: str, address: Address, kind: str, remedy: str) -> InvalidEndpoint:
    spelled = "" if host == str(address) else f" is {address},"
    return InvalidEndpoint(f"[{host}]{spelled or ' is'} {kind}.", remedy=remedy, cause=Cause.ADDRESS_REFUSED)
