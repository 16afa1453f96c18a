"""Slots of shared rate limits from a Valkey or Redis server: `hubgate.domain.cluster_ports.Permits`."""

from __future__ import annotations

from hubgate.domain.cluster_ports import BeatAnswer, SlotAnswer, SlotQuestion
from hubgate.store.cluster.slot_values import beat_answer, microseconds, slot_answer
from hubgate.store.valkey.connection import (
    GATEWAYS_HEARD,
    KEY_PREFIX,
    RUN_ID,
    SERVER,
    Script,
    ValkeyConnection,
)

_TAKE = Script.read("take.lua")
_BEAT = Script.read("beat.lua")


class ValkeyPermits:
    """Its keys have no expiry: a server that evicts keys must keep those without one."""

    def __init__(self, connection: ValkeyConnection) -> None:
        self._connection = connection

    async def take(self, question: SlotQuestion) -> SlotAnswer:
        reply = await self._connection.run(
            _TAKE,
            [KEY_PREFIX + b"limit:" + question.key.encode(), GATEWAYS_HEARD, SERVER],
            question.wanted,
            question.per_window,
            question.burst,
            microseconds(question.window),
            RUN_ID,
            question.known_gateways,
            int(question.unsure),
            int(question.was_alone),
            microseconds(question.pause),
            microseconds(question.slow_seconds),
            microseconds(question.slow_step),
            question.version,
        )
        return slot_answer(map(int, reply))

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        reply = await self._connection.run(
            _BEAT, [GATEWAYS_HEARD, SERVER], gateway, microseconds(sent_at or 0.0), RUN_ID
        )
        return beat_answer(reply)

    async def leave(self, gateway: str) -> None:
        await self._connection.command("ZREM", GATEWAYS_HEARD, gateway)
