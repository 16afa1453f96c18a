"""One model server: where it is, the token for it, and what its refusals mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubgate.domain.errors import InvalidEndpoint
from hubgate.upstreams.replies import refusal
from hubgate.upstreams.urls import base_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubgate.domain.secret import Secret
    from hubgate.upstreams.messages import HttpClient, HttpReply, HttpRequest


class Server:
    """Sends requests to one base URL with its token.

    Raises:
        InvalidEndpoint: the URL or the token cannot be used.
    """

    def __init__(self, url: str, token: Secret | None, client: HttpClient) -> None:
        self.base = base_url(url)
        self.token = token
        self._client = client

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status.

        Raises:
            UpstreamError: there is none.
        """
        return await self._client.send(
            replace(request, headers={**request.headers, **_authorization(self.token)})
        )

    async def ask(self, request: HttpRequest) -> HttpReply:
        """The reply of a server that does what it is asked.

        Raises:
            UpstreamRefused: it answered with an error status.
            UpstreamError: there is no reply.
        """
        reply = await self.send(request)
        if reply.status >= 400:
            raise refusal(reply, self.token)
        return reply


def _authorization(token: Secret | None) -> Mapping[str, str]:
    """The header is built for each request, so that the open token is held nowhere but in its `Secret`."""
    if token is None:
        return {}
    text = token.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidEndpoint(
            "The token holds characters that no token has: spaces, line ends or letters beyond ASCII.",
            remedy="Copy it again.",
        )
    return {"Authorization": f"Bearer {text}"}
