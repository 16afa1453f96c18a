"""When data goes to the sockets: at the end of a turn of the event loop, for all connections together."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

_LARGE_BYTES = 64 * 1024


class Outbox:
    """Holds what connections write in one turn of the event loop, and writes it to their sockets when the turn is over.

    A write to a socket may wake the process that reads from it, which takes the kernel longer than the write itself. That
    process has no time to fall asleep between writes that follow each other at once. At most one piece of each connection
    is held, so that a connection still learns when its peer does not read.
    """

    def __init__(self) -> None:
        self._held: dict[asyncio.WriteTransport, bytes] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Outbox:
        """The one of this event loop."""
        found = _OUTBOXES.get(loop)
        if found is None:
            found = _OUTBOXES[loop] = cls()
        return found

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write data, unless the transport is closed before the turn is over in another way than by `close`."""
        held = self._held.pop(transport, None)
        if held is not None:
            transport.writelines((held, data))
        elif len(data) > _LARGE_BYTES:
            transport.write(data)
        else:
            if not self._held:
                asyncio.get_running_loop().call_soon(self._flush)
            self._held[transport] = data

    def close(self, transport: asyncio.WriteTransport) -> None:
        """Close a transport after what was written."""
        held = self._held.pop(transport, None)
        if held is not None and not transport.is_closing():
            transport.write(held)
        transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, {}
        for transport, data in held.items():
            if not transport.is_closing():
                transport.write(data)


_OUTBOXES: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()
