"""One request and its response, as `receive` and `send` of ASGI."""

from __future__ import annotations

import asyncio
import http
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from hubgate.web.http.asgi import render_headers
from hubgate.web.http.body import ARRIVED, FAULT, ON_DISCONNECT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from hubgate.cli.server.connection import Connection
    from hubgate.web.http.asgi import AsgiApp, Message, Scope

Header: TypeAlias = tuple[bytes, bytes]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAILED = b"Internal Server Error"
_MAX_UNREAD_BYTES = 64 * 1024
"""Of a body: when the application has as many to read, no more is read from the client."""
_MAX_JOINED_BYTES = 16 * 1024
_MOST_UNSENT = 64 * 1024
"""Bytes for which a finished response does not wait."""
_CHUNKED = -1

_KNOWN = frozenset(http.HTTPStatus)

_log = logging.getLogger(__name__)


def _status_line(status: int) -> bytes:
    phrase = http.HTTPStatus(status).phrase if status in _KNOWN else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class Cycle:
    """A request and its response.

    Args:
        connection: on which they are sent.
        scope: of the request.
        keep_alive: whether the client accepts another response on this connection.
        expects_continue: whether it sends the body only after `100 Continue`.
        more_body: whether more of the request's body may come than what has `ARRIVED`.
    """

    __slots__ = (
        "_connection",
        "_expects_continue",
        "_head",
        "_left",
        "_news",
        "_parts",
        "_reads",
        "_size",
        "_unread",
        "complete",
        "disconnected",
        "head_digest",
        "keep_alive",
        "more_body",
        "scope",
        "started",
        "task",
    )

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        *,
        keep_alive: bool = True,
        expects_continue: bool = False,
        more_body: bool = True,
    ) -> None:
        self._connection = connection
        self._expects_continue = expects_continue
        self._head = b""
        """The start of the response, which is sent with the first bytes of its body."""
        self._left = 0
        """Bytes of the response that are still to come; `_CHUNKED` if that is not known."""
        self._parts: list[bytes] = []
        self._size = 0
        self._reads = False
        """Whether `receive` was called."""
        self._unread = False
        """Whether there is something that `receive` has not returned yet."""
        self._news: asyncio.Event | None = None
        """For a `receive` that waits."""
        self.scope = scope
        self.keep_alive = keep_alive
        self.more_body = more_body
        self.head_digest = b""
        """If other requests may have the same head: see `KnownHeads`."""
        self.task: asyncio.Task[None] | None = None
        """What answers the request, while it does: the guard cancels it when the client leaves."""
        self.started = self.complete = self.disconnected = False
        """Of the response; whether the client left before it was complete."""

    async def run(self, app: AsgiApp) -> None:
        try:
            await app(self.scope, self.receive, self)
        except BaseException:  # noqa: BLE001 - also of a second signal
            _log.exception("a request was not answered")
        finally:
            self._connection.on_task_end(self)
        if not self.complete and not self.disconnected:
            self._fail()

    async def receive(self) -> Message:
        connection, self._reads = self._connection, True
        if self._expects_continue and not self.started:
            self._expects_continue = False
            connection.write(_CONTINUE)
        if not self.complete and not self.disconnected:
            connection.resume_reading()
            arrived: bytes | None = self.scope.pop(ARRIVED, None)
            if arrived is not None:
                return {"type": "http.request", "body": arrived, "more_body": False}
            if not self._unread:
                self._news = self._news or asyncio.Event()
                self._news.clear()
                await self._news.wait()
            self._unread = False
        if self.complete or self.disconnected:
            return {"type": "http.disconnect"}
        parts, self._parts, self._size = self._parts, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a part of the response. What is returned waits while the client does not read fast enough."""
        if self._connection.unwritable is not None:
            return self._send_later(self, message)
        self._send(message)
        return _DONE

    def send_whole(self, status: int, lines: bytes, body: bytes) -> Awaitable[None]:
        """Send a whole response, with less work than in parts.

        Args:
            status: of the response.
            lines: its headers, as `render_headers` makes them, with `Content-Length`.
            body: of the response.
        """
        if self._connection.unwritable is not None:
            return self._send_later(self.send_whole, status, lines, body)
        if self.disconnected:
            return _DONE
        if self.started:
            raise RuntimeError("the response has begun")
        self.started = True
        default, closes = self._connection.default_headers()
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines += b"connection: close\r\n"
        if self.scope["method"] == "HEAD":
            body = b""
        self._write(b"%b%b%b\r\n" % (STATUS_LINES[status], default, lines), body)
        self._end()
        return _DONE

    async def flush(self) -> None:
        """Wait until the client has read what was sent, or most of it, or has left."""
        if self._connection.transport.get_write_buffer_size() <= _MOST_UNSENT:
            return
        await asyncio.sleep(0)  # the transport says in the next turn that it holds too much
        while (full := self._connection.unwritable) is not None:
            await full.wait()

    async def _send_later(self, send: Callable[..., Awaitable[None]], *response: Any) -> None:
        while (full := self._connection.unwritable) is not None:
            await full.wait()
        await send(*response)

    def _send(self, message: Message) -> None:
        if self.disconnected:
            return
        kind, due = message["type"], "http.response.body" if self.started else "http.response.start"
        if self.complete or kind != due:
            raise RuntimeError(f"{kind} is not the next message of this response")
        if not self.started:
            self._head = self._render_head(message["status"], message.get("headers", ()))
            self.started = True
            return
        more = message.get("more_body", False)
        body = self._framed(message.get("body", b""), more=more)
        if self._head and (body or not more):
            head, self._head = self._head, b""
            self._write(head, body)
        elif body:
            self._connection.write(body)
        if not more:
            if self._left > 0:
                raise RuntimeError("the response is shorter than its Content-Length")
            self._end()

    def _write(self, head: bytes, body: bytes) -> None:
        if len(body) <= _MAX_JOINED_BYTES:  # joining costs less than a second write
            self._connection.write(head + body)
        else:
            self._connection.write(head, body)

    def _end(self) -> None:
        self.complete, self._parts = True, []
        if self._news is not None:
            self._news.set()
        self._connection.on_response_complete(self)

    def _render_head(self, status: int, headers: Iterable[Header]) -> bytes:
        """The status line and the headers. Raises: RuntimeError, see `render_headers`."""
        default, closes = self._connection.default_headers()
        named = dict(headers := list(headers))
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self._left = 0
        elif b"content-length" in named:
            self._left = int(named[b"content-length"])
        else:
            self._left = _CHUNKED
            if b"transfer-encoding" not in named:
                headers.append((b"transfer-encoding", b"chunked"))
        if closes or b"close" in named.get(b"connection", b"").lower():
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        return b"%b%b%b\r\n" % (STATUS_LINES[status], default, render_headers(headers))

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        """A part of the body as it is sent."""
        if self._left == _CHUNKED:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self.scope["method"] == "HEAD":
            return b""
        self._left -= len(body)
        if self._left < 0:
            raise RuntimeError("the response is longer than its Content-Length")
        return body

    def add_body(self, part: bytes) -> None:
        """A part of the request's body has arrived."""
        if self.complete:
            return
        self._parts.append(part)
        self._size += len(part)
        if self._size > _MAX_UNREAD_BYTES:
            self._connection.pause_reading()
        self._wake()

    def end_body(self, fault: str | None = None) -> None:
        """No more of the body comes: it is complete, or nothing is read after a fault in it."""
        self.more_body = False
        if fault:
            self.scope[FAULT] = fault
            self.keep_alive = False
        elif not self._reads and self._size <= _MAX_UNREAD_BYTES:
            parts, self._parts, self._unread = self._parts, [], False
            self.scope[ARRIVED] = parts[0] if len(parts) == 1 else b"".join(parts)
            return
        self._wake()

    def disconnect(self) -> None:
        """The client has left."""
        if not self.complete:
            self.disconnected = True
            self.scope.pop(ARRIVED, None)  # the reader is to see that the client has left
            self._wake()
            if ON_DISCONNECT in self.scope:
                self.scope[ON_DISCONNECT]()

    def _wake(self) -> None:
        self._unread = True
        if self._news is not None:
            self._news.set()

    def _fail(self) -> None:
        """Close the connection, after an error response if nothing was sent yet."""
        if self.started and not self._head:
            self._connection.close()
            return
        self.started = self.keep_alive = False
        length = b"%d" % len(_FAILED)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", length)]
        self._send({"type": "http.response.start", "status": 500, "headers": headers})
        self._send({"type": "http.response.body", "body": _FAILED})


class _Done:
    """An awaitable that is done."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE = _Done()
