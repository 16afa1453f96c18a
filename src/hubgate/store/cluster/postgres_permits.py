"""Slots of shared rate limits from a PostgreSQL server: `hubgate.domain.cluster_ports.Permits`."""

from __future__ import annotations

from hubgate.domain.cluster_ports import BeatAnswer, SlotAnswer, SlotQuestion
from hubgate.store.cluster.postgres_link import PostgresLink, integers
from hubgate.store.cluster.slot_values import beat_answer, microseconds, slot_answer

_TAKE = "SELECT hubgate_take($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
_BEAT = "SELECT hubgate_beat($1, $2)"
_LEAVE = "DELETE FROM rate_limit_gateways WHERE name = $1"


class PostgresPermits:
    """Functions of the database, and tables that need not survive a crash."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def take(self, question: SlotQuestion) -> SlotAnswer:
        ((values,),) = await self._link.ask(
            _TAKE,
            question.key,
            question.wanted,
            question.per_window,
            question.burst,
            microseconds(question.window),
            question.known_gateways,
            question.unsure,
            question.was_alone,
            microseconds(question.pause),
            microseconds(question.slow_seconds),
            microseconds(question.slow_step),
            question.version,
        )
        return slot_answer(integers(values))

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        ((values,),) = await self._link.ask(_BEAT, gateway, microseconds(sent_at or 0.0))
        return beat_answer(integers(values))

    async def leave(self, gateway: str) -> None:
        await self._link.ask(_LEAVE, gateway)
