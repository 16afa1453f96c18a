"""A reply that is read as it arrives, on aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp

from hubgate.upstreams.failures import failure, stalled
from hubgate.upstreams.messages import HttpReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

MAX_REST_BYTES = 64 * 1024
"""More of an error page is not read."""
_LAST_BYTES_SECONDS = 0.25
"""How long a connection whose stream is over waits for the end of the reply, to be used again."""


class AiohttpStream:
    """Implements `messages.HttpStream`.

    Args:
        response: whose headers are in.
        where: how messages name the server.
        silence: the most seconds between two pieces.
    """

    def __init__(self, response: aiohttp.ClientResponse, where: str, silence: float) -> None:
        self._response = response
        self._where = where
        self._silence = silence

    @property
    def status(self) -> int:
        """The status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Looked up without regard to case."""
        return self._response.headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        while chunk := await self._next():
            yield chunk

    async def rest(self) -> HttpReply:
        """The whole reply; of a body beyond the bound, its beginning."""
        chunks, size = [], 0
        while size <= MAX_REST_BYTES and (chunk := await self._next()):
            chunks.append(chunk)
            size += len(chunk)
        self._response.close()
        return HttpReply(status=self.status, headers=self.headers, body=b"".join(chunks))

    async def finish(self) -> None:
        """Wait a moment for the end of the reply, so that the connection may be used again; then close."""
        try:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(_LAST_BYTES_SECONDS):
                    await self._response.content.readany()
        finally:
            self._response.close()

    async def aclose(self) -> None:
        """Close the connection at once, unless all was read: then it can be used again."""
        self._response.close()

    async def _next(self) -> bytes:
        """The bytes that are there, or the next that come; none at the end."""
        try:
            async with asyncio.timeout(self._silence):
                return await self._response.content.readany()
        except TimeoutError as error:
            raise stalled(self._where, self._silence) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise failure(error, self._where, self._silence) from error
