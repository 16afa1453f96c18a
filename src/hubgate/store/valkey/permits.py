"""Slots of shared rate limits from a Valkey or Redis server: `hubgate.domain.cluster_ports.Permits`."""

from __future__ import annotations

from importlib.resources import files

from hubgate.domain.cluster_ports import BeatAnswer, SlotAnswer, SlotQuestion
from hubgate.store.valkey.connection import KEY_PREFIX, RUN_ID, Script, ValkeyConnection

_MICROSECONDS = 1_000_000
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
            _micro(question.window),
            RUN_ID,
            question.known_gateways,
            int(question.unsure),
            int(question.was_alone),
            _micro(question.pause),
            _micro(question.slow_seconds),
            _micro(question.slow_step),
        )
        now, first, granted, step, horizon, gateways = map(int, reply)
        return SlotAnswer(
            now=now / _MICROSECONDS,
            first=first / _MICROSECONDS,
            granted=granted,
            step=step / _MICROSECONDS,
            horizon=horizon / _MICROSECONDS,
            gateways=gateways,
        )

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        now, gateways = await self._connection.run(
            _BEAT, [_HEARD, _SERVER], gateway, _micro(sent_at or 0.0), RUN_ID
        )
        return BeatAnswer(now=now / _MICROSECONDS, gateways=gateways)

    async def leave(self, gateway: str) -> None:
        await self._connection.command("ZREM", _HEARD, gateway)


def _micro(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)
