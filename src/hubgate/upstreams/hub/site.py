"""Requests to Hugging Face's own APIs: small JSON, sent rarely, and within their rate limits.

docs/decisions.md says why this is not huggingface_hub's `HfApi`.
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
from hubgate.upstreams.hub.errors import COMMON_ERROR_RULES, NO_TOKEN, TYPE_IT_INSTEAD, HubErrorRule
from hubgate.upstreams.urls import host_of

TIMEOUT_SECONDS = 15.0
BACKOFF_SECONDS = 60.0
"""After a status 429 without Retry-After."""
_MAX_BACKOFFS = 1000


class HubSite:
    """One of Hugging Face's APIs.

    Args:
        client: sends the requests.
        base: its URL.
        name: its name in messages.
        setting: the environment variable that changes the URL.
        error_rules: what its error replies mean; `COMMON_ERROR_RULES` follow.
        offline: send no requests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        base: str,
        *,
        name: str,
        setting: str,
        error_rules: Sequence[HubErrorRule],
        offline: bool,
        clock: Clock,
    ) -> None:
        self._client = client
        self._base = base.rstrip("/")
        self._name = name
        self._setting = setting
        self._error_rules = (*error_rules, *COMMON_ERROR_RULES)
        self._offline = offline
        self._clock = clock
        self._backoffs: dict[tuple[str, str], float] = {}

    async def fetch(
        self,
        path: str,
        token: Secret | None,
        *,
        about: str,
        window: str = "api",
        query: Sequence[tuple[str, str]] = (),
        method: str = "GET",
        body: object = None,
    ) -> Any:
        """Send a request once; the decoded reply, `None` if it is empty.

        Args:
            path: below the base.
            token: the caller's, never one of the environment.
            about: what is requested, for messages.
            window: which of the site's rate limits applies.
            query: the parameters.
            method: the HTTP method.
            body: sent as JSON, unless it is `None`.

        Raises:
            UpstreamError: no connection, an error status (`UpstreamRefused`), or a reply that is not JSON.
        """
        reply = await self._send(path, token, about, window, query=query, method=method, body=body)
        return self._decoded(reply) if reply.body or method == "GET" else None

    async def fetch_text(self, path: str, token: Secret | None, *, about: str, window: str) -> str:
        """A file that is not JSON: see `fetch`."""
        return (await self._send(path, token, about, window)).body.decode("utf-8", "replace")

    async def _send(
        self,
        path: str,
        token: Secret | None,
        about: str,
        window: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        method: str = "GET",
        body: object = None,
    ) -> HttpReply:
        self._check_offline()
        key = (token_digest(token), window)
        self._check_backoff(key, token)
        url = self._url(path, query)
        headers = _headers(token)
        request = HttpRequest(
            method=method,
            url=url,
            headers=headers if body is None else {**headers, "Content-Type": "application/json"},
            body=b"" if body is None else orjson.dumps(body),
            timeout=TIMEOUT_SECONDS,
            proxy=environment_proxy(url),
        )
        try:
            reply = await self._client.send(request)
        except (UpstreamUnreachable, UpstreamUnreadable, InvalidEndpoint) as error:
            raise self._unreachable(error, about) from error
        self._note_limits(key, reply)
        if reply.status >= 400:
            raise self._refused(reply, token, about)
        return reply

    def _url(self, path: str, query: Sequence[tuple[str, str]]) -> str:
        try:
            url = URL(self._base + path).with_query(list(query))
            if url.scheme in {"http", "https"} and url.host:
                return str(url)
        except ValueError:
            pass
        raise UpstreamUnreachable(
            f"{self._name} cannot be reached: {self._setting} is not a valid URL.",
            remedy=f"Use a complete URL with https://. {TYPE_IT_INSTEAD}",
            cause=Cause.INVALID_ENDPOINT,
            retryable=False,
        )

    def _check_offline(self) -> None:
        if self._offline:
            raise UpstreamUnreachable(
                f"{self._name} is not available, because HF_HUB_OFFLINE is set.",
                remedy=TYPE_IT_INSTEAD,
                cause=Cause.ADDRESS_REFUSED,
                retryable=False,
            )

    def _check_backoff(self, key: tuple[str, str], token: Secret | None) -> None:
        left = self._backoffs.get(key, 0.0) - self._clock()
        if left > 0:
            who = "requests with this token" if token else "requests without a token"
            raise UpstreamRefused(
                f"{self._name} has rate limited {who} for {left:.0f} seconds.",
                remedy="Try again after that." if token else "Try again after that, or with a token.",
                status=429,
                cause=Cause.OVERLOADED,
                retryable=True,
                retry_after=left,
            )

    def _note_limits(self, key: tuple[str, str], reply: HttpReply) -> None:
        left = quota(reply.headers)
        seconds = left.seconds if left and not left.remaining else None
        if reply.status == 429:
            seconds = retry_after(reply) or BACKOFF_SECONDS
        if not seconds:
            return
        now = self._clock()
        if len(self._backoffs) >= _MAX_BACKOFFS:
            self._backoffs = {key: until for key, until in self._backoffs.items() if until > now}
        self._backoffs[key] = now + seconds

    def _refused(self, reply: HttpReply, token: Secret | None, about: str) -> UpstreamRefused:
        code = reply.headers.get("x-error-code")
        rule = next(
            rule for rule in self._error_rules if reply.status in rule.statuses and rule.code in (None, code)
        )
        if token is None and rule.cause in ABOUT_THE_TOKEN:
            rule = NO_TOKEN
        words = {"site": self._name, "about": about, "setting": self._setting}
        reported = "" if reply.is_html else server_message(reply, token)[:MAX_MESSAGE_LENGTH]
        message = rule.message.format(**words)
        return UpstreamRefused(
            with_server_message(message, reply.status, reported),
            status=reply.status,
            server_message=reported,
            remedy=rule.remedy.format(**words),
            cause=rule.cause,
            retryable=rule.retryable,
            retry_after=retry_after(reply) if rule.retryable else None,
        )

    def _decoded(self, reply: HttpReply) -> Any:
        try:
            return orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            what = "a web page" if reply.is_html else "data that is not JSON"
            raise UpstreamUnreadable(
                f"{self._name} replied with {what} ({host_of(self._base)}).",
                remedy=f"Check {self._setting}, and whether a proxy requires a login. {TYPE_IT_INSTEAD}",
                cause=Cause.NOT_AN_API,
            ) from None

    def _unreachable(self, error: HubgateError, about: str) -> UpstreamUnreachable:
        if error.cause is Cause.UPSTREAM_REDIRECTS:
            return UpstreamUnreachable(
                f"{self._name} redirects requests for {about}: it was renamed, or {self._setting} is an old address.",
                remedy="Search for its current name, or set the current address.",
                cause=error.cause,
                retryable=False,
            )
        return UpstreamUnreachable(
            f"{self._name} cannot be reached: {error.message}",
            remedy=f"{TYPE_IT_INSTEAD} If it has another URL, set {self._setting}.",
            cause=error.cause,
            retryable=error.retryable,
        )


def token_digest(token: Secret | None) -> str:
    """Identifies the caller in caches; empty without a token."""
    return hashlib.sha256(token.reveal().encode()).hexdigest() if token else ""


def _headers(token: Secret | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "gzip"}  # a page of models compresses well
    if token is None:
        return headers
    text = token.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest(
            "The token contains spaces, line breaks or non-ASCII characters.",
            remedy="Copy it again.",
        )
    return {**headers, "Authorization": f"Bearer {text}"}
