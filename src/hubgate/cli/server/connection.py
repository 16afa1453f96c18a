"""Limits on client connections: size of the headers, time for headers and body, number of connections.

uvicorn reads headers of any length, waits for a body as long as a byte arrives now and then, and never closes a
connection that sent no request. All of that costs memory and file descriptors before any key is checked. The idle time
between two requests is uvicorn's own limit (`timeout_keep_alive`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hubgate.web.http.body import BROKEN, EXCESS, FAULT, SLOW

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_TOO_LARGE = b"The request line and the headers are too large."
_TOO_SLOW = b"Timed out reading the request line and the headers."
# What the client has yet to send; after `_ABORTED` nothing more is read. Plain numbers, because looking up a member of
# an Enum would take longer than everything else here.
_NOTHING, _HEAD, _BODY, _ABORTED = range(4)
EXCESS_CONNECTIONS = 128
"""Connections beyond the limit that get an error response; further ones are closed without one."""


class WriteBatcher:
    """A transport that joins the writes of one turn of the event loop.

    uvicorn writes the head and the body of a response separately. Joining them saves 5 to 7 % of the CPU time of a
    small request, also on uvloop.
    """

    __slots__ = ("_loop", "_pending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + sum(map(len, self._pending))

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and not self._transport.is_closing():
            self._transport.writelines(pending)


class Connection(HttpToolsProtocol):
    """A client's connection.

    Requests start no timers: one timer per connection checks now and then for how long the client has owed something.
    """

    # Slots, because uvicorn's __dict__ is full.
    __slots__ = (
        "_body_bytes",
        "_body_since",
        "_excess",
        "_max_connections",
        "_owed",
        "_since",
        "_timer",
        "_unread",
        "_unsent",
        "_unsent_since",
    )

    head_bytes = 64 * 1024
    """Max size of the request line and headers, and of other bytes outside any body, such as trailers."""
    head_seconds = 10.0
    """From the start of the connection, or the first byte of a later request, to the end of its headers. Pipelined
    requests are limited by uvicorn."""
    stall_seconds = 30.0
    """Max time without receiving a byte of a body, or sending one of a response."""
    body_seconds = 600.0
    """Max time for a whole body."""
    last_request_seconds = 1.0
    """When hubgate stops: from then until the first byte of a new connection's request."""
    body_bytes_a_second = 4096
    """Min transfer rate of a body after the first `stall_seconds`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = self.limit_concurrency
        self.limit_concurrency = None  # uvicorn would refuse every request above its limit
        self._excess = False
        self._owed = _HEAD
        self._since = self._body_since = self.loop.time()
        self._body_bytes = 0
        self._unread = 0
        """Bytes received that belong to no complete head and no body."""
        self._unsent = 0
        self._unsent_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(cast("asyncio.Transport", WriteBatcher(transport, self.loop)))
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._excess = not self._make_room()
            if self._excess and len(self.connections) > self._max_connections + EXCESS_CONNECTIONS:
                self.transport.abort()
        self._timer = self.loop.call_later(self.head_seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._cancel_timer()
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Close once the request in progress is done. A client that has just connected may still send one."""
        if self._has_request():
            super().shutdown()
        else:
            self.loop.call_later(self.last_request_seconds, self._close_unused)

    def resume_writing(self) -> None:
        self._unsent = 0  # the client is reading, even if as much is pending again at the next check
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._owed != _HEAD:
            self._since = self.loop.time()
            if self._owed == _NOTHING:
                self._owed = _HEAD
            elif self._owed == _ABORTED:
                return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > self.head_bytes and not self.transport.is_closing():
            self._refuse(431, _TOO_LARGE)

    def on_headers_complete(self) -> None:
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
        self._unread = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._owed, self._unread = _NOTHING, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.body and self.cycle.response_complete:  # answered without being read: free it
            self.cycle.body = bytearray()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self._unread > self.head_bytes:
            self._refuse(431, _TOO_LARGE)
        elif self._owed == _BODY and self._is_responding():
            self._abort_body(BROKEN)
        else:
            self._refuse(400, msg.encode())

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _check(self) -> None:
        now = self.loop.time()
        if self._is_stalled(now):
            self.transport.abort()
            return
        again = now + self.head_seconds
        if self._owed == _BODY:
            if self.flow.read_paused:  # hubgate itself is not reading
                self._since = self._body_since = now
                self._body_bytes = 0
            else:
                again = min(self._since + self.stall_seconds, self._body_since + self._body_time_limit())
        elif self._owed == _HEAD and not self._is_responding():
            again = self._since + self.head_seconds
        if again <= now:
            self._time_out()
            again = now + self.head_seconds
        self._timer = self.loop.call_at(again, self._check)

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has not read any of the response for `stall_seconds`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        return unsent > 0 and now - self._unsent_since >= self.stall_seconds

    def _body_time_limit(self) -> float:
        """Time limit for the whole body. What arrives after the response is discarded."""
        if not self._is_responding():
            return self.stall_seconds
        return min(self.body_seconds, self.stall_seconds + self._body_bytes / self.body_bytes_a_second)

    def _time_out(self) -> None:
        if self._owed == _HEAD and self._unread:
            self._refuse(408, _TOO_SLOW)
        elif self._owed == _BODY and self._is_responding():
            self._abort_body(SLOW)
        else:
            self.transport.close()

    def _abort_body(self, fault: str) -> None:
        """Stop reading the body and let the application respond; the connection closes after that response."""
        self._owed = _ABORTED
        self.scope[FAULT] = fault  # type: ignore[literal-required] # our own
        self.cycle.keep_alive = self.cycle.more_body = False
        self.cycle.message_event.set()

    def _make_room(self) -> bool:
        """Close the connection that has been idle the longest; `False` if none is idle."""
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

    def _has_request(self) -> bool:
        """Whether the head of a request was read."""
        # `None` before the first one, although uvicorn declares otherwise
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None

    def _is_responding(self) -> bool:
        return self._has_request() and not self.cycle.response_complete

    def _refuse(self, status: int, text: bytes) -> None:
        """Send an error response, unless another one has begun, and close."""
        if not self._is_responding():
            head = (
                b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head % len(text) + text)
        self.transport.close()

    def _close_unused(self) -> None:
        if not self._has_request() and not self._unread:
            self.transport.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
