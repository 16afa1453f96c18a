"""A reply that is read as it arrives, on a connection of the pool."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from hubgate.upstreams.http.connection import MAX_ERROR_BYTES, Connection
from hubgate.upstreams.http.failures import TROUBLE, failure, stalled
from hubgate.upstreams.http.messages import HttpReply

STREAM_AHEAD_BYTES = 64 * 1024
"""No more is held for a reader that is slow, but for one read of the socket."""
_LAST_BYTES_SECONDS = 0.25
"""How long a connection whose stream is over waits for the end of the reply, to be used again."""


class PooledStream:
    """Implements `messages.HttpStream`.

    Args:
        connection: on which status and headers are in.
        end: gives the connection back.
        where: how messages name the server.
        silence: the most seconds between two pieces.
    """

    def __init__(self, connection: Connection, end: Callable[[], None], where: str, silence: float) -> None:
        self._connection = connection
        self._end: Callable[[], None] | None = end
        self._where = where
        self._silence = silence
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        while chunk := await self._next():
            yield chunk

    async def rest(self) -> HttpReply:
        """The whole reply; of a body beyond the bound, its beginning."""
        chunks, size = [], 0
        while size <= MAX_ERROR_BYTES and (chunk := await self._next()):
            chunks.append(chunk)
            size += len(chunk)
        await self.aclose()
        return HttpReply(status=self.status, headers=self.headers, body=b"".join(chunks))

    async def finish(self) -> None:
        """Wait a moment for the end of the reply, so that the connection may be used again; then close."""
        try:
            if self._end is not None:
                with contextlib.suppress(*TROUBLE):
                    await self._connection.some(_LAST_BYTES_SECONDS)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection at once, unless all was read: then it can be used again."""
        end, self._end = self._end, None
        if end is not None:
            end()

    async def _next(self) -> bytes:
        """The bytes that are there, or the next that come; none at the end."""
        try:
            return await self._connection.some(self._silence)
        except TimeoutError as error:
            raise stalled(self._where, self._silence) from error
        except TROUBLE as error:
            raise failure(error, self._where, self._silence) from error
