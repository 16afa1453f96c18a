"""The limits of gateway keys, for all gateways together where they share a server for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hubgate.core.traffic.pauses import Outage
from hubgate.domain.cluster_ports import KeyMinutes
from hubgate.domain.errors import StoreFailed
from hubgate.domain.records import Key
from hubgate.service.keys.limits import KeyLimits, limit_error


class SharedKeyLimits:
    """Limits the requests and tokens of each key in any 60 seconds: see `KeyLimits`, which each gateway has, too.

    While the server is away, each gateway allows its share.
    """

    def __init__(self) -> None:
        self._own = KeyLimits()
        self._minutes: KeyMinutes | None = None
        self._gateways: Callable[[], int] = lambda: 1
        self._outage = Outage("each gateway allows its share of a key's limit", time.monotonic)
        self._sending: set[asyncio.Task[Any]] = set()

    def share(self, minutes: KeyMinutes, gateways: Callable[[], int]) -> None:
        """Count at a server from now on.

        Args:
            minutes: the server.
            gateways: how many gateways share it, as far as is known.
        """
        self._minutes = minutes
        self._gateways = gateways

    async def admit(self, key: Key, now: float) -> None:
        """Count a request of a key that has a limit.

        Raises:
            KeyLimit: the key is over a limit; has the seconds until the next request is allowed.
        """
        if self._minutes is None:
            self._own.admit(key, now)
            return
        if not self._outage.lasts():
            try:
                exhausted = await self._minutes.admit(key)
            except StoreFailed as error:
                self._outage.failed(error)
            else:
                self._outage.ended()
                if exhausted:
                    raise limit_error(key, exhausted.what, exhausted.seconds)
                self._own.note(key, now)
                return
        self._own.admit(key, now, gateways=max(1, self._gateways()))

    def spend(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of a finished call."""
        if key.tokens_per_minute is None or not tokens:
            return
        self._own.spend(key, tokens, now)
        if self._minutes is not None and not self._outage.lasts():
            self._send(self._minutes.spend(key.id, tokens))

    def forget(self, key_id: str) -> None:
        self._own.forget(key_id)
        if self._minutes is not None:
            self._send(self._minutes.forget(key_id))

    def _send(self, question: Awaitable[None]) -> None:
        """Nobody waits for the answer."""
        task = asyncio.ensure_future(self._sent(question))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _sent(self, question: Awaitable[None]) -> None:
        try:
            await question
        except StoreFailed as error:
            self._outage.failed(error)
