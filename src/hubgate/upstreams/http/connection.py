"""One HTTP/1.1 connection to a server, on httptools: one exchange at a time. And how a body is decompressed."""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import httptools

from hubgate.core.off_loop import off_loop, total
from hubgate.core.traffic.outbox import Outbox
from hubgate.upstreams.http.failures import DecompressionError, HeadersTooLarge, NotHttp, TooLarge, Upgraded
from hubgate.upstreams.http.known_head import LastHead
from hubgate.upstreams.http.messages import ReplyHeaders

MAX_HEADER_BYTES = 64 * 1024
_HEADER_COST = 32
"""Added to the size of each header, as in HTTP/2: many small headers need as much memory as a few large ones."""
MAX_ERROR_BYTES = 64 * 1024
"""The rest of an error page is not read."""
WRITE_BYTES = 512 * 1024
"""Larger bodies are sent in pieces, so that one write does not hold up the event loop."""
_TURN_BYTES = 512 * 1024
"""After this much of a reply, other tasks get a turn: the event loop would read as long as data is there."""
_OK = 200
_SWITCHING_PROTOCOLS = 101
_SERVER_ERROR = 500
"""uvicorn (transformers serve, vLLM, infinity) closes the connection after this status without announcing it."""
_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})
_ZLIB_OR_GZIP = 47
"""zlib's `wbits` to detect which of the two it is."""
_MAX_RATIO = 1032
"""The most bytes that one compressed byte can become, by the format."""
_NO_TRANSPORT = cast("asyncio.Transport", None)
_CALLBACK_ERRORS = (Upgraded, HeadersTooLarge, TooLarge, DecompressionError)


