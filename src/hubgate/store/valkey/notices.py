"""Notices on a Valkey or Redis server: `hubgate.domain.cluster_ports.NoticeBoard`."""

from __future__ import annotations

from collections.abc import Sequence

from hubgate.domain.cluster_ports import PostedNotice
from hubgate.store.cluster.slot_values import microseconds, seconds
from hubgate.store.valkey.connection import KEY_PREFIX, Script, ValkeyConnection

_NOTICES = KEY_PREFIX + b"notices"
_SCRIPT = Script.read("notices.lua")


class ValkeyNotices:
    def __init__(self, connection: ValkeyConnection) -> None:
        self._connection = connection

    async def read(self) -> Sequence[PostedNotice]:
        reply = await self._connection.run(_SCRIPT, [_NOTICES], "", "", "", 0, 0)
        values = iter(reply)
        return [
            PostedNotice(name=name.decode(), owner=owner.decode(), text=text.decode(), seconds=seconds(left))
            for name, owner, text, left in zip(values, values, values, values, strict=True)
        ]

    async def post(self, notice: PostedNotice, *, replace: bool = True) -> float:
        arguments = (notice.name, notice.owner, notice.text, microseconds(notice.seconds), int(replace))
        (left,) = await self._connection.run(_SCRIPT, [_NOTICES], *arguments)
        return seconds(left)

    async def remove(self, name: str, owner: str) -> None:
        await self._connection.run(_SCRIPT, [_NOTICES], name, owner, "", 0, 0)
