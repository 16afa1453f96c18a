"""One HTTP/1.1 connection to a server, on httptools: one exchange at a time."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from hubgate.upstreams.http.decompress import PACKED
from hubgate.upstreams.http.failures import HeadersTooLarge, NotHttp, TooLarge, Unpackable
from hubgate.upstreams.http.messages import ReplyHeaders

MAX_HEADER_BYTES = 64 * 1024
_HEADER_COST = 32
"""Bytes that a header counts for besides its own, as in HTTP/2: many small ones are no cheaper to hold."""
MAX_ERROR_BYTES = 64 * 1024
"""More of an error page is not read."""
_PIECE_BYTES = 512 * 1024
"""Larger bodies are sent piece by piece, so that one write does not hold up the event loop."""
_TURN_BYTES = 512 * 1024
"""After so many bytes of a reply the rest waits for the next turn of the event loop, which would read on while it can."""
_CRASHED = 500
"""After this one uvicorn (transformers serve, vLLM, infinity) closes the connection, and its reply does not say so."""
_NO_TRANSPORT = cast("asyncio.Transport", None)
_TOLD_BY_CALLBACKS = (HeadersTooLarge, TooLarge, Unpackable)


class Connection(asyncio.Protocol):
    """Sends a request and takes the reply, whole or as it comes.

    Of what went wrong it keeps the type alone: an exception that was raised holds the frames it passed through, and
    they hold this connection. So a failed exchange is freed as soon as it is over, with its request and its reply.
    """

    def __init__(self) -> None:
        self.transport = _NO_TRANSPORT
        self._parser: httptools.HttpResponseParser | None = None
        self._writable: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.idle_since = 0.0
        self._reset(0, streams=False)

    def _reset(self, bound: int, *, streams: bool) -> None:
        self.status = 0
        self.headers = ReplyHeaders()
        self._bound = bound
        self._streams = streams
        self._chunks: list[bytes] = []
        self._held = self._head_size = self._unread = self._turn = 0
        self._begun = self._over = self._paused = self._until_close = self._reusable = self._unsent = False
        self.packed = False
        self._error: type[Exception] | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last one and its reply are whole, and the server keeps the connection.

        While reading is paused the server's next reply would never come.
        """
        return self._over and self._reusable and not (self._closed or self._unsent or self._paused)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    def send(self, head: bytes, body: bytes, bound: int, *, streams: bool) -> None:
        """Begin an exchange; a body beyond one piece is to be sent by `send_rest`.

        Args:
            head: request line and headers.
            body: the whole body.
            bound: bytes that the reply's body may have.
            streams: whether the reply is taken as it comes; the bound is then of what waits to be taken.
        """
        self._reset(bound, streams=streams)
        self._unsent = len(body) > _PIECE_BYTES
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(head if self._unsent else head + body)

    async def send_rest(self, body: bytes, until: float) -> None:
        """Send a body piece by piece, as the server takes it; one that answers early need not take it all.

        What fails, or takes longer than until then on the loop's clock, is told by whoever waits for the reply.
        """
        if not self._unsent:
            return
        for start in range(0, len(body), _PIECE_BYTES):
            if self._over or self._error is not None or self._closed:
                return
            self.transport.write(body[start : start + _PIECE_BYTES])
            if self._writable is not None:
                await self._in_time(self._writable, until)
        self._unsent = False

    async def begun(self, until: float) -> None:
        """Wait until status and headers are in, or until then on the loop's clock.

        Raises:
            OSError, NotHttp, HeadersTooLarge: they do not come. A TimeoutError is an OSError.
        """
        while not self._begun:
            await self._something(until)

    async def whole(self, until: float) -> list[bytes]:
        """Wait until the reply is complete; the pieces of its body, still compressed if it is `packed`."""
        while not self._over:
            await self._something(until)
        chunks, self._chunks = self._chunks, []
        return chunks

    async def some(self, seconds: float) -> bytes:
        """What has come of the body since, or the next that comes within so many seconds; nothing at its end."""
        if not self._chunks and not self._over:
            until = asyncio.get_running_loop().time() + seconds
            while not self._chunks and not self._over:
                await self._something(until)
        chunks, self._chunks, self._held = self._chunks, [], 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def abort(self) -> None:
        """End the connection at once."""
        self._closed, self._parser = True, None
        self.transport.abort()

    def discard(self) -> None:
        """Drop a connection that was cancelled while it was being made.

        uvloop closes the transport of such a connection without calling `connection_lost`: without this, the two would
        refer to each other until the garbage collector runs.
        """
        if self.transport is not _NO_TRANSPORT:
            self.abort()
            self.transport = _NO_TRANSPORT

    async def _something(self, until: float) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._in_time(self._waiter, until)
        finally:
            self._waiter = None

    async def _in_time(self, event: asyncio.Future[None], until: float) -> None:
        """Wait for it; at the end of the time fail, which sets it too. `asyncio.timeout` costs four times as much."""
        timer = event.get_loop().call_at(until, self._fail, TimeoutError)
        try:
            await event
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._over and self._unsent:  # the rest of the body would be sent for nothing
            self.resume_writing()

    def _fail(self, error: type[Exception]) -> None:
        if not self._over and self._error is None:
            self._error = error
            self._wake()
        self.abort()

    def _read_on(self) -> None:
        if not (self._closed or self._paused):
            self.transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there; a second time, with TLS on top of the first."""
        self.transport, self._parser = cast("asyncio.Transport", transport), None

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._parser is None or self._over:  # nobody asked for them
            self.abort()
            return
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            kind = type(error.__context__)
            self._fail(kind if kind in _TOLD_BY_CALLBACKS else NotHttp)
        except httptools.HttpParserError:
            self._fail(NotHttp)
        else:
            # The parser gathers a header without an end.
            if self._unread > MAX_HEADER_BYTES and not self._over:
                self._fail(HeadersTooLarge)
            self._turn += len(data)
            if self._turn > _TURN_BYTES and not (self._closed or self._paused):
                self._turn = 0
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._read_on)

    def eof_received(self) -> bool:
        """The server sends no more: the end of a body without a length."""
        if self._until_close and self._error is None:
            self._over = True
            self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._closed, self._parser = True, None
        if not self._over and self._error is None:
            self._error = type(exc) if isinstance(exc, OSError) else ConnectionResetError
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The server takes no more for now."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It takes more."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A reply; another one was not asked for."""
        if self._over:
            raise NotHttp

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._unread = 0
        self._head_size += len(name) + len(value) + _HEADER_COST
        if self._head_size > MAX_HEADER_BYTES:
            raise HeadersTooLarge
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Status and headers are in."""
        parser = cast("httptools.HttpResponseParser", self._parser)
        self.status = parser.get_status_code()
        if self.status < 200:
            return
        headers = self.headers
        self._reusable = parser.should_keep_alive() and self.status != _CRASHED
        length = headers.get("content-length")
        self._until_close = not length and "transfer-encoding" not in headers
        self.packed = headers.get("content-encoding").strip().lower() in PACKED
        if (
            self._streams and self.packed
        ):  # its size is not known before it is unpacked, and nobody asked for it
            raise Unpackable
        if length and int(length) > self._bound and self.status < 400 and not self._streams:
            raise TooLarge
        self._begun = True
        if self._streams:
            self._wake()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._unread = 0
        if self._over:  # of an error page, and more than is read of it
            return
        self._chunks.append(data)
        self._held += len(data)
        if self._streams:
            if self._held > self._bound and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            self._wake()
        elif self.status >= 400 and self._held > MAX_ERROR_BYTES:
            self._over, self._reusable = True, False
            self._wake()
        elif self._held > self._bound:
            raise TooLarge

    def on_message_complete(self) -> None:
        """The reply is whole."""
        if self.status < 200:  # 103 and the like: the reply itself is still to come
            self.headers.clear()
            return
        self._over = True
        self._wake()
