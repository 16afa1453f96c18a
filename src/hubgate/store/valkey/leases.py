"""Leases of limits on a Valkey or Redis server: `hubgate.domain.cluster_ports.LeaseServer`."""

from __future__ import annotations

from hubgate.domain.cluster_ports import LeaseQuestion
from hubgate.store.valkey.connection import (
    GATEWAYS_HEARD,
    KEY_PREFIX,
    RUN_ID,
    SERVER,
    Script,
    ValkeyConnection,
)

_LEASE = Script.read("lease.lua")


class ValkeyLeases:
    def __init__(self, connection: ValkeyConnection) -> None:
        self._connection = connection

    async def lease(self, asked: LeaseQuestion) -> int:
        (granted,) = await self._connection.run(
            _LEASE,
            [KEY_PREFIX + b"lease:" + asked.key.encode(), GATEWAYS_HEARD, SERVER],
            asked.gateway,
            asked.limit,
            asked.holds,
            int(asked.wants),
            asked.known_gateways,
            int(asked.was_away),
            asked.number,
            RUN_ID,
            asked.version,
        )
        return int(granted)
