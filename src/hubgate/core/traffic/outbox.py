"""When data goes to the sockets: at the end of a turn of the event loop, for all connections together."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from weakref import WeakKeyDictionary

_LARGE_BYTES = 64 * 1024


class Outbox:
    """Holds what connections write in one turn of the event loop, and writes it to their sockets when the turn is over.

    A write to a socket may wake the process that reads from it, which takes the kernel longer than the write itself. That
    process has no time to fall asleep between writes that follow each other at once. At most one write of each connection
    is held, so that a connection still learns when its peer does not read.
    """

    def __init__(self) -> None:
        self._held: dict[asyncio.WriteTransport, tuple[bytes, ...]] = {}
        self.requests: Sized = ()
        """Those that are being answered, set by the server: for a single one, data is written at once."""

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Outbox:
        """The one of this event loop."""
        found = _OUTBOXES.get(loop)
        if found is None:
            found = _OUTBOXES[loop] = cls()
        return found

    def write(self, transport: asyncio.WriteTransport, *pieces: bytes) -> None:
        """Write data, unless the transport is closed before the turn is over in another way than by `close`.

        Args:
            transport: of the connection.
            pieces: of which the last one may be large.
        """
        held = self._held.pop(transport, None)
        if held is not None:
            transport.writelines(held + pieces)
        elif len(self.requests) == 1 or len(pieces[-1]) > _LARGE_BYTES:
            transport.writelines(pieces)
        else:
            if not self._held:
                asyncio.get_running_loop().call_soon(self._flush)
            self._held[transport] = pieces

    def close(self, transport: asyncio.WriteTransport) -> None:
        """Close a transport after what was written."""
        held = self._held.pop(transport, None)
        if held is not None and not transport.is_closing():
            transport.writelines(held)
        transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, {}
        for transport, pieces in held.items():
            if not transport.is_closing():
                transport.writelines(pieces)


_OUTBOXES: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()