class Connection(asyncio.Protocol):
    """Sends a request and receives the reply, whole or as a stream.

    It keeps the type of an error, not the exception: that would hold the frames which hold this connection, and a failed
    exchange would stay in memory until the garbage collector runs.
    """

    def __init__(self) -> None:
        self.transport = _NO_TRANSPORT
        self.loop = asyncio.get_running_loop()
        self._outbox = Outbox.of(self.loop)
        self._timer: asyncio.TimerHandle | None = None
        """Fires at the deadline or before: requests come so often that none has a timer of its own."""
        self._timer_at = math.inf
        self._parser: httptools.HttpResponseParser | None = None
        self._writable: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._last_head: LastHead | None = None
        """Until a reply that may have this head begins."""
        self.idle_since = 0.0
        self.idle_line: deque[Connection] = deque()
        """Where it waits for the next request; set by its pool."""
        self._chunks: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self._chunks.append
        """Called by the parser for each piece of the body; `_count_body` looks at all pieces of a read together."""
        self._reset(0, streams=False)

    def _reset(self, bound: int, *, streams: bool) -> None:
        self.status = 0
        self.headers = ReplyHeaders()
        self.headers.fields = {}
        self._bound = bound
        self._streams = streams
        self._chunks.clear()
        self._counted = self._held = self._head_size = self._unread = self._turn = self._left = 0
        self._has_head = self.is_over = self._paused = self._until_close = False
        self._reusable = self._unsent = False
        self.is_compressed = False
        self._error: type[Exception] | None = None
        self._deadline = math.inf
        """Of what is waited for, on the loop's clock."""

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: this exchange is complete, and the server keeps the connection.

        Not while reading is paused: the next reply would never arrive.
        """
        return self.is_over and self._reusable and not (self._closed or self._unsent or self._paused)

    @property
    def closed(self) -> bool:
        return self._closed

    def send(
        self, head: bytes, body: bytes, bound: int, last_head: LastHead | None = None, *, streams: bool
    ) -> bool:
        """Start an exchange. Returns whether `send_rest` has to follow, which sends a large body.

        Args:
            head: request line and headers.
            body: the whole body.
            bound: the most bytes of the reply's body, or of its buffer if it is streamed.
            last_head: of replies to such requests, for a reply that is not streamed.
            streams: whether the reply is read with `take`, not with `take_pieces`.
        """
        self._reset(bound, streams=streams)
        self._unsent = len(body) > WRITE_BYTES
        self._last_head = last_head
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        if self._unsent:
            self.transport.write(head)
        else:
            self._outbox.write(self.transport, head + body)
        return self._unsent

    async def send_rest(self, body: bytes, until: float) -> None:
        """Send a large body at the server's pace, until the server replies.

        Errors, and a deadline that passes (on the loop's clock), are raised when the reply is read.
        """
        for start in range(0, len(body), WRITE_BYTES):
            if self.is_over or self._error is not None or self._closed:
                return
            self.transport.write(body[start : start + WRITE_BYTES])
            if self._writable is not None:
                self._set_deadline(until)
                try:
                    await self._writable
                finally:
                    self._deadline = math.inf
        self._unsent = False

    async def wait_for_head(self, until: float) -> None:
        """Wait for status and headers, until a deadline on the loop's clock.

        Raises:
            OSError, NotHttp, Upgraded, HeadersTooLarge: they do not arrive. A TimeoutError is an OSError.
        """
        while not self._has_head:
            await self.news(until)

    def take_pieces(self) -> list[bytes]:
        """The pieces of the body, still compressed if it `is_compressed`."""
        pieces = self._chunks.copy()
        self._chunks.clear()
        return pieces

    def take(self) -> bytes | None:
        """The bytes that have arrived; empty at the end of the body. `None` if `news` must be awaited first."""
        chunks = self._chunks
        if not chunks:
            return b"" if self.is_over else None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._held = self._counted = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return data

    def news(self, until: float) -> asyncio.Future[None]:
        """What to wait for until something has arrived. `_fail` sets it too, at the deadline."""
        if self._error is not None:
            raise self._error
        self._set_deadline(until)
        waiter = self._waiter = self.loop.create_future()
        return waiter

    def abort(self) -> None:
        """End the connection at once."""
        self._closed, self._parser = True, None
        self._cancel_timer()
        self.transport.abort()

    def discard(self) -> None:
        """Drop a connection that was cancelled while it was being made.

        uvloop closes the transport of such a connection without calling `connection_lost`: without this, the two would
        refer to each other until the garbage collector runs.
        """
        if self.transport is not _NO_TRANSPORT:
            self.abort()
            self.transport = _NO_TRANSPORT

    def _set_deadline(self, until: float) -> None:
        self._deadline = until
        if until < self._timer_at:
            self._cancel_timer()
            self._timer, self._timer_at = self.loop.call_at(until, self._check_deadline), until

    def _check_deadline(self) -> None:
        """Fail if the deadline has passed; else wait until it does, if there is one."""
        self._timer, self._timer_at = None, math.inf
        if self._deadline <= self.loop.time():
            self._fail(TimeoutError)
        elif self._deadline < math.inf:
            self._set_deadline(self._deadline)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    def _wake(self) -> None:
        """Let the reader go on, unless it waits for a whole reply that is incomplete."""
        waiter = self._waiter
        if waiter is not None and (self._streams or self.is_over or self._error is not None):
            self._waiter, self._deadline = None, math.inf
            if not waiter.done():  # its reader was not cancelled
                waiter.set_result(None)
        if self.is_over and self._unsent:  # nobody needs the rest of the body any more
            self.resume_writing()

    def _fail(self, error: type[Exception]) -> None:
        if not self.is_over and self._error is None:
            self._error = error
            self._wake()
        self.abort()

    def _resume_reading(self) -> None:
        if not (self._closed or self._paused):
            self.transport.resume_reading()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Also called for TLS on top of a tunnel."""
        self.transport, self._parser = cast("asyncio.Transport", transport), None

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.is_over:  # not part of an exchange
            self.abort()
            return
        last, self._last_head = self._last_head, None
        if self._left:
            self._add_body(data)
        elif last is not None and (found := last.find(data)):
            self._begin_known(*found)
        else:
            self._parse(self._parser, data)
            if last is not None and self._reusable and not self.is_compressed:
                last.note(data, self.headers.fields)
        self._turn += len(data)
        if self._turn > _TURN_BYTES and not (self._closed or self._paused):
            self._turn = 0
            self.transport.pause_reading()
            self.loop.call_soon(self._resume_reading)

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        self._unread += len(data)
        try:
            parser.feed_data(data)
            if not self.is_over:
                self._count_body()
        except httptools.HttpParserCallbackError as error:
            kind = type(error.__context__)
            self._fail(kind if kind in _CALLBACK_ERRORS else NotHttp)
        except httptools.HttpParserError:
            self._fail(NotHttp)
        except TooLarge:
            self._fail(TooLarge)
        else:
            self._wake()
            # The parser buffers a header without an end.
            if self._unread > MAX_HEADER_BYTES and not self.is_over:
                self._fail(HeadersTooLarge)

    def _begin_known(self, fields: Mapping[bytes, bytes], number: bytes, body: bytes) -> None:
        """Begin a reply without the parser, which reads none of it."""
        self._left = int(number)
        if self._left > self._bound:
            self._fail(TooLarge)
            return
        self.status, self._has_head, self._reusable = _OK, True, True
        self.headers.fields = {**fields, b"content-length": number}
        self._add_body(body)

    def _add_body(self, data: bytes) -> None:
        """Add to the body of a reply with a known head."""
        left = self._left - len(data)
        if data:
            self._chunks.append(data if left >= 0 else data[:left])
        self._left = left
        if left <= 0:
            self.is_over = True
            self._wake()
            if left:  # more than the reply
                self.abort()

    def eof_received(self) -> bool:
        """The end of a body without a length."""
        if self._until_close and self._error is None:
            self.is_over = True
            self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed, self._parser = True, None
        self._cancel_timer()
        if not self.is_over and self._error is None:
            self._error = type(exc) if isinstance(exc, OSError) else ConnectionResetError
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self.is_over:  # a second reply to one request
            raise NotHttp

    def on_header(self, name: bytes, value: bytes) -> None:
        """Also called for trailers."""
        self._unread = 0
        self._head_size += len(name) + len(value) + _HEADER_COST
        if self._head_size > MAX_HEADER_BYTES:
            raise HeadersTooLarge
        key, fields = name.lower(), self.headers.fields
        fields[key] = value if key not in fields else b"%b, %b" % (fields[key], value)  # as RFC 9110 allows

    def on_headers_complete(self) -> None:
        parser = cast("httptools.HttpResponseParser", self._parser)
        self.status = parser.get_status_code()
        if self.status < 200:
            if self.status == _SWITCHING_PROTOCOLS:
                raise Upgraded
            return
        fields = self.headers.fields
        self._reusable = parser.should_keep_alive() and self.status != _SERVER_ERROR
        length = fields.get(b"content-length")
        self._until_close = not length and b"transfer-encoding" not in fields
        coding = fields.get(b"content-encoding")
        self.is_compressed = coding is not None and coding.strip().lower() in _CODINGS
        if self._streams and self.is_compressed:  # was not requested, and its size cannot be bounded
            raise DecompressionError
        if length and int(length) > self._bound and self.status < 400 and not self._streams:
            raise TooLarge
        self._has_head = True

    def on_message_complete(self) -> None:
        if self.status < 200:  # such as 103: the reply itself follows
            self.headers.fields.clear()
            return
        self._count_body()
        self.is_over = True

    def _count_body(self) -> None:
        """Bound what has arrived of the body.

        Raises:
            TooLarge: it is larger than the bound.
        """
        chunks = self._chunks
        if len(chunks) == self._counted:
            return
        self._unread = 0
        # Nearly every read is one piece.
        self._held += len(chunks[-1]) if len(chunks) - self._counted == 1 else total(chunks[self._counted :])
        self._counted = len(chunks)
        if self._streams:
            if self._held > self._bound and not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self.status >= 400 and self._held > MAX_ERROR_BYTES:
            self.is_over, self._reusable = True, False  # the rest of an error page is not read
        elif self._held > self._bound:
            raise TooLarge


async def decode_body(pieces: Sequence[bytes], bound: int, *, is_compressed: bool, is_whole: bool) -> bytes:
    """Join and decompress the pieces of a body; large ones off the event loop.

    Args:
        pieces: as they arrived.
        bound: the most bytes of the body; decompression stops there.
        is_compressed: whether they are compressed.
        is_whole: whether the whole body is needed; otherwise its beginning is enough.

    Raises:
        TooLarge: the body is larger.
        DecompressionError: the data is invalid or incomplete.
    """
    if is_compressed:
        size = min(total(pieces) * _MAX_RATIO, bound)
        return await off_loop(size, _decompress, pieces, bound, is_whole=is_whole)
    return pieces[0] if len(pieces) == 1 else await off_loop(total(pieces), b"".join, pieces)


def _decompress(pieces: Sequence[bytes], bound: int, *, is_whole: bool) -> bytes:
    decompressor = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)
    try:
        body = decompressor.decompress(b"".join(pieces), bound + 1)
    except zlib.error as error:
        raise DecompressionError from error
    if is_whole and len(body) > bound:
        raise TooLarge
    if is_whole and not decompressor.eof:
        raise DecompressionError
    return body
