"""The HTTP client: a pool of keep-alive connections on httptools.

It is our own because it decides what hubgate costs: a request takes a third of the time that it takes with aiohttp.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import msgspec
from yarl import URL

from hubgate import __version__
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.secret import Secret
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import MAX_ERROR_BYTES, WRITE_BYTES, Connection, decode_body
from hubgate.upstreams.http.dial import Origin, Resolve, connect, resolve_by_system, resolve_origin
from hubgate.upstreams.http.failures import (
    EXCHANGE_ERRORS,
    TooLarge,
    exchange_error,
    redirected,
    too_large,
)
from hubgate.upstreams.http.known_head import LastHead
from hubgate.upstreams.http.messages import HttpReply, HttpRequest, HttpStream, render_headers
from hubgate.upstreams.http.proxy import ConnectionKey, Proxy, open_tunnel
from hubgate.upstreams.http.stream import STREAM_BUFFER_BYTES, PooledStream

CONNECT_SECONDS = 10.0
"""Timeout of each step of connecting: DNS, TCP, TLS, the proxy."""
TOTAL_SECONDS = 120.0
GENERATION_SECONDS = 600.0
"""Timeout of a reply that generates text, or of a stream's first piece, if the endpoint has none of its own."""
READ_SECONDS = 120.0
KEEP_ALIVE_SECONDS = 4.0
"""Less than the 5 s after which uvicorn (vLLM, SGLang, infinity) closes an idle connection, so that none is reused then."""
MAX_REPLY_BYTES = 16 * 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_DESTINATIONS = 1024
_ACCEPT = b"Accept: application/json\r\n"
_ACCEPT_ENCODING = b"Accept-Encoding: identity\r\n"


class _Destination(msgspec.Struct, frozen=True):
    """What the requests of one method to one URL have in common, made once."""

    key: ConnectionKey
    first_lines: bytes
    """The first lines of the request."""
    usual_lines: bytes
    """The same of a request without headers of its own."""
    idle: deque[Connection]
    """The idle connections to it."""
    last_head: LastHead

    @property
    def where(self) -> str:
        """The name of the server in messages."""
        return self.key.where


