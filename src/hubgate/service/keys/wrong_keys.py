"""Bounds wrong keys. Keys are checked first and only wrong ones are counted, so nobody can lock out a right key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address, ip_network

MOST_A_MINUTE = 20
"""Wrong keys from one address, and for one key id."""
_MINUTE = 60.0
_MOST_KEPT = 10_000
_IPV6_PREFIX = 64
"""Bits; whoever has one IPv6 address has a whole network of them."""

_log = logging.getLogger(__name__)


class WrongKeys:
    """Counts wrong keys of the current minute, by the client's address and by the key id that was tried.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minutes: dict[str, tuple[float, int]] = {}
        """When each minute began and how many wrong keys came in it. The oldest minute is first."""

    def count(self, address: str, key_id: str) -> float:
        """Count a wrong key; 0 if it is within bounds, else the seconds until its minute is over.

        Args:
            address: the client's.
            key_id: of the key that was tried; empty if it has none.
        """
        wait = self._count(f"from {_network(address)}")
        return max(wait, self._count(f"for key id {key_id}")) if key_id else wait

    def _count(self, whose: str) -> float:
        now = self._clock()
        began, count = self._minutes.get(whose, (now, 0))
        if not 0 <= now - began < _MINUTE:
            began, count = now, 0
        if not count:
            self._minutes.pop(whose, None)
            if len(self._minutes) >= _MOST_KEPT:
                del self._minutes[next(iter(self._minutes))]
        count += 1
        self._minutes[whose] = began, count
        if count <= MOST_A_MINUTE:
            return 0.0
        if count == MOST_A_MINUTE + 1:
            _log.warning("more than %d wrong keys in a minute %s", MOST_A_MINUTE, whose)
        return began + _MINUTE - now


def _network(address: str) -> str:
    """An IPv4 address as it is, of an IPv6 address the network."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return address
    return str(ip.ipv4_mapped or ip_network((ip.packed, _IPV6_PREFIX), strict=False))
