"""The HTTP client: a pool of keep-alive connections on httptools.

It is our own because it decides what hubgate costs: a request takes a third of the time that it takes with aiohttp.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

from yarl import URL

from hubgate import __version__
from hubgate.domain.errors import InvalidEndpoint
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import MAX_ERROR_BYTES, Connection, decode_body
from hubgate.upstreams.http.dial import Origin, Resolve, connect, resolve_by_system, resolve_origin
from hubgate.upstreams.http.failures import (
    EXCHANGE_ERRORS,
    TooLarge,
    exchange_error,
    redirected,
    too_large,
)
from hubgate.upstreams.http.messages import HttpReply, HttpRequest, HttpStream
from hubgate.upstreams.http.proxy import ConnectionKey, Proxy, open_tunnel
from hubgate.upstreams.http.stream import STREAM_BUFFER_BYTES, PooledStream

CONNECT_SECONDS = 10.0
"""Timeout of each step of connecting: DNS, TCP, TLS, the proxy."""
TOTAL_SECONDS = 120.0
READ_SECONDS = 120.0
KEEP_ALIVE_SECONDS = 4.0
"""Less than the 5 s after which uvicorn (vLLM, SGLang, infinity) closes an idle connection, so that none is reused then."""
MAX_REPLY_BYTES = 16 * 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class PooledClient:
    """Implements `messages.HttpClient`: no cookies, no redirects, bounded replies, and the proxies that requests name.

    Args:
        rule: which addresses are allowed.
        resolve: resolves host names.
        connect_seconds: timeout of each step of connecting.
        total_seconds: timeout of an exchange, or until a stream begins; a request may have its own.
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
        self._busy: set[Connection] = set()
        self._reserved: set[Connection] = set()
        """Those of the busy ones that are being proven."""
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def send(self, request: HttpRequest) -> HttpReply:
        """Send a request; see `HttpClient`. Cancelling the caller closes the connection."""
        key = ConnectionKey.of(request.url, request.proxy, request.ca_bundle, self._rule)
        seconds = request.timeout or self._total_seconds
        limit = self._max_reply_bytes
        bound = limit if request.max_reply_bytes is None else min(request.max_reply_bytes, limit)
        try:
            connection, until = await self._start(request, key, bound, seconds)
            try:
                pieces = await connection.read_all(until)
                _note_reply(request)
            finally:
                self._release(connection, key)
            is_plain = len(pieces) == 1 and not connection.is_compressed
            body = pieces[0] if is_plain else await _decode(connection, pieces, bound)
        except TooLarge as error:
            raise too_large(key.where, bound, is_setting=bound == limit) from error
        except EXCHANGE_ERRORS as error:
            raise exchange_error(error, key.where, seconds) from error
        _reject_redirect(request, key, connection)
        return HttpReply(status=connection.status, headers=connection.headers, body=body)

    async def stream(self, request: HttpRequest) -> HttpStream:
        """Send a request; see `HttpClient`. Cancelling the caller closes the connection."""
        key = ConnectionKey.of(request.url, request.proxy, request.ca_bundle, self._rule)
        seconds = request.timeout or self._total_seconds
        try:
            connection, until = await self._start(request, key, STREAM_BUFFER_BYTES, seconds, streams=True)
            try:
                await connection.wait_for_head(until)
                _note_reply(request)
                _reject_redirect(request, key, connection)
            except BaseException:
                self._release(connection, key)
                raise
        except EXCHANGE_ERRORS as error:
            raise exchange_error(error, key.where, seconds) from error
        release = functools.partial(self._release, connection, key)
        return PooledStream(connection, release, key.where, request.read_timeout or self._read_seconds)

    async def close(self) -> None:
        if self._sweep_timer:
            self._sweep_timer.cancel()
        for connection in (*self._busy, *(idle for line in self._idle.values() for idle in line)):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # they end in the loop's next turn

    async def _start(
        self, request: HttpRequest, key: ConnectionKey, bound: int, seconds: float, *, streams: bool = False
    ) -> tuple[Connection, float]:
        """Send a request. Returns the connection, and the deadline of the reply on the loop's clock."""
        head = render_head(request, key.plain_proxy)
        connection, until = await self._acquire(request, key, seconds)
        try:
            if connection.send(head, request.body, bound, streams=streams):
                await connection.send_rest(request.body, until)
        except BaseException:
            self._release(connection, key)
            raise
        return connection, until

    async def _acquire(
        self, request: HttpRequest, key: ConnectionKey, seconds: float
    ) -> tuple[Connection, float]:
        """A connection on which the request can be sent now, and its deadline."""
        permit = request.permit
        if permit is not None and permit.connection is not None:  # a proof of that connection
            connection: Connection | None = cast("Connection", permit.connection)
        else:
            connection = self._take_idle(key)
        while True:
            if connection is None:
                until = asyncio.get_running_loop().time() + seconds
                connection = await self._open(key, until)
            else:
                until = connection.loop.time() + seconds
            self._busy.add(connection)
            if permit is None:
                return connection, until
            if permit.prove is not None:
                await self._prove(permit.prove, connection, key)
                until = connection.loop.time() + seconds
                # If the server closes it after each reply, a proof just before the call is all there can be.
                if connection.closed:
                    self._busy.discard(connection)
                    connection = await self._open(key, until)
                    self._busy.add(connection)
            if permit.try_send():
                return connection, until
            try:
                await permit.renew()  # connecting took too long; nothing was sent
            except BaseException:
                self._release(connection, key)
                raise
            if connection.closed:
                self._busy.discard(connection)
                connection = None

    async def _open(self, key: ConnectionKey, until: float) -> Connection:
        async with asyncio.timeout_at(until):
            return await self._connect(key)

    async def _prove(
        self, prove: Callable[[object], Awaitable[None]], connection: Connection, key: ConnectionKey
    ) -> None:
        """Let a proof send requests of its own on a connection that nobody else may take."""
        self._reserved.add(connection)
        try:
            await prove(connection)
        except BaseException:
            self._reserved.discard(connection)
            self._release(connection, key)
            raise
        self._reserved.discard(connection)

    def _release(self, connection: Connection, key: ConnectionKey) -> None:
        """Keep a connection for the next request, or close it if a part of this exchange is still to come."""
        if connection in self._reserved and connection.reusable:
            return
        self._busy.discard(connection)
        if not connection.reusable:
            connection.abort()
            return
        connection.idle_since = connection.loop.time()
        self._idle.setdefault(key, deque()).append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = connection.loop.call_later(self._keep_alive_seconds, self._sweep)

    def _take_idle(self, key: ConnectionKey) -> Connection | None:
        """The connection that was used last, unless the server may be closing it."""
        line = self._idle.get(key)
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
        for key, line in list(self._idle.items()):
            while line and (line[0].idle_since <= oldest or not line[0].reusable):
                line.popleft().abort()
            if not line:
                del self._idle[key]
        if self._idle:
            self._sweep_timer = loop.call_later(self._keep_alive_seconds / 2, self._sweep)


