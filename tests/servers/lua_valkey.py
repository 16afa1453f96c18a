"""A Valkey server in virtual time: real Lua runs hubgate's scripts, on the few commands that they use.

It can be slow, lose replies, be away, restart without its memory, and have its clock set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from lupa import lua51
from virtual_time import now

from hubgate.domain.errors import StoreFailed
from hubgate.store.valkey.connection import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hubgate.store.valkey.connection import Script

PATIENCE = 0.5
_WRAP = "return function(redis) return function(KEYS, ARGV) {source} end end"


def _text(value: object) -> str:
    """As Valkey turns the numbers of a script into arguments."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return value.decode() if isinstance(value, bytes) else str(value)


def _reply(value: object) -> int | bytes:
    """As Valkey turns what a script returns into a reply."""
    return value.encode() if isinstance(value, str) else int(value)  # type: ignore[call-overload]


@dataclass
class LuaValkey:
    """The server. Its time is that of the loop and `offset`."""

    chance: Random = field(default_factory=lambda: Random(1))
    latency: float = 0.0
    """The longest way of a message, one way."""
    lost_replies: float = 0.0
    """The share of replies that do not arrive."""
    stalls: Sequence[tuple[float, float]] = ()
    """When it stands still; it then answers what it received."""
    offset: float = 1_750_000_000.0
    run_id: int = 1
    questions: int = 0

    def __post_init__(self) -> None:
        self.hashes: dict[str, dict[str, str]] = {}
        self.sets: dict[str, dict[str, float]] = {}
        self._scripts: dict[str, Callable[..., Any]] = {}
        self._lua = lua51.LuaRuntime(unpack_returned_tuples=True)
        self._redis = self._lua.table_from({"call": self._call})

    def restart(self) -> None:
        """Lose the memory."""
        self.hashes.clear()
        self.sets.clear()
        self.run_id += 1

    def connection(
        self,
        is_cut: Callable[[], bool] = lambda: False,
        arrives: Callable[[], float | None] = lambda: None,
    ) -> LuaConnection:
        """A gateway's connection. While it is cut there are no replies; `arrives` is when a message does nevertheless."""
        return LuaConnection(self, is_cut, arrives)

    def execute(self, script: Script, keys: Sequence[bytes], arguments: Sequence[object]) -> list[Any]:
        self.questions += 1
        run = self._scripts.get(script.digest)
        if run is None:
            run = self._scripts[script.digest] = self._lua.execute(_WRAP.format(source=script.source))(
                self._redis
            )
        filled = [str(self.run_id) if each is RUN_ID else _text(each) for each in arguments]
        reply = run(self._lua.table_from([key.decode() for key in keys]), self._lua.table_from(filled))
        return [_reply(reply[number]) for number in range(1, len(reply) + 1)]

    def remove(self, key: str, member: str) -> list[int]:
        return [int(self.sets.get(key, {}).pop(member, None) is not None)]

    def _call(self, command: str, *arguments: object) -> object:
        key, *rest = map(_text, arguments) if arguments else ("",)
        found: Any = getattr(self, f"_{command.lower()}")(key, *rest)
        return self._lua.table_from(found) if isinstance(found, list) else found

    def _time(self, _: str) -> list[str]:
        seconds, rest = divmod(now() + self.offset, 1)
        return [str(int(seconds)), str(int(rest * 1_000_000))]

    def _hmget(self, key: str, *names: str) -> list[str | bool]:
        return [self.hashes.get(key, {}).get(name, False) for name in names]

    def _hget(self, key: str, name: str) -> str | bool:
        return self.hashes.get(key, {}).get(name, False)

    def _hset(self, key: str, *pairs: str) -> int:
        self.hashes.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
        return 0

    def _hgetall(self, key: str) -> list[str]:
        return [part for pair in self.hashes.get(key, {}).items() for part in pair]

    def _hincrby(self, key: str, name: str, number: str) -> int:
        stored = self.hashes.setdefault(key, {})
        stored[name] = str(int(stored.get(name, "0")) + int(number))
        return int(stored[name])

    def _hdel(self, key: str, *names: str) -> int:
        return sum(self.hashes.get(key, {}).pop(name, None) is not None for name in names)

    def _zadd(self, key: str, score: str, member: str) -> int:
        self.sets.setdefault(key, {})[member] = float(score)
        return 0

    def _zcount(self, key: str, low: str, high: str) -> int:
        return sum(float(low) <= score <= float(high) for score in self.sets.get(key, {}).values())

    def _zremrangebyscore(self, key: str, low: str, high: str) -> int:
        kept = {m: s for m, s in self.sets.get(key, {}).items() if not float(low) <= s <= float(high)}
        self.sets[key] = kept
        return 0


class LuaConnection:
    """What hubgate's parts on Valkey need of `hubgate.store.valkey.connection.ValkeyConnection`."""

    def __init__(
        self, server: LuaValkey, is_cut: Callable[[], bool], arrives: Callable[[], float | None]
    ) -> None:
        self._server = server
        self._is_cut = is_cut
        self._arrives = arrives

    async def run(self, script: Script, keys: Sequence[bytes], *arguments: object) -> list[Any]:
        return await self._exchange(lambda: self._server.execute(script, keys, arguments))

    async def command(self, name: str, key: bytes, member: str) -> None:
        assert name == "ZREM"
        await self._exchange(lambda: self._server.remove(key.decode(), member))

    async def _exchange(self, execute: Callable[[], list[Any]]) -> list[Any]:
        """A message that was sent arrives, even if nobody waits for the reply any more."""
        server = self._server
        if self._is_cut():
            if (at := self._arrives()) is not None:
                asyncio.get_running_loop().call_at(at, execute)
            await asyncio.sleep(PATIENCE)
            raise StoreFailed("The Valkey server did not answer in time.")
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[list[Any]] = loop.create_future()
        is_lost = server.chance.random() < server.lost_replies

        def receive(answer: list[Any]) -> None:
            if not is_lost and not reply.done():
                reply.set_result(answer)

        def arrive() -> None:
            for start, end in server.stalls:
                if start <= now() < end:
                    loop.call_at(end, arrive)
                    return
            answer = execute()
            back = server.chance.random() * server.latency
            loop.call_later(back, receive, answer)

        loop.call_later(server.chance.random() * server.latency, arrive)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reply
        except TimeoutError:
            raise StoreFailed("The Valkey server did not answer in time.") from None
