"""Sends webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpRequest, basic_credentials
from hubgate.upstreams.http.pool import PooledClient

_SECONDS = 15.0
_MAX_REPLY_BYTES = 1 << 20


class WebhookPost:
    """A POST to one URL. The operator sets the URL, so any address is allowed.

    The user name and the password of the URL are sent as `Authorization: Basic`.
    """

    def __init__(self, url: str) -> None:
        parsed = URL(url)
        self._url = str(parsed.with_user(None))
        credentials = basic_credentials(parsed)
        self._headers = {"authorization": credentials} if credentials else {}
        self._client = PooledClient(AddressRule(), keep_alive_seconds=0)

    async def __call__(self, headers: Mapping[str, str], body: bytes) -> int:
        request = HttpRequest(
            method="POST",
            url=self._url,
            headers={**headers, **self._headers},
            body=body,
            timeout=_SECONDS,
            max_reply_bytes=_MAX_REPLY_BYTES,
        )
        return (await self._client.send(request)).status
