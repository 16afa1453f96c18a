"""Which addresses hubgate may connect to.

hubgate connects to URLs that admins enter, from inside its operator's network. So some addresses are never allowed: the
metadata services of clouds, which hand out credentials, and link-local, multicast, unspecified and reserved addresses.
Model servers often run at loopback and private addresses, so these are allowed unless the operator forbids them. The
rule checks the resolved address that `dial.py` connects to, so host names, changed DNS records and unusual notations
cannot bypass it.
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
            "169.254.170.2",  # AWS ECS
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure, WireServer
            "192.0.0.192",  # Oracle, older
            "fd00:ec2::254",  # AWS
            "fd20:ce::254",  # Google
        ),
    )
)
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
"""On Linux, reaches the machine itself."""
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")
"""Deprecated; `ipaddress` does not count it as reserved."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_NAT64_BYTES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
"""Positions of the IPv4 address's bytes after a prefix of 48, 56, 64 and 96 bits (RFC 6052, 2.2)."""
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


@dataclass(frozen=True, slots=True)
class AddressRule:
    allow_private: bool = True

    def check_host(self, host: str) -> None:
        """Reject a host that is a forbidden address, in any notation. A host name passes: `check` gets its addresses.

        Raises:
            InvalidEndpoint: with cause `address_refused`.
        """
        address = parse_address(host)
        if address is not None:
            self.check(address, host)

    def check(self, address: Address, host: str) -> None:
        """Reject a forbidden address; `host` is what the operator wrote.

        Raises:
            InvalidEndpoint: with cause `address_refused`.
        """
        for checked in _embedded_ipv4(address) or (address,):
            kind = _forbidden_kind(checked)
            if kind:
                raise _refused(
                    host,
                    address,
                    f"{kind}, to which hubgate never connects",
                    "Use the address of a model server.",
                )
            if not self.allow_private and not checked.is_global:
                raise _refused(
                    host,
                    address,
                    "a loopback or private address, and only public ones are allowed",
                    "hubgate's operator can allow them: HUBGATE_ALLOW_PRIVATE_ADDRESSES=true.",
                )


def parse_address(host: str) -> Address | None:
    """Parse an IP address in any notation (dotted, decimal, octal, hexadecimal, shortened, IPv6); `None` for a host name."""
    bare = host.strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare))
    except (OSError, ValueError):
        return None


def _forbidden_kind(address: Address) -> str | None:
    if address in _METADATA:
        return "a cloud's metadata service"
    if address.is_loopback:
        return None
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or address in _THIS_NETWORK:
        return "an unspecified address"
    if address in _SITE_LOCAL:
        return "a site-local address"
    if address.is_reserved:
        return "a reserved address"
    return None


def _embedded_ipv4(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses inside an IPv6 address, to which NAT64 or a tunnel would forward the connection."""
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
        return _embedded_by_nat64(address)
    if address in _IPV4_COMPATIBLE and int(address) > 1:
        return (ipaddress.IPv4Address(int(address)),)
    return ()


def _embedded_by_nat64(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Every IPv4 address that it may contain: only the network knows the length of the prefix (RFC 8215)."""
    candidates = [
        ipaddress.IPv4Address(bytes(address.packed[index] for index in indexes)) for indexes in _NAT64_BYTES
    ]
    # A candidate in 0.0.0.0/8 consists of the zeros around the IPv4 address.
    return tuple(one for one in candidates if one not in _THIS_NETWORK) or (candidates[-1],)


def _refused(host: str, address: Address, kind: str, remedy: str) -> InvalidEndpoint:
    parsed = "" if host == str(address) else f" is {address},"
    return InvalidEndpoint(f"[{host}]{parsed or ' is'} {kind}.", remedy=remedy, cause=Cause.ADDRESS_REFUSED)