def render_head(request: HttpRequest, proxy: Proxy | None = None) -> bytes:
    """Request line and headers.

    Args:
        request: what to send.
        proxy: the proxy that forwards the request, if any: it needs the whole URL and the proxy's credentials.

    Raises:
        InvalidEndpoint: a header contains a line break.
    """
    headers = request.headers
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise InvalidEndpoint(
            "A header of this endpoint contains a line break.", remedy="Copy the token again."
        )
    accept = "" if "Accept" in headers else "Accept: application/json\r\n"
    encoding = "" if "Accept-Encoding" in headers else "Accept-Encoding: identity\r\n"
    length = f"Content-Length: {len(request.body)}\r\n" if request.body or request.method == "POST" else ""
    authorization = proxy.authorization if proxy else ""
    return _first_lines(request.method, request.url, whole_url=proxy is not None) + (
        f"{lines}{accept}{encoding}{authorization}{length}\r\n".encode("latin-1")
    )


@functools.lru_cache(maxsize=1024)
def _first_lines(method: str, url: str, *, whole_url: bool) -> bytes:
    parsed = URL(url)
    host = parsed.host_port_subcomponent
    target = f"{parsed.scheme}://{host}{parsed.raw_path_qs}" if whole_url else parsed.raw_path_qs
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hubgate/{__version__}\r\n".encode(
        "ascii"
    )


def _note_reply(request: HttpRequest) -> None:
    if request.permit is not None:
        request.permit.reply_started()


async def _decode(connection: Connection, pieces: list[bytes], bound: int) -> bytes:
    """The body; of an error page, its beginning."""
    is_error = connection.status >= 400
    limit = min(bound, MAX_ERROR_BYTES) if is_error else bound
    return await decode_body(pieces, limit, is_compressed=connection.is_compressed, is_whole=not is_error)


def _reject_redirect(request: HttpRequest, key: ConnectionKey, connection: Connection) -> None:
    if connection.status in _REDIRECTS:
        raise redirected(request.url, key.where, connection.headers.get("location"))
