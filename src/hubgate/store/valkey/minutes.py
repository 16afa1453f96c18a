"""The last minute of gateway keys on a Valkey or Redis server: `hubgate.domain.ports.KeyMinutes`."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from hubgate.domain.records import Exhausted
from hubgate.store.valkey.connection import KEY_PREFIX, Script

if TYPE_CHECKING:
    from hubgate.domain.records import Key
    from hubgate.store.valkey.connection import ValkeyConnection

_MINUTE = Script(files(__package__).joinpath("minute.lua").read_text(encoding="utf-8"))
_WHAT = ("", "requests", "tokens")


class ValkeyKeyMinutes:
    def __init__(self, connection: ValkeyConnection) -> None:
        self._connection = connection

    async def admit(self, key: Key) -> Exhausted | None:
        what, wait = await self._connection.run(
            _MINUTE, [_place(key.id)], key.requests_per_minute or 0, key.tokens_per_minute or 0, 0
        )
        return Exhausted(_WHAT[what], wait / 1_000_000) if what else None

    async def spend(self, key_id: str, tokens: int) -> None:
        await self._connection.run(_MINUTE, [_place(key_id)], 0, 0, tokens)

    async def forget(self, key_id: str) -> None:
        await self._connection.command("DEL", _place(key_id))


def _place(key_id: str) -> bytes:
    return KEY_PREFIX + b"key:" + key_id.encode()