class PooledClient:
    """Implements `messages.HttpClient`: no cookies, no redirects, bounded replies, and the proxies that requests name.

    Args:
        rule: which addresses are allowed.
        resolve: resolves host names.
        connect_seconds: timeout of each step of connecting.
        total_seconds: timeout of an exchange, or of the first piece of a stream; a request may have its own.
        read_seconds: timeout between two pieces of a stream; a request may have its own.
        keep_alive_seconds: how long an idle connection is kept.
        max_reply_bytes: of a whole reply, uncompressed; a request may set a smaller limit.
    """

    def __init__(
        self,
        rule: AddressRule,
        *,
        resolve: Resolve = resolve_by_system,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        read_seconds: float = READ_SECONDS,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self._rule = rule
        self._resolve = resolve
        self._connect_seconds = connect_seconds
        self._total_seconds = total_seconds
        self._read_seconds = read_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._max_reply_bytes = max_reply_bytes
        self._idle: dict[ConnectionKey, deque[Connection]] = {}
        self._destinations: dict[tuple[str, str, str | None, str | None], _Destination] = {}
        self._busy: set[Connection] = set()
        self._reserved: set[Connection] = set()
        """Those of the busy ones that are being proven."""
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def send(self, request: HttpRequest) -> HttpReply:
        """Send a request; see `HttpClient`. Cancelling the caller closes the connection."""
        to = self._destination(request)
        seconds = request.timeout or self._total_seconds
        limit = self._max_reply_bytes
        bound = limit if request.max_reply_bytes is None else min(request.max_reply_bytes, limit)
        try:
            connection = self._start_now(request, to, bound)
            if connection is not None:
                until = connection.loop.time() + seconds
            else:
                connection, until = await self._start(request, to, bound, seconds)
            try:
                while not connection.is_over:
                    await connection.news(until)
                pieces = connection.take_pieces()
                if request.permit is not None:
                    request.permit.reply_started()
            finally:
                self._release(connection)
            # Read now: another request may use the connection while the body is decoded.
            status, headers, is_compressed = connection.status, connection.headers, connection.is_compressed
            if len(pieces) == 1 and not is_compressed:
                body = pieces[0]
            else:
                body = await _decode(pieces, bound, status, is_compressed=is_compressed)
        except TooLarge as error:
            raise too_large(to.where, bound, is_setting=bound == limit) from error
        except EXCHANGE_ERRORS as error:
            raise exchange_error(error, to.where, seconds) from error
        if status < 300:
            return HttpReply(status=status, headers=headers, body=body)
        _reject_redirect(request, to, status, headers)
        reply = HttpReply(status=status, headers=headers, body=body)
        if status >= 400 and request.refused is not None:
            raise request.refused(request.token, reply)
        return reply

    async def stream(self, request: HttpRequest) -> HttpStream:
        """Send a request; see `HttpClient`. Cancelling the caller closes the connection."""
        to = self._destination(request)
        seconds = request.timeout or self._total_seconds
        try:
            connection, until = await self._start(request, to, STREAM_BUFFER_BYTES, seconds, streams=True)
            try:
                await connection.wait_for_head(until)
                if request.permit is not None:
                    request.permit.reply_started()
                _reject_redirect(request, to, connection.status, connection.headers)
            except BaseException:
                self._release(connection)
                raise
        except EXCHANGE_ERRORS as error:
            raise exchange_error(error, to.where, seconds) from error
        release = functools.partial(self._release, connection)
        read_timeout = request.read_timeout or self._read_seconds
        return PooledStream(connection, release, to.where, until=until, read_timeout=read_timeout)

    async def close(self) -> None:
        if self._sweep_timer:
            self._sweep_timer.cancel()
        for connection in tuple(self._busy):
            connection.abort()
        for line in self._idle.values():
            while line:
                line.pop().abort()
        await asyncio.sleep(0)  # they end in the loop's next turn

    def _destination(self, request: HttpRequest) -> _Destination:
        """Where a request goes.

        Raises:
            InvalidEndpoint: a URL is invalid, or its address is not allowed.
        """
        of = (request.method, request.url, request.proxy, request.ca_bundle)
        found = self._destinations.get(of)
        if found is None:
            if len(self._destinations) >= _MAX_DESTINATIONS:
                self._forget_destinations()
            key = ConnectionKey.of(request.url, request.proxy, request.ca_bundle, self._rule)
            lines = _first_lines(request.method, request.url, key.plain_proxy)
            idle = self._idle.setdefault(key, deque())
            found = _Destination(key, lines, lines + _ACCEPT + _ACCEPT_ENCODING, idle, LastHead())
            self._destinations[of] = found
        return found

    def _forget_destinations(self) -> None:
        self._destinations.clear()
        used = {id(connection.idle_line) for connection in self._busy}
        for key, line in list(self._idle.items()):
            if not line and id(line) not in used:
                del self._idle[key]

    def _start_now(self, request: HttpRequest, to: _Destination, bound: int) -> Connection | None:
        """Send a request on an idle connection; `None` if something has to be waited for first."""
        head, permit = _render_head(request, to), request.permit
        if len(request.body) > WRITE_BYTES or (permit and (permit.prove or permit.connection)):
            return None
        connection = self._take_idle(to.idle)
        if connection is None:
            return None
        if permit is not None and not permit.try_send():
            to.idle.append(connection)
            return None
        self._busy.add(connection)
        try:
            connection.send(head, request.body, bound, to.last_head, streams=False)
        except BaseException:
            self._release(connection)
            raise
        return connection

    async def _start(
        self, request: HttpRequest, to: _Destination, bound: int, seconds: float, *, streams: bool = False
    ) -> tuple[Connection, float]:
        """Send a request. Returns the connection, and the deadline of the reply on the loop's clock."""
        head = _render_head(request, to)
        connection, until = await self._acquire(request, to, seconds)
        try:
            last_head = None if streams else to.last_head
            if connection.send(head, request.body, bound, last_head, streams=streams):
                await connection.send_rest(request.body, until)
        except BaseException:
            self._release(connection)
            raise
        return connection, until

    async def _acquire(
        self, request: HttpRequest, to: _Destination, seconds: float
    ) -> tuple[Connection, float]:
        """A connection on which the request can be sent now, and its deadline."""
        permit = request.permit
        if permit is not None and permit.connection is not None:  # a proof of that connection
            connection: Connection | None = cast("Connection", permit.connection)
        else:
            connection = self._take_idle(to.idle)
        while True:
            if connection is None:
                until = asyncio.get_running_loop().time() + seconds
                connection = await self._open(to, until)
            else:
                until = connection.loop.time() + seconds
            self._busy.add(connection)
            if permit is None:
                return connection, until
            if permit.prove is not None:
                await self._prove(permit.prove, connection)
                until = connection.loop.time() + seconds
                # If the server closes it after each reply, a proof just before the call is all there can be.
                if connection.closed:
                    self._busy.discard(connection)
                    connection = await self._open(to, until)
                    self._busy.add(connection)
            if permit.try_send():
                return connection, until
            try:
                await permit.renew()  # connecting took too long; nothing was sent
            except BaseException:
                self._release(connection)
                raise
            if connection.closed:
                self._busy.discard(connection)
                connection = None

    async def _open(self, to: _Destination, until: float) -> Connection:
        async with asyncio.timeout_at(until):
            connection = await self._connect(to.key)
        connection.idle_line = to.idle
        return connection

    async def _prove(self, prove: Callable[[object], Awaitable[None]], connection: Connection) -> None:
        """Let a proof send requests of its own on a connection that nobody else may take."""
        self._reserved.add(connection)
        try:
            await prove(connection)
        except BaseException:
            self._reserved.discard(connection)
            self._release(connection)
            raise
        self._reserved.discard(connection)

    def _release(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it if a part of this exchange is still to come."""
        reusable = connection.reusable
        if reusable and connection in self._reserved:
            return
        self._busy.discard(connection)
        if not reusable:
            connection.abort()
            return
        connection.idle_since = connection.loop.time()
        connection.idle_line.append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = connection.loop.call_later(self._keep_alive_seconds, self._sweep)

    def _take_idle(self, line: deque[Connection]) -> Connection | None:
        """The connection that was used last, unless the server may be closing it."""
        while line:
            connection = line.pop()
            if (
                connection.reusable
                and connection.idle_since > connection.loop.time() - self._keep_alive_seconds
            ):
                return connection
            connection.abort()
        return None

    async def _connect(self, key: ConnectionKey) -> Connection:
        """Connect to the server, if necessary through its proxy."""
        proxy, origin = key.proxy, key.origin
        if proxy is None:
            return await self._dial(origin, key.where)
        connection = await self._dial(proxy.origin, proxy.name)
        if origin.is_tls:
            await open_tunnel(connection, proxy, origin, key.where, self._connect_seconds)
        return connection

    async def _dial(self, origin: Origin, where: str) -> Connection:
        seconds = self._connect_seconds
        addresses = await resolve_origin(origin, self._rule, self._resolve, where, seconds)
        return await connect(origin, addresses, where, seconds, tls=origin.is_tls)

    def _sweep(self) -> None:
        """Close the connections that were idle for too long."""
        loop, self._sweep_timer = asyncio.get_running_loop(), None
        oldest = loop.time() - self._keep_alive_seconds
        for line in self._idle.values():
            while line and (line[0].idle_since <= oldest or not line[0].reusable):
                line.popleft().abort()
        if any(self._idle.values()):
            self._sweep_timer = loop.call_later(self._keep_alive_seconds / 2, self._sweep)


def _render_head(request: HttpRequest, to: _Destination) -> bytes:
    """Request line and headers.

    Raises:
        InvalidEndpoint: a header contains a line break, or the token has letters that no token has.
    """
    first, lines, body = to.usual_lines, request.lines, request.body
    if headers := request.headers:
        first = to.first_lines
        lines += (b"" if "Accept" in headers else _ACCEPT) + (
            b"" if "Accept-Encoding" in headers else _ACCEPT_ENCODING
        )
        lines += render_headers(headers)
    if request.token is not None:
        lines += _authorization(request.token)
    if body or request.method == "POST":
        return b"%b%bContent-Length: %d\r\n\r\n" % (first, lines, len(body))
    return b"%b%b\r\n" % (first, lines)


async def _decode(pieces: list[bytes], bound: int, status: int, *, is_compressed: bool) -> bytes:
    """The body; of an error page, its beginning."""
    is_error = status >= 400
    limit = min(bound, MAX_ERROR_BYTES) if is_error else bound
    return await decode_body(pieces, limit, is_compressed=is_compressed, is_whole=not is_error)


def _first_lines(method: str, url: str, proxy: Proxy | None) -> bytes:
    """Request line, host, program, and what a proxy that forwards the request wants: the whole URL, and credentials."""
    parsed = URL(url)
    host = parsed.host_port_subcomponent
    target = f"{parsed.scheme}://{host}{parsed.raw_path_qs}" if proxy else parsed.raw_path_qs
    authorization = proxy.authorization if proxy else ""
    lines = (
        f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hubgate/{__version__}\r\n{authorization}"
    )
    return lines.encode("ascii")


def _authorization(token: Secret) -> bytes:
    """Built for each request, so that the plain token is stored nowhere but in its `Secret`."""
    text = token.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidEndpoint(
            "The token contains spaces, line breaks or non-ASCII letters, which no token has.",
            remedy="Copy it again.",
        )
    return b"Authorization: Bearer %b\r\n" % text.encode()


def _reject_redirect(request: HttpRequest, to: _Destination, status: int, headers: Mapping[str, str]) -> None:
    if status in _REDIRECTS:
        raise redirected(request.url, to.where, headers.get("location", ""))
