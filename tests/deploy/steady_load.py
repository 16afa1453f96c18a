"""Callers that call a gateway without a pause, each with its next call as soon as the last one is answered."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self

import aiohttp
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence


class SteadyLoad:
    """Embeds texts at an endpoint, while the context is open.

    Args:
        urls: the callers are divided among them.
        callers: how many.
        keep_alive: whether each caller keeps its connection for its next call.
        pause: seconds between two calls of a caller.
        reconnects: whether a caller whose connection is refused tries the next URL: nothing was sent, so nothing is lost.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key: str,
        model: str,
        callers: int = 8,
        keep_alive: bool = True,
        reconnects: bool = False,
        pause: float = 0.0,
    ) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._model = model
        self._callers = callers
        self._keep_alive = keep_alive
        self._reconnects = reconnects
        self._pause = pause
        self.answered = [0] * callers
        """Successful calls of each caller."""
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(240)

    def wait_for(self, more: int) -> None:
        """Wait until each caller has `more` calls answered."""
        wanted = [count + more for count in self.answered]
        eventually(
            lambda: bool(self.failures) or all(a >= b for a, b in zip(self.answered, wanted, strict=True))
        )

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=not self._keep_alive)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session:
            await asyncio.gather(*(self._call(session, number) for number in range(self._callers)))

    async def _call(self, session: aiohttp.ClientSession, number: int) -> None:
        place = number
        while not self._stop.is_set():
            body = {"model": self._model, "input": f"caller {number}, text {self.answered[number]}"}
            url = self._urls[place % len(self._urls)]
            try:
                async with session.post(f"{url}/v1/embeddings", json=body) as reply:
                    text = await reply.text()
                    if reply.status == 200:
                        self.answered[number] += 1
                    else:
                        self.failures.append(f"{reply.status} {text}")
            except aiohttp.ClientConnectorError as error:
                if not self._reconnects:
                    self.failures.append(repr(error))
                place += 1
                await asyncio.sleep(0.01)
            except aiohttp.ClientError as error:
                self.failures.append(repr(error))
            if self._pause:
                await asyncio.sleep(self._pause)
