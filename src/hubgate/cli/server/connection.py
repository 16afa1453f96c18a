"""A client's connection: HTTP/1.1 on httptools, and its limits.

uvicorn runs the server. Its own protocols make an event, a timer and two writes for each request, read headers of any
length, wait for a body as long as a byte arrives now and then, and never close a connection that sent no request. That
costs memory and file descriptors before any key is checked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import unquote

import httptools

from hubgate.cli.server.cycle import STATUS_LINES, Cycle
from hubgate.cli.server.known_heads import Found, KnownHeads
from hubgate.core.traffic.outbox import Outbox
from hubgate.web.http.body import ARRIVED, BROKEN, EXCESS, SLOW

if TYPE_CHECKING:
    from collections.abc import Iterable

    import uvicorn
    from uvicorn.server import ServerState

    from hubgate.cli.server.addresses import Addresses
    from hubgate.web.http.asgi import AsgiApp, Scope

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_INVALID = b"Invalid HTTP request received."
_TOO_LARGE = b"The request line and the headers are too large."
_TOO_SLOW = b"Timed out reading the request line and the headers."
# What the client has yet to send; after `_ABORTED` nothing more is read. Plain numbers, because looking up a member of
# an Enum would take longer than everything else here.
_NOTHING, _HEAD, _BODY, _ABORTED = range(4)
_MAX_MISSED = 16
"""After this number of unknown heads in a row, only every 16th head is looked up."""
EXCESS_CONNECTIONS = 128
"""Connections beyond the limit that get an error response; further ones are closed without one."""

_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """A client's connection, for `uvicorn.Config(http=Connection)`: it parses requests and calls the application for each.

    Requests start no timers: one timer per connection checks now and then for how long the client has owed something.
    Pipelined requests wait for the response to the one before. Requests to upgrade the protocol are served as any other.
    """

    __slots__ = (
        "_addresses",
        "_app",
        "_body_bytes",
        "_body_since",
        "_client",
        "_excess",
        "_headers",
        "_idle_since",
        "_keep_alive_seconds",
        "_local",
        "_loop",
        "_max_connections",
        "_outbox",
        "_owed",
        "_parser",
        "_pipelined",
        "_reading",
        "_reading_paused",
        "_responding",
        "_served",
        "_since",
        "_state",
        "_timer",
        "_unknown_heads",
        "_unread",
        "_unsent",
        "_unsent_since",
        "_url",
        "transport",
        "unwritable",
    )

    head_bytes = 64 * 1024
    """Max size of the request line and headers, and of other bytes outside any body, such as trailers."""
    head_seconds = 10.0
    """From the start of the connection, or the first byte of a later request, to the end of its headers, unless
    a response is in progress."""
    stall_seconds = 30.0
    """Max time without receiving a byte of a body, or sending one of a response."""
    body_seconds = 600.0
    """Max time for a whole body."""
    last_request_seconds = 1.0
    """When hubgate stops: from then until the first byte of a new connection's request."""
    pending_seconds = 1.0
    """After this time, a client that owes a head, or a body without a known key, may be closed for another client."""
    body_bytes_a_second = 4096
    """Min transfer rate of a body after the first `stall_seconds`."""

    known_heads: ClassVar = KnownHeads()
    _default: ClassVar[tuple[list[tuple[bytes, bytes]], bytes, bool] | None] = None
    """uvicorn's default headers and what `default_headers` makes of them; uvicorn replaces the list once a second."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - of `lifespan`, which is not supported
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        addresses: Addresses | None = None,
    ) -> None:
        self._addresses = addresses
        self._app: AsgiApp = cast("AsgiApp", config.loaded_app)
        self._max_connections = config.limit_concurrency
        self._keep_alive_seconds = config.timeout_keep_alive
        self._state = server_state
        self._loop = loop = _loop or asyncio.get_running_loop()
        self._outbox = Outbox.of(loop)
        self._outbox.requests = server_state.tasks
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        # A request after one with `Connection: close` must not keep that one from its response.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._reading: Cycle | None = None
        """Whose body arrives."""
        self._responding: Cycle | None = None
        self._pipelined: deque[Cycle] = deque()
        self._served = False
        """Whether the head of a request was read."""
        self._reading_paused = False
        self.unwritable: asyncio.Event | None = None
        """Set when more can be written, if the client does not read fast enough."""
        self._excess = False
        self._owed = _HEAD
        self._since = self._body_since = self._idle_since = loop.time()
        self._body_bytes = 0
        self._unread = 0
        """Bytes received that belong to no complete head and no body."""
        self._unsent = 0
        self._unsent_since = 0.0
        self._unknown_heads = 0
        """How many requests in a row had a head that was not known."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._client, self._local = _address(transport, "peername"), _address(transport, "sockname")
        connections = cast("set[Any]", self._state.connections)
        connections.add(self)
        if self._addresses is not None and self._addresses.add(self._host):
            self._loop.call_later(self.pending_seconds, self._bound_address, self._addresses)
        if self._max_connections is not None and len(connections) > self._max_connections:
            self._excess = not self._make_room()
            if self._excess and len(connections) > self._max_connections + EXCESS_CONNECTIONS:
                self.transport.abort()
        self._timer = self._loop.call_later(self.head_seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._timer.cancel()
        if self._addresses is not None:
            self._addresses.remove(self._host)
        cast("set[Any]", self._state.connections).discard(self)
        self._parser = None  # which refers to this object
        self.resume_writing()
        for cycle in (self._responding, *self._pipelined):
            if cycle is not None:
                cycle.disconnect()
        self._responding = self._reading = None
        self._pipelined.clear()

    def shutdown(self) -> None:
        """Close once the request in progress is done. A client that has just connected may still send one."""
        if self._responding is not None:
            (self._pipelined[-1] if self._pipelined else self._responding).keep_alive = False
        elif self._served:
            self.close()
        else:
            self._loop.call_later(self.last_request_seconds, self._close_unused)

    def write(self, *pieces: bytes) -> None:
        if not self.transport.is_closing():
            self._outbox.write(self.transport, *pieces)

    def close(self) -> None:
        self._outbox.close(self.transport)

    def pause_writing(self) -> None:
        self.unwritable = asyncio.Event()

    def resume_writing(self) -> None:
        self._unsent = 0  # the client is reading, even if as much is pending again at the next check
        if self.unwritable is not None:
            self.unwritable.set()
            self.unwritable = None

    def pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._owed != _HEAD:
            self._since = self._loop.time()
            if self._owed == _NOTHING:
                self._owed = _HEAD
            elif self._owed == _ABORTED:
                return
        if self._unread or self._owed != _HEAD or self._responding is not None or self._excess:
            self._parse(data)
        else:
            self._receive_request(data)

    def _receive_request(self, data: bytes) -> None:
        """Receive data with which a request begins. If its head is known, the parser has no work."""
        missed = self._unknown_heads
        self._unknown_heads += 1
        # The heads of some clients all differ, for example by a trace id.
        looks = missed < _MAX_MISSED or missed % _MAX_MISSED == 0
        found = self.known_heads.find(data) if looks else None
        if found is None:
            self._parse(data)
        elif found.scope is None:
            self._parse(data)
            self._note_head(found)
        elif self._parser is not None:
            scope = found.scope
            scope["server"], scope["client"], scope[ARRIVED] = self._local, self._client, found.body
            self._unknown_heads, self._owed, self._served = 0, _NOTHING, True
            self._start(Cycle(self, scope, more_body=False))

    def _parse(self, data: bytes) -> None:
        self._unread += len(data)
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self._refuse_invalid()
        if self._unread > self.head_bytes and not self.transport.is_closing():
            self._refuse(431, _TOO_LARGE)

    def _note_head(self, found: Found) -> None:
        """Let the head of the request that is served now be remembered, if the parser has read it as one whole request."""
        cycle = self._responding
        if cycle is None or not cycle.keep_alive or self._pipelined:
            return
        if self._owed == _NOTHING and not self._unread and cycle.scope.get(ARRIVED) == found.body:
            cycle.head_digest = found.digest

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._unread > self.head_bytes and self._head_size() > self.head_bytes:
            raise ValueError("head too large")
        url, headers, self._url, self._headers = self._url, self._headers, b"", []
        parser = cast("httptools.HttpRequestParser", self._parser)
        path, raw_path, query = _split(url)
        version = parser.get_http_version()
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._local,
            "client": self._client,
            "scheme": "http",
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
        }
        if self._excess:
            scope[EXCESS] = True
        cycle = self._reading = Cycle(
            self,
            scope,
            keep_alive=not self._excess and version != "1.0" and parser.should_keep_alive(),
            expects_continue=any(n == b"expect" and v.lower() == b"100-continue" for n, v in headers),
        )
        self._owed, self._unread, self._served = _BODY, 0, True
        self._body_since, self._body_bytes = self._since, 0
        if self._responding is None:
            self._start(cycle)
        else:
            self.pause_reading()
            self._pipelined.append(cycle)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        self._body_bytes += len(body)
        if self._reading is not None:
            self._reading.add_body(body)

    def on_message_complete(self) -> None:
        self._owed, self._unread = _NOTHING, 0
        if self._reading is not None:
            self._reading.end_body()
            self._reading = None

    def on_response_complete(self, cycle: Cycle) -> None:
        self._state.total_requests += 1
        self._responding, self._idle_since = None, self._loop.time()
        if cycle.head_digest:
            self.known_heads.remember(cycle.head_digest, cycle.scope)
        if not cycle.keep_alive:
            self.close()
        if self.transport.is_closing():
            return
        if self._reading_paused:
            self.resume_reading()
        if self._pipelined:
            self._start(self._pipelined.popleft())

    def on_task_end(self, cycle: Cycle) -> None:
        """The last thing that the task of a request does: a callback would take another turn of the event loop."""
        self._state.tasks.discard(cast("asyncio.Task[None]", cycle.task))
        cycle.task = None

    def default_headers(self) -> tuple[bytes, bool]:
        """Uvicorn's headers of every response, such as `Date`, and whether these close the connection."""
        given = self._state.default_headers
        if Connection._default is None or Connection._default[0] is not given:
            rendered = b"".join(b"%b: %b\r\n" % header for header in given)
            Connection._default = (given, rendered, b"\r\nconnection: close\r\n" in b"\r\n" + rendered)
        return Connection._default[1:]

    def _start(self, cycle: Cycle) -> None:
        self._responding = cycle
        cycle.task = self._loop.create_task(cycle.run(self._app))
        self._state.tasks.add(cycle.task)

    def _refuse_invalid(self) -> None:
        _log.warning("received an invalid HTTP request")
        if self._unread > self.head_bytes:
            self._refuse(431, _TOO_LARGE)
        elif self._owed == _BODY and self._awaits_body():
            self._abort_body(BROKEN)
        else:
            self._refuse(400, _INVALID)

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _check(self) -> None:
        now = self._loop.time()
        if self._is_stalled(now):
            self.transport.abort()
            return
        if self._unsent:
            self._idle_since = now
        again = now + self.head_seconds
        if self._owed == _BODY:
            if self._reading_paused:  # hubgate itself is not reading
                self._since = self._body_since = now
                self._body_bytes = 0
            else:
                again = min(self._since + self.stall_seconds, self._body_since + self._body_time_limit())
        elif self._responding is None:
            if self._owed == _HEAD:
                again = self._since + self.head_seconds
            else:
                again = min(again, max(self._idle_since, self._since) + self._keep_alive_seconds)
        if again <= now:
            self._time_out()
            again = now + self.head_seconds
        self._timer = self._loop.call_at(again, self._check)

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has not read any of the response for `stall_seconds`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        return unsent > 0 and now - self._unsent_since >= self.stall_seconds

    def _body_time_limit(self) -> float:
        """Time limit for the whole body. What arrives after the response is discarded."""
        if not self._awaits_body():
            return self.stall_seconds
        return min(self.body_seconds, self.stall_seconds + self._body_bytes / self.body_bytes_a_second)

    def _time_out(self) -> None:
        if self._owed == _HEAD and self._unread:
            self._refuse(408, _TOO_SLOW)
        elif self._owed == _BODY and self._awaits_body():
            self._abort_body(SLOW)
        else:
            self.close()

    def _abort_body(self, fault: str) -> None:
        """Stop reading the body and let the application respond; the connection closes after that response."""
        self._owed = _ABORTED
        if self._reading is not None:
            self._reading.end_body(fault)

    def _make_room(self) -> bool:
        """Close a connection for this one; `False` if there is none to close.

        First the one that has been pending the longest, then the one that has been idle the longest. Many that are
        pending for a moment only are no crowd of clients, which send their requests at once.
        """
        others = [one for one in self._all() if one is not self]
        pending = [one for one in others if one._is_pending()]  # noqa: SLF001 - of this class, as below
        oldest = min(pending, key=_pending_since, default=None)
        idle = min((one for one in others if one._is_idle()), key=_idle_since, default=None)  # noqa: SLF001
        if oldest is not None:
            is_old = self._loop.time() - _pending_since(oldest) >= self.pending_seconds
            if is_old or (idle is None and len(pending) > (self._max_connections or 0) // 4):
                oldest.transport.abort()
                return True
        if idle is not None:
            idle.close()
        return idle is not None

    def _bound_address(self, addresses: Addresses) -> None:
        """Close the connections of this address that have been pending the longest, but for as many as it may have."""
        if addresses.exceeds(self._host):
            same = (one for one in self._all() if one._host == self._host)  # noqa: SLF001
            pending = sorted((one for one in same if one._is_pending()), key=_pending_since)  # noqa: SLF001
            for one in pending[: max(0, len(pending) - addresses.most_pending)]:
                if self._loop.time() - _pending_since(one) >= self.pending_seconds:
                    one.transport.abort()
            self._loop.call_later(self.pending_seconds, self._bound_address, addresses)

    def _all(self) -> Iterable[Connection]:
        return (one for one in self._state.connections if isinstance(one, Connection))

    @property
    def _host(self) -> str:
        return self._client[0] if self._client else ""

    def _is_pending(self) -> bool:
        """Whether the client owes a head, or a body without a known key."""
        if self._excess or self.transport.is_closing():
            return False
        if self._owed == _HEAD:
            return self._responding is None
        reading = self._reading
        if self._owed != _BODY or reading is None or reading is not self._responding:
            return False
        context = reading.scope.get("hubgate.context")
        return context is not None and context.key is None

    def _is_idle(self) -> bool:
        """Whether the client may send another request, and has sent nothing of it."""
        idle = self._served and self._responding is None and self._owed == _NOTHING
        return idle and not self.transport.is_closing()

    def _awaits_body(self) -> bool:
        """Whether a request without a response waits for its body."""
        return self._reading is not None and not self._reading.complete

    def _refuse(self, status: int, text: bytes) -> None:
        """Send an error response, unless another one has begun, and close."""
        if self._responding is None:
            head = (
                b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.write(STATUS_LINES[status] + head % len(text) + text)
        self.close()

    def _close_unused(self) -> None:
        if not self._served and not self._unread:
            self.close()


def _pending_since(one: Connection) -> float:
    return one._since if one._owed == _HEAD else one._body_since  # noqa: SLF001 - of this module


def _idle_since(one: Connection) -> float:
    return one._idle_since  # noqa: SLF001 - of this module


def _address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    address = transport.get_extra_info(name)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def _split(url: bytes) -> tuple[str, bytes, bytes]:
    """The path decoded, the path as it was sent, and the query."""
    if url[:1] == b"/" and b"?" not in url and b"%" not in url and b"#" not in url:
        return url.decode("ascii"), url, b""
    parsed = httptools.parse_url(url)
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""
