"""Callers of several gateways that cost little CPU time, so that the gateways have it."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvloop

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 40.0
_AFTER_FAILURE = 0.5


class CallFailed(Exception):
    """The response was not 200."""


@dataclass
class Callers:
    """Send one and the same request again and again; each caller has one open, on a connection that it keeps.

    Args:
        urls: of the route at each gateway.
        key: of the gateways.
        body: of the request.
        callers: how many each gateway has.
        every: seconds between the calls of one caller, for each gateway; 0 if it calls again at once.
    """

    urls: Sequence[str]
    key: str
    body: object
    callers: Sequence[int]
    every: Sequence[float]
    answered: Counter[int] = field(default_factory=Counter)
    """By gateway."""
    failed: Counter[tuple[int, str]] = field(default_factory=Counter)
    """By gateway and kind of failure."""
    latencies: list[float] = field(default_factory=list)
    cpu_share: float = 0.0
    """Of one core. If it is near 1, the callers were too slow."""

    def call_for(self, seconds: float) -> None:
        """Call until then, and wait for the responses."""
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_THREAD)
        uvloop.run(self._call(began + seconds))
        after = resource.getrusage(resource.RUSAGE_THREAD)
        spent = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        self.cpu_share = spent / (time.monotonic() - began)

    async def _call(self, until: float) -> None:
        await asyncio.gather(
            *(
                self._repeat(number, until, self.every[number])
                for number, callers in enumerate(self.callers)
                for _ in range(callers)
            )
        )

    async def _repeat(self, number: int, until: float, every: float) -> None:
        parts = urlsplit(self.urls[number])
        content = json.dumps(self.body).encode()
        request = (
            f"POST {parts.path}?{parts.query} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        ).encode() + content
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while time.monotonic() < until:
            before = time.monotonic()
            try:
                async with asyncio.timeout(_PATIENCE):
                    streams = streams or await asyncio.open_connection(parts.hostname, parts.port)
                    await _exchange(*streams, request)
            except (OSError, EOFError, TimeoutError, CallFailed) as error:
                self.failed[
                    number, str(error) if isinstance(error, CallFailed) else type(error).__name__
                ] += 1
                if streams:
                    streams[1].transport.abort()
                streams = None
                await asyncio.sleep(_AFTER_FAILURE)
            else:
                self.answered[number] += 1
                self.latencies.append(time.monotonic() - before)
            await asyncio.sleep(max(0.0, before + every - time.monotonic()))
        if streams:
            streams[1].close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, length = head.partition(b"content-length:")
    content = await reader.readexactly(int(length.partition(b"\r\n")[0]))
    if head[9:12] != b"200":
        raise CallFailed(f"{head[9:12].decode()} {content[:200].decode(errors='replace')}")
