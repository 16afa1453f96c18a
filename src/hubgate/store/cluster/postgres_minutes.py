"""The last minute of gateway keys on a PostgreSQL server: `hubgate.domain.cluster_ports.KeyMinutes`."""

from __future__ import annotations

from hubgate.domain.records import Exhausted, Key
from hubgate.store.cluster.postgres_link import PostgresLink, integers
from hubgate.store.cluster.slot_values import exhausted

_MINUTE = "SELECT hubgate_minute($1, $2, $3, $4)"
_FORGET = "DELETE FROM rate_limit_keys WHERE key = $1"


class PostgresKeyMinutes:
    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def admit(self, key: Key) -> Exhausted | None:
        limits = key.requests_per_minute or 0, key.tokens_per_minute or 0
        ((values,),) = await self._link.ask(_MINUTE, key.id, *limits, 0)
        return exhausted(integers(values))

    async def spend(self, key_id: str, tokens: int) -> None:
        await self._link.ask(_MINUTE, key_id, 0, 0, tokens)

    async def forget(self, key_id: str) -> None:
        await self._link.ask(_FORGET, key_id)
