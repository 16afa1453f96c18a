"""What is sent to a server and what comes back, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request. Headers and body may hold a token and texts, so neither is in its `repr`."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float | None = None
    """Seconds for the whole exchange; `None` is the client's own."""


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


class HttpClient(Protocol):
    """Sends requests."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status (redirects excepted).

        Raises:
            UpstreamError: there is none, with its cause.
            InvalidEndpoint: the address may not be asked.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
