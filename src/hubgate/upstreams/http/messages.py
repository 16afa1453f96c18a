"""Requests and replies as values, and the port of HTTP clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hubgate.core.traffic.rate_limiter import Permit


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request. Headers and body may contain a token and texts, so neither is in its `repr`."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float | None = None
    """Seconds for the whole exchange, or until a stream begins; `None`: the client's default."""
    read_timeout: float | None = None
    """Seconds between two pieces of a stream; `None`: the client's default."""
    max_reply_bytes: int | None = None
    """The largest reply that makes sense for this request, uncompressed; `None` if unknown."""
    proxy: str | None = field(default=None, repr=False)
    """The URL of an HTTP proxy; it may contain a password."""
    ca_bundle: str | None = None
    """A file of certificates to verify the server's with, instead of the system's."""
    permit: Permit | None = field(default=None, repr=False)
    """The rate limit's permit, if the request counts against a rate limit."""


class ReplyHeaders(dict[str, str]):
    """Headers with their names in lower case. Look-ups ignore case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override] # no caller has another default
        return super().get(name.lower(), default)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """A complete reply. Look-ups in `headers` ignore case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_html(self) -> bool:
        """Whether it is a web page, as from a proxy or a login form."""
        return (
            self.content_type in {"text/html", "application/xhtml+xml"}
            or self.body[:200].lstrip()[:1] == b"<"
        )


class HttpStream(Protocol):
    """A reply whose status and headers have arrived. Whoever opened it closes it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Look-ups ignore case."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Beyond a small buffer, the socket is read only as fast as this is.

        Raises:
            UpstreamError: the connection breaks, or nothing arrives within the read timeout.
        """
        ...

    async def rest(self) -> HttpReply:
        """The whole reply, if it is an error or the server does not stream. An overlong body is cut.

        Raises:
            UpstreamError: as the iteration.
        """
        ...

    async def finish(self) -> None:
        """Close it once everything of interest was read. If the reply ends now, the connection can be reused."""
        ...

    async def aclose(self) -> None:
        """Close it at once. Can be called again."""
        ...


class HttpClient(Protocol):
    async def send(self, request: HttpRequest) -> HttpReply:
        """Send a request; the reply, of any status except redirects.

        Raises:
            UpstreamError: there is no reply, with the cause.
            InvalidEndpoint: the address is not allowed.
        """
        ...

    async def stream(self, request: HttpRequest) -> HttpStream:
        """Send a request; the reply once its headers have arrived, of any status except redirects.

        Raises:
            UpstreamError: there is no reply, with the cause.
            InvalidEndpoint: the address is not allowed.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
