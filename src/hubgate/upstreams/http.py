"""The HTTP client, on aiohttp: one pool of connections for all upstreams."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import aiohttp

from hubgate import __version__
from hubgate.domain.errors import Cause, UpstreamUnreachable
from hubgate.upstreams.failures import failure, too_large
from hubgate.upstreams.http_stream import AiohttpStream
from hubgate.upstreams.messages import HttpReply
from hubgate.upstreams.resolving import CheckedResolver, target, trusting
from hubgate.upstreams.urls import host_of

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from hubgate.upstreams.addresses import AddressRule
    from hubgate.upstreams.messages import HttpRequest, HttpStream

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 120.0
SILENCE_SECONDS = 120.0
"""Between two pieces of a stream."""
KEEP_ALIVE_SECONDS = 4.0
"""Under the 5 s after which uvicorn (vLLM, SGLang, infinity) closes an idle connection: no request meets a dead one."""
MAX_REPLY_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
"""More of an error page is not read."""
_LARGE_BODY_BYTES = 512 * 1024
_READ_AHEAD_BYTES = 1024 * 1024
"""Of a reply; aiohttp's own 64 KiB would stop and start the socket several times within one reply."""
_STREAM_AHEAD_BYTES = 64 * 1024
"""Of a stream: no more is held for a reader that is slow, twice over."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class AiohttpClient:
    """Sends requests: keep-alive, no cookies, no proxies of the environment, no redirects, bounded replies."""

    def __init__(
        self,
        rule: AddressRule,
        *,
        names: AbstractResolver | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self._rule = rule
        self._names = names
        self._connect_seconds = connect_seconds
        self._total_seconds = total_seconds
        self._silence_seconds = silence_seconds
        self._timeout = self._timeout_of(total_seconds)
        self._max_reply_bytes = max_reply_bytes
        self._session: aiohttp.ClientSession | None = None
        self._resolver: CheckedResolver

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply to a request. Cancelling the caller closes the connection.

        Raises:
            UpstreamUnreachable, UpstreamUnreadable: no reply, with the cause.
            InvalidEndpoint: the address may not be asked.
        """
        _, where = target(request.url, self._rule)
        try:
            timeout = self._timeout_of(request.timeout) if request.timeout else self._timeout
            async with await self._begin(request, timeout, _READ_AHEAD_BYTES) as response:
                body = await self._read(response, where)
                return HttpReply(status=response.status, headers=response.headers, body=body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise failure(error, where, request.timeout or self._total_seconds) from error

    async def stream(self, request: HttpRequest) -> HttpStream:
        """The reply to a request when its headers are in. Cancelling the caller closes the connection.

        Raises:
            UpstreamUnreachable, UpstreamUnreadable: no reply, with the cause.
            InvalidEndpoint: the address may not be asked.
        """
        _, where = target(request.url, self._rule)
        seconds = request.timeout or self._total_seconds
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds)
        try:
            async with asyncio.timeout(seconds):
                response = await self._begin(request, unlimited, _STREAM_AHEAD_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise failure(error, where, seconds) from error
        return AiohttpStream(response, where, request.silence or self._silence_seconds)

    async def _begin(
        self, request: HttpRequest, limits: aiohttp.ClientTimeout, read_ahead: int
    ) -> aiohttp.ClientResponse:
        """The reply whose headers are in; `read_ahead` bytes of its body are held, twice at most."""
        url, where = target(request.url, self._rule)
        proxy = target(request.proxy, self._rule)[0] if request.proxy else None
        response = await self._open_session().request(
            request.method,
            url,
            headers=request.headers,
            data=_payload(request.body),
            allow_redirects=False,
            timeout=limits,
            proxy=proxy,
            ssl=trusting(request.ca_bundle) if request.ca_bundle else True,
            read_bufsize=read_ahead,
        )
        if response.status in REDIRECTS:
            response.close()
            raise redirected(request.url, where, response.headers.get("Location", ""))
        return response

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            await self._resolver.close()

    def _timeout_of(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds, sock_connect=self._connect_seconds)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._resolver = CheckedResolver(self._rule, self._names or aiohttp.ThreadedResolver())
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver, limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"hubgate/{__version__}", "Accept": "application/json"},
                trust_env=False,
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse, where: str) -> bytes:
        is_error = response.status >= 400
        bound = MAX_ERROR_BYTES if is_error else self._max_reply_bytes
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > bound and is_error:
                break
            if size > bound:
                raise too_large(where, bound)
        return b"".join(chunks)


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """Large bodies are sent piece by piece, so that one write does not hold up the event loop."""
    return io.BytesIO(body) if len(body) > _LARGE_BODY_BYTES else body or None


def redirected(url: str, where: str, location: str) -> UpstreamUnreachable:
    """The error for a reply that sends its caller elsewhere."""
    try:
        aim = host_of(urljoin(url, location))
    except ValueError:
        aim = "a malformed address"
    return UpstreamUnreachable(
        f"{where} sends callers on to {aim}, and the gate does not follow: the token would go along.",
        remedy="Register that address instead, if it is the model server's.",
        cause=Cause.UPSTREAM_REDIRECTS,
        retryable=False,
    )
