"""Writes of one turn of the event loop go out together: uvicorn writes an answer's head and its body one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Together:
    """A transport that asks the system once a turn, where the one below would for every write."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's own."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep it until the end of the turn."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """With what is kept, in bytes."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._held))

    def _send(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)
