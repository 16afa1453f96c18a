"""Leases of limits on a PostgreSQL server: `hubgate.domain.cluster_ports.LeaseServer`."""

from __future__ import annotations

from hubgate.domain.cluster_ports import LeaseQuestion
from hubgate.store.cluster.postgres_link import PostgresLink

_LEASE = "SELECT hubgate_lease($1, $2, $3, $4, $5, $6, $7, $8, $9)"


class PostgresLeases:
    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def lease(self, asked: LeaseQuestion) -> int:
        ((granted,),) = await self._link.ask(
            _LEASE,
            asked.key,
            asked.gateway,
            asked.limit,
            asked.holds,
            asked.wants,
            asked.known_gateways,
            asked.was_away,
            asked.number,
            asked.version,
        )
        return int(granted)
