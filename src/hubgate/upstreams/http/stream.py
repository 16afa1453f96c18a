"""A reply that is read as it arrives, on a connection of the pool."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping

from hubgate.upstreams.http.connection import MAX_ERROR_BYTES, Connection
from hubgate.upstreams.http.failures import EXCHANGE_ERRORS, exchange_error, stalled
from hubgate.upstreams.http.messages import HttpReply

STREAM_BUFFER_BYTES = 64 * 1024
"""Held for a slow reader, plus one read of the socket."""
_LAST_BYTES_SECONDS = 0.25
"""How long a finished stream waits for the end of the reply, so that the connection can be reused."""


class PooledStream:
    """Implements `messages.HttpStream`.

    Args:
        connection: on which status and headers have arrived.
        release: gives the connection back.
        where: the name of the server in messages.
        until: when the first piece must have arrived, in seconds of the event loop.
        read_timeout: seconds between two pieces.
    """

    def __init__(
        self,
        connection: Connection,
        release: Callable[[], None],
        where: str,
        *,
        until: float,
        read_timeout: float,
    ) -> None:
        self._connection = connection
        self._release: Callable[[], None] | None = release
        self._where = where
        self._until, self._read_timeout = until, read_timeout
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if chunk := await self.read():
            return chunk
        raise StopAsyncIteration

    async def read(self) -> bytes:
        connection = self._connection
        try:
            data = connection.take()
            if data is None:
                until = max(self._until, connection.loop.time() + self._read_timeout)
                while data is None:
                    await connection.news(until)
                    data = connection.take()
            self._until = -math.inf
        except TimeoutError as error:
            raise stalled(self._where, self._read_timeout) from error
        except EXCHANGE_ERRORS as error:
            raise exchange_error(error, self._where, self._read_timeout) from error
        return data

    async def rest(self) -> HttpReply:
        chunks, size = [], 0
        while size <= MAX_ERROR_BYTES and (chunk := await self.read()):
            chunks.append(chunk)
            size += len(chunk)
        await self.aclose()
        return HttpReply(status=self.status, headers=self.headers, body=b"".join(chunks))

    async def finish(self) -> None:
        try:
            connection = self._connection
            if self._release is not None and connection.take() is None:
                with contextlib.suppress(*EXCHANGE_ERRORS):
                    await connection.news(connection.loop.time() + _LAST_BYTES_SECONDS)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
