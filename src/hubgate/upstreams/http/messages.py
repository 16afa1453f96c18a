"""Requests and replies as values, and the port of HTTP clients."""

from __future__ import annotations

import base64
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

import msgspec
from yarl import URL

from hubgate.core.traffic.permits import Permit
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.secret import Secret

_JSON = "application/json"
_HTML = frozenset({"text/html", "application/xhtml+xml"})


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Headers and body may contain a token and texts, so neither is in its `repr`."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    lines: bytes = b""
    """More headers, rendered by whoever sends the same ones with each request; see `render_headers`."""
    token: Secret | None = None
    """Sent as `Authorization`. The text of the header is kept nowhere."""
    body: bytes = b""
    timeout: float | None = None
    """Seconds for the whole exchange, or until a stream begins; `None`: the client's default."""
    read_timeout: float | None = None
    """Seconds between two pieces of a stream; `None`: the client's default."""
    max_reply_bytes: int | None = None
    """The largest reply that makes sense for this request, uncompressed; `None` if unknown."""
    proxy: str | None = None
    """The URL of an HTTP proxy; it may contain a password."""
    ca_bundle: str | None = None
    """A file of certificates to verify the server's with, instead of the system's."""
    permit: Permit | None = None
    """The rate limit's permit, if the request counts against a rate limit."""
    refused: Callable[[Secret | None, HttpReply], Exception] | None = None
    """Makes the error of a whole reply with an error status, from the token and the reply; `None`: such a reply is returned."""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url})"


def render_headers(headers: Mapping[str, str]) -> bytes:
    """Header lines.

    Raises:
        InvalidEndpoint: a header contains a line break.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise InvalidEndpoint(
            "A header of this endpoint contains a line break.", remedy="Copy the token again."
        )
    return lines.encode("latin-1")


def basic_credentials(url: URL) -> str:
    """The value of an Authorization header for the user name and the password of a URL; empty if it has none."""
    if url.user is None and url.password is None:
        return ""
    credentials = f"{url.user or ''}:{url.password or ''}"
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


class ReplyHeaders(Mapping[str, str]):
    """Headers, decoded when they are read: most are not. Look-ups ignore case."""

    __slots__ = ("fields",)
    fields: dict[bytes, bytes]
    """By their names in lower case. Set by whoever makes this: an `__init__` would double the time that takes."""

    def __getitem__(self, name: str) -> str:
        return self.fields[_field_name(name)].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override] # no caller has another default
        value = self.fields.get(_field_name(name))
        return default if value is None else value.decode("latin-1")


@functools.lru_cache(maxsize=256)
def _field_name(name: str) -> bytes:
    return name.lower().encode("latin-1")


class HttpReply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete reply. Look-ups in `headers` ignore case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"HttpReply({self.status})"

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        value = self.headers.get("content-type", "")
        return value if value == _JSON else value.partition(";")[0].strip().lower()

    @property
    def is_html(self) -> bool:
        """Whether it is a web page, as from a proxy or a login form."""
        begin = self.body[:1]
        if begin == b"{" or begin == b"[":  # noqa: PLR1714 - twice as fast
            return False  # some handlers send JSON as `text/html`, their framework's default
        return self.content_type in _HTML or self.body[:200].lstrip()[:1] == b"<"


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

    async def read(self) -> bytes:
        """The next bytes of the body, as in the iteration; empty at its end."""
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
    def send(self, request: HttpRequest) -> Coroutine[Any, Any, HttpReply]:
        """Send a request; the reply, of any status except redirects.

        Raises:
            Exception: what `HttpRequest.refused` made of an error status.
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
