"""The last minute of gateway keys on a Valkey or Redis server: `hubgate.domain.ports.KeyMinutes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubgate.store.cluster.slot_values import exhausted
from hubgate.store.valkey.connection import KEY_PREFIX, Script

if TYPE_CHECKING:
    from hubgate.domain.records import Exhausted, Key
    from hubgate.store.valkey.connection import ValkeyConnection

_MINUTE = Script.read("minute.lua")


class ValkeyKeyMinutes:
    def __init__(self, connection: ValkeyConnection) -> None:
        self._connection = connection

    async def admit(self, key: Key) -> Exhausted | None:
        limits = key.requests_per_minute or 0, key.tokens_per_minute or 0
        return exhausted(await self._connection.run(_MINUTE, [_place(key.id)], *limits, 0))

    async def spend(self, key_id: str, tokens: int) -> None:
        await self._connection.run(_MINUTE, [_place(key_id)], 0, 0, tokens)

    async def forget(self, key_id: str) -> None:
        await self._connection.command("DEL", _place(key_id))


def _place(key_id: str) -> bytes:
    return KEY_PREFIX + b"key:" + key_id.encode()
