"""Slots of shared rate limits from a Valkey or Redis server: `hubgate.domain.cluster_ports.Permits`."""

from __future__ import annotations

from importlib.resources import files

from hubgate.domain.cluster_ports import BeatAnswer, SlotAnswer, SlotQuestion
from hubgate.store.cluster.slot_values import beat_answer, microseconds, slot_answer
from hubgate.store.valkey.connection import KEY_PREFIX, RUN_ID, Script, ValkeyConnection

_HEARD = KEY_PREFIX + b"gateways heard"
_SERVER = KEY_PREFIX + b"server"


def _script(name: str) -> Script:
    return Script(files(__package__).joinpath(name).read_text(encoding="utf-8"))


_TAKE = _script("take.lua")
_BEAT = _script("beat.lua")


class ValkeyPermits:
    """Its keys have no expiry: a server that evicts keys must keep those without one."""

    def __init__(self, connection: ValkeyConnection) -> None:
        self._connection = connection

    async def take(self, question: SlotQuestion) -> SlotAnswer:
        reply = await self._connection.run(
            _TAKE,
            [KEY_PREFIX + b"limit:" + question.key.encode(), _HEARD, _SERVER],
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
        )
        return slot_answer(map(int, reply))

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        reply = await self._connection.run(
            _BEAT, [_HEARD, _SERVER], gateway, microseconds(sent_at or 0.0), RUN_ID
        )
        return beat_answer(reply)

    async def leave(self, gateway: str) -> None:
        await self._connection.command("ZREM", _HEARD, gateway)
