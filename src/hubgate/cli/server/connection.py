"""Bounds on what clients may do to their connections: bytes of a head, time of a head and a body, connections at once.

uvicorn reads a head without end, waits for a body as long as a byte comes now and then, and lets a connection that
never asked anything live for ever. All of it costs the gateway memory and files before it knows any key. The time
between two requests is uvicorn's own (`timeout_keep_alive`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hubgate.cli.server.write_batching import Together
from hubgate.web.http.body import BROKEN, EXCESS, FAULT, SLOW

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_TOO_LARGE = b"The request line and the headers are larger than the gate reads."
_TOO_SLOW = b"The request line and the headers did not come in time."


# What the client has yet to send; after `_BROKEN_OFF` nothing more is read. Plain numbers, as members of an Enum take
# longer to look up than all else here.
_NOTHING, _HEAD, _BODY, _BROKEN_OFF = range(4)
TOLD_CONNECTIONS = 128
"""So many beyond the bound are told that they are too many; further ones are closed without an answer."""


class Connection(HttpToolsProtocol):
    """One client's connection.

    A request costs no timer: one a connection looks, from time to time, for how long the client has owed something.
    """

    __slots__ = (
        "_body_bytes",
        "_body_since",
        "_excess",
        "_looking",
        "_most_connections",
        "_owed",
        "_since",
        "_unread",
        "_unsent",
        "_unsent_since",
    )  # uvicorn's __dict__ is full

    head_bytes = 64 * 1024
    """Of the request line and the headers. So much may also come without being part of any body, such as trailers."""
    head_seconds = 10.0
    """From the start of the connection, or the first byte of a further request, to the end of its headers. What comes of
    a further one before the one before it ends is under uvicorn's own bound."""
    stall_seconds = 30.0
    """For which no byte of a body comes, or none of an answer is taken."""
    body_seconds = 600.0
    """For all of a body, at most."""
    body_bytes_a_second = 4096
    """A body must come at least so fast, after the first `stall_seconds`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most_connections, self.limit_concurrency = (
            self.limit_concurrency,
            None,
        )  # uvicorn's own is blunter
        self._excess = False
        self._owed = _HEAD
        self._since = self._body_since = self.loop.time()
        self._body_bytes = 0
        self._unread = 0
        """Bytes that have made neither a head nor a part of a body."""
        self._unsent = 0
        self._unsent_since = 0.0
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Begin to look; make room for it where there are too many, or say so to its first request."""
        super().connection_made(cast("asyncio.Transport", Together(transport, self.loop)))
        if self._most_connections is not None and len(self.connections) > self._most_connections:
            self._excess = not self._make_room()
            if self._excess and len(self.connections) > self._most_connections + TOLD_CONNECTIONS:
                self.transport.abort()
        self._looking = self.loop.call_later(self.head_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._stop_looking()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to another protocol, which has bounds of its own."""
        self._stop_looking()
        super().handle_websocket_upgrade()

    def resume_writing(self) -> None:
        """The client took what was sent, however much of the next is written at once."""
        self._unsent = 0
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._owed != _HEAD:
            self._since = self.loop.time()
            if self._owed == _NOTHING:
                self._owed = _HEAD
            elif self._owed == _BROKEN_OFF:
                return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > self.head_bytes and not self.transport.is_closing():
            self._refuse(431, _TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is whole.

        Raises:
            ValueError: and too large.
        """
        if self._unread > self.head_bytes and self._head_size() > self.head_bytes:
            raise ValueError("head too large")
        self._owed, self._unread = _BODY, 0
        self._body_since, self._body_bytes = self._since, 0
        if self._excess:
            self.scope[EXCESS] = True  # type: ignore[literal-required] # our own
        super().on_headers_complete()
        if self._excess:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body came."""
        self._unread = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._owed, self._unread = _NOTHING, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Free what came of a body that was answered without being read."""
        if self.cycle.body and self.cycle.response_complete:
            self.cycle.body = bytearray()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be read."""
        if self._unread > self.head_bytes:
            self._refuse(431, _TOO_LARGE)
        elif self._owed == _BODY and self._answering():
            self._break_off(BROKEN)
        else:
            self._refuse(400, msg.encode())

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _look(self) -> None:
        now = self.loop.time()
        if self._reads_nothing(now):
            self.transport.abort()
            return
        again = now + self.head_seconds
        if self._owed == _BODY:
            if self.flow.read_paused:  # it is the gate that does not read
                self._since = self._body_since = now
                self._body_bytes = 0
            else:
                again = min(self._since + self.stall_seconds, self._body_since + self._body_seconds())
        elif self._owed == _HEAD and not self._answering():
            again = self._since + self.head_seconds
        if again <= now:
            self._give_up()
            again = now + self.head_seconds
        self._looking = self.loop.call_at(again, self._look)

    def _reads_nothing(self, now: float) -> bool:
        """Whether the client has long taken nothing of what was sent to it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        return unsent > 0 and now - self._unsent_since >= self.stall_seconds

    def _body_seconds(self) -> float:
        """How long all of the body may take. What comes after its answer is only thrown away."""
        if not self._answering():
            return self.stall_seconds
        return min(self.body_seconds, self.stall_seconds + self._body_bytes / self.body_bytes_a_second)

    def _give_up(self) -> None:
        if self._owed == _HEAD and self._unread:
            self._refuse(408, _TOO_SLOW)
        elif self._owed == _BODY and self._answering():
            self._break_off(SLOW)
        else:
            self.transport.close()

    def _break_off(self, fault: str) -> None:
        """Let the application answer a body of which no more is read; the connection ends with that answer."""
        self._owed = _BROKEN_OFF
        self.scope[FAULT] = fault  # type: ignore[literal-required] # our own
        self.cycle.keep_alive = self.cycle.more_body = False
        self.cycle.message_event.set()

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, as its client can open another; whether there is one."""
        idle = {
            one.timeout_keep_alive_task.when(): one
            for one in self.connections
            if isinstance(one, Connection)
            and one.timeout_keep_alive_task is not None
            and not one.transport.is_closing()
        }
        if idle:
            idle[min(idle)].transport.close()
        return bool(idle)

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = (
            self.cycle
        )  # `None` before the first request, whatever uvicorn declares
        return cycle is not None and not cycle.response_complete

    def _refuse(self, status: int, words: bytes) -> None:
        """Say why, unless it would stand in the midst of another answer, and close."""
        if not self._answering():
            head = (
                b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head % len(words) + words)
        self.transport.close()

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
