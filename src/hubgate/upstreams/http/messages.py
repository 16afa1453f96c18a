"""What is sent to a server and what comes back, as values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hubgate.core.traffic.rate_limiter import Permit


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request. Headers and body may hold a token and texts, so neither is in its `repr`."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float | None = None
    """Seconds for the whole exchange, or until a stream begins; `None` is the client's own."""
    silence: float | None = None
    """Seconds between two pieces of a stream; `None` is the client's own."""
    max_reply_bytes: int | None = None
    """What an answer to this request can need at most, uncompressed; `None` if nobody can tell."""
    proxy: str | None = field(default=None, repr=False)
    """An HTTP proxy on the way, by URL; it may hold a password."""
    ca_bundle: str | None = None
    """A file of certificates that the server's is checked against, instead of the system's."""
    permit: Permit | None = field(default=None, repr=False)
    """The rate limit's permit that it is sent under, if a rate limit counts it."""


class ReplyHeaders(dict[str, str]):
    """Of a reply, by their names in lower case; looked up without regard to case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override] # no caller has another default
        """The value, or the default."""
        return super().get(name.lower(), default)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """One reply, read to its end. `headers` is looked up without regard to case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_html(self) -> bool:
        """Whether a page for people came back, as from a proxy or a log-in wall."""
        return (
            self.content_type in {"text/html", "application/xhtml+xml"}
            or self.body[:200].lstrip()[:1] == b"<"
        )


class HttpStream(Protocol):
    """A reply whose status and headers are in. Who opened it closes it."""

    @property
    def status(self) -> int:
        """The status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Looked up without regard to case."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives. What nobody asks for is not read from the socket, beyond a small buffer.

        Raises:
            UpstreamError: the connection breaks, or nothing comes for too long.
        """
        ...

    async def rest(self) -> HttpReply:
        """The whole reply, of a body that was not begun: an error's, or that of a server that does not stream.

        Raises:
            UpstreamError: as of the iteration.
        """
        ...

    async def finish(self) -> None:
        """Close it when all that matters was read: if the reply ends now, the connection can be used again."""
        ...

    async def aclose(self) -> None:
        """Close it at once, whatever is still to come; a second time does nothing."""
        ...


class HttpClient(Protocol):
    """Sends requests."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status (redirects excepted).

        Raises:
            UpstreamError: there is none, with its cause.
            InvalidEndpoint: the address may not be asked.
        """
        ...

    async def stream(self, request: HttpRequest) -> HttpStream:
        """The reply, whatever its status (redirects excepted), when its headers are in.

        Raises:
            UpstreamError: there is none, with its cause.
            InvalidEndpoint: the address may not be asked.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
