"""How many connections the clients of each address have."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network


class Addresses:
    """Counts connections by address.

    Args:
        most_pending: how many connections of an address may owe hubgate something; see `HUBGATE_MAX_PENDING_PER_ADDRESS`.
        trusted: the proxies for whose clients this does not hold, as `HUBGATE_TRUSTED_PROXIES` has them.
    """

    def __init__(self, most_pending: int, trusted: str = "") -> None:
        self.most_pending = most_pending
        self._counts: Counter[str] = Counter()
        self._bounded: set[str] = set()
        """Addresses whose connections are looked at in a moment."""
        self._trusts_all = trusted == "*"
        named = trusted.split(",") if trusted and not self._trusts_all else ()
        self._trusted = [ip_network(one.strip()) for one in named]

    def add(self, address: str) -> bool:
        """Count a connection. Returns whether `exceeds` has to be called for the address in a moment."""
        self._counts[address] += 1
        if (
            self._counts[address] <= self.most_pending
            or address in self._bounded
            or self._is_trusted(address)
        ):
            return False
        self._bounded.add(address)
        return True

    def exceeds(self, address: str) -> bool:
        """Whether the address still has more than `most_pending`; then call it again in a moment."""
        if self._counts[address] > self.most_pending:
            return True
        self._bounded.discard(address)
        return False

    def remove(self, address: str) -> None:
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

    def _is_trusted(self, address: str) -> bool:
        if self._trusts_all or not address:
            return True
        host = ip_address(address.partition("%")[0])
        return any(host in network for network in self._trusted)
