"""A TCP server whose bytes a test writes by hand."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run `talk` for each connection and yield the port. On exit, every task is cancelled and every socket closed."""
    tasks: set[asyncio.Task[None] | None] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        writers.append(writer)
        try:
            await talk(reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio would report it as a failure
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            # asyncio raises this if the transport sent the rest of its buffer and then closed (CPython 3.11).
            with contextlib.suppress(AttributeError):
                writer.transport.abort()
        for task in tasks:
            if task is not None:
                task.cancel()
        for writer in writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)
