"""What all routes for calls about texts have in common."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Protocol

from hubgate.domain.calls import Result
from hubgate.upstreams.engines.json_fields import encode, post
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

REPLY_OVERHEAD = 256 * 1024
"""Bytes of a reply beside its items. Also leaves room to recognise a larger model in place of the registered one."""


class ReportedTokens(Enum):
    """How far the token counts of a server can be trusted."""

    EXACT = auto()
    UNVERIFIED = auto()
    WRONG = auto()
    """infinity counts characters."""


class TextRoute(Protocol):
    """One route of a server: how to write a request, and how to read the reply."""

    @property
    def path(self) -> str:
        """Below the base URL."""
        ...

    def request(self, url: str, model: str | None, call: Any) -> HttpRequest:
        """The request for one call.

        Raises:
            InvalidRequest: the call needs something that this server does not do.
        """
        ...

    def max_reply_bytes(self, call: Any, request: HttpRequest, dimensions: int | None) -> int | None:
        """A generous upper bound for the size of the reply; `None` if there is no bound.

        `dimensions` are the model's, if they are known. Sizes are those of JSON as servers write it.
        """
        ...

    def read(self, call: Any, reply: HttpReply) -> Result:
        """The result of a call.

        Raises:
            UpstreamUnreadable: the reply does not contain it.
        """
        ...


def json_request(url: str, body: Mapping[str, object]) -> HttpRequest:
    """A POST of a JSON body.

    Raises:
        InvalidRequest: a text contains half of a surrogate pair.
    """
    return post(url, encode(body))


def counted_tokens(reply: HttpReply, reported: int | None, trust: ReportedTokens) -> tuple[int | None, bool]:
    """The tokens of a reply, from its body or else from TEI's header, and whether the number is exact."""
    tokens = header_number(reply, "x-compute-tokens") if reported is None else reported
    if trust is ReportedTokens.WRONG:
        tokens = None
    return tokens, tokens is not None and trust is ReportedTokens.EXACT


def header_number(reply: HttpReply, name: str) -> int | None:
    """A header's value, if it is a plausible number."""
    value = reply.headers.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
