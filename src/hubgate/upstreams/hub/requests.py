"""Questions to Hugging Face's own interfaces: small JSON, asked rarely, and no sooner than they allow.

This is not huggingface_hub's `HfApi`: its calls block, know no time limit, and hide the RateLimit headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
from yarl import URL

from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InvalidEndpoint,
    InvalidRequest,
    UpstreamRefused,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.upstreams.engines.replies.causes import ABOUT_THE_TOKEN
from hubgate.upstreams.engines.replies.errors import (
    MAX_MESSAGE_LENGTH,
    quota,
    retry_after,
    server_message,
    with_server_message,
)
from hubgate.upstreams.http.messages import HttpClient, HttpReply, HttpRequest
from hubgate.upstreams.http.proxy import environment_proxy
from hubgate.upstreams.hub.errors import LAST_TROUBLES, NO_TOKEN, TYPE_IT, Trouble
from hubgate.upstreams.urls import host_of

SECONDS = 15.0
"""For one question."""
HOLD_SECONDS = 60.0
"""After "too many requests" without a word on when to come back."""
_MOST_HOLDS = 1000


class HubSite:
    """One of Hugging Face's interfaces.

    Args:
        client: sends the requests.
        base: its URL.
        name: how messages call it.
        setting: the environment variable that leads elsewhere.
        troubles: what its error replies mean, where `LAST_TROUBLES` do not tell.
        offline: never ask it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        base: str,
        *,
        name: str,
        setting: str,
        troubles: Sequence[Trouble],
        offline: bool,
        clock: Clock,
    ) -> None:
        self._client = client
        self._base = base.rstrip("/")
        self._site = name
        self._setting = setting
        self._troubles = (*troubles, *LAST_TROUBLES)
        self._offline = offline
        self._clock = clock
        self._held: dict[tuple[str, str], float] = {}

    async def ask(
        self,
        path: str,
        token: Secret | None,
        *,
        about: str,
        window: str = "api",
        query: Sequence[tuple[str, str]] = (),
        method: str = "GET",
    ) -> Any:
        """The decoded reply.

        Args:
            path: below the base.
            token: of whom asks; never one of the environment.
            about: what is asked for, for messages.
            window: which of the site's limits the question counts against.
            query: the parameters.
            method: of HTTP.

        Raises:
            UpstreamError: not reached, refused (`UpstreamRefused`, with the status), or no JSON.
        """
        self._check_offline()
        key = (digest(token), window)
        self._check_held(key, token)
        url = self._url(path, query)
        request = HttpRequest(
            method=method,
            url=url,
            headers=_headers(token),
            timeout=SECONDS,
            proxy=environment_proxy(url),
        )
        try:
            reply = await self._client.send(request)
        except (UpstreamUnreachable, UpstreamUnreadable, InvalidEndpoint) as error:
            raise self._unreachable(error, about) from error
        self._note_limits(key, reply)
        if reply.status >= 400:
            raise self._refused(reply, token, about)
        return self._decoded(reply)

    def _url(self, path: str, query: Sequence[tuple[str, str]]) -> str:
        try:
            url = URL(self._base + path).with_query(list(query))
            if url.scheme in {"http", "https"} and url.host:
                return str(url)
        except ValueError:
            pass
        raise UpstreamUnreachable(
            f"{self._site} cannot be asked: {self._setting} is no URL.",
            remedy=f"Give it whole, with https://. {TYPE_IT}",
            cause=Cause.INVALID_ENDPOINT,
            retryable=False,
        )

    def _check_offline(self) -> None:
        if self._offline:
            raise UpstreamUnreachable(
                f"{self._site} is not asked: HF_HUB_OFFLINE is set.",
                remedy=TYPE_IT,
                cause=Cause.ADDRESS_REFUSED,
                retryable=False,
            )

    def _check_held(self, key: tuple[str, str], token: Secret | None) -> None:
        left = self._held.get(key, 0.0) - self._clock()
        if left > 0:
            whose = "this token" if token else "callers without a token"
            raise UpstreamRefused(
                f"{self._site} takes no more requests of {whose} for {left:.0f} seconds.",
                remedy="Ask again after that." if token else "Ask again after that, or with a token.",
                status=429,
                cause=Cause.OVERLOADED,
                retryable=True,
                retry_after=left,
            )

    def _note_limits(self, key: tuple[str, str], reply: HttpReply) -> None:
        left = quota(reply.headers)
        seconds = left.seconds if left and not left.remaining else None
        if reply.status == 429:
            seconds = retry_after(reply) or HOLD_SECONDS
        if not seconds:
            return
        now = self._clock()
        if len(self._held) >= _MOST_HOLDS:
            self._held = {key: until for key, until in self._held.items() if until > now}
        self._held[key] = now + seconds

    def _refused(self, reply: HttpReply, token: Secret | None, about: str) -> UpstreamRefused:
        code = reply.headers.get("x-error-code")
        trouble = next(
            row for row in self._troubles if reply.status in row.statuses and row.code in (None, code)
        )
        if token is None and trouble.cause in ABOUT_THE_TOKEN:
            trouble = NO_TOKEN
        words = {"site": self._site, "about": about, "setting": self._setting}
        said = "" if reply.is_html else server_message(reply, token)[:MAX_MESSAGE_LENGTH]
        message = trouble.message.format(**words)
        return UpstreamRefused(
            with_server_message(message, reply.status, said),
            status=reply.status,
            server_message=said,
            remedy=trouble.remedy.format(**words),
            cause=trouble.cause,
            retryable=trouble.retryable,
            retry_after=retry_after(reply) if trouble.retryable else None,
        )

    def _decoded(self, reply: HttpReply) -> Any:
        try:
            return orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            what = "a page for people" if reply.is_html else "no JSON"
            raise UpstreamUnreadable(
                f"{self._site} answered with {what} ({host_of(self._base)}).",
                remedy=f"Check {self._setting}, and whether a proxy wants somebody to sign in. {TYPE_IT}",
                cause=Cause.NOT_AN_API,
            ) from None

    def _unreachable(self, error: HubgateError, about: str) -> UpstreamUnreachable:
        if error.cause is Cause.UPSTREAM_REDIRECTS:
            return UpstreamUnreachable(
                f"{self._site} sends askers for {about} elsewhere: it has another name by now, or {self._setting} "
                "is an old address.",
                remedy="Search for its present name, or set the present address.",
                cause=error.cause,
                retryable=False,
            )
        return UpstreamUnreachable(
            f"{self._site} cannot be asked: {error.message}",
            remedy=f"{TYPE_IT} If it is reached another way, say so in {self._setting}.",
            cause=error.cause,
            retryable=error.retryable,
        )


def digest(token: Secret | None) -> str:
    """Who asks, as a key under which to remember; the empty text without a token."""
    return hashlib.sha256(token.reveal().encode()).hexdigest() if token else ""


def _headers(token: Secret | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "gzip"}  # a page of models is mostly repeated words
    if token is None:
        return headers
    text = token.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest(
            "The token holds characters that no token has: spaces, line ends or letters beyond ASCII.",
            remedy="Copy it again.",
        )
    return {**headers, "Authorization": f"Bearer {text}"}
