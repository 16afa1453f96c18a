"""One model server: its address, its connections and tokens, and the meaning of its refusals."""

from __future__ import annotations

import functools
import math
from collections.abc import Coroutine
from typing import Any

from hubgate.core.traffic.permits import current_permit
from hubgate.domain.calls import NO_CONTEXT, Context, WireFormat
from hubgate.domain.endpoint import GENERATION_TASKS, Target
from hubgate.domain.errors import UpstreamRefused
from hubgate.domain.secret import Secret
from hubgate.upstreams.access_tokens import AccessTokens
from hubgate.upstreams.engines.replies.errors import refusal
from hubgate.upstreams.engines.replies.events import ServerEvents
from hubgate.upstreams.http.messages import HttpClient, HttpReply, HttpRequest, render_headers
from hubgate.upstreams.http.pool import GENERATION_SECONDS, TOTAL_SECONDS
from hubgate.upstreams.urls import base_url

_HOLD_HEADER = "X-Scale-Up-Timeout"
"""Makes the proxy of an Inference Endpoint hold a request for this many seconds while the endpoint wakes up."""


class Server:
    """Sends an endpoint's requests, with its tokens in turn and through its proxy.

    Args:
        target: the endpoint.
        client: sends the requests.
        base: the URL of the server, if it is not the endpoint's own.

    Raises:
        InvalidEndpoint: the URL cannot be used.
    """

    def __init__(self, target: Target, client: HttpClient, *, base: str | None = None) -> None:
        self._endpoint = target.endpoint
        self.base = base_url(self._endpoint.url or "") if base is None else base.rstrip("/")
        self._tokens = AccessTokens(target.token)
        bill_to = self._endpoint.bill_to
        self._lines = render_headers({"X-HF-Bill-To": bill_to}) if bill_to else b""
        self._usual_seconds = GENERATION_SECONDS if self._endpoint.task in GENERATION_TASKS else None
        self._client = client

    def send(
        self, request: HttpRequest, context: Context = NO_CONTEXT, *, bound: int | None = None
    ) -> Coroutine[Any, Any, HttpReply]:
        """Send a request; the reply, unless it is an error.

        Args:
            request: its URL is below the base URL.
            context: who calls, and until when.
            bound: the most bytes of a reply; `None` for the client's own limit.

        Raises:
            UpstreamRefused: the reply has an error status.
            UpstreamError: there is no reply.
        """
        return self._client.send(self._completed(request, self._tokens.take(), context, bound))

    async def events(
        self, request: HttpRequest, wire_format: WireFormat, context: Context = NO_CONTEXT
    ) -> ServerEvents:
        """Send a request; the events of the reply, once the first one has arrived.

        Raises:
            UpstreamRefused: the reply has an error status, or its first event is an error.
            UpstreamError: there is no reply, or it is not an event stream.
        """
        token = self._tokens.take()
        stream = await self._client.stream(self._completed(request, token, context))
        events = ServerEvents(stream, wire_format, functools.partial(self._refused, token))
        try:
            await events.begin()
        except BaseException:
            await stream.aclose()
            raise
        return events

    def _refused(self, token: Secret | None, reply: HttpReply) -> UpstreamRefused:
        error = refusal(reply, token, generates=self._endpoint.task in GENERATION_TASKS)
        self._tokens.refused(token, error)
        return error

    def _completed(
        self, request: HttpRequest, token: Secret | None, context: Context, bound: int | None = None
    ) -> HttpRequest:
        endpoint = self._endpoint
        seconds, lines = (
            request.timeout or endpoint.timeout or self._usual_seconds,
            request.lines + self._lines,
        )
        if context.hold is not None:
            lines += render_headers({_HOLD_HEADER: str(max(1, math.floor(context.hold)))})
            seconds = (seconds or TOTAL_SECONDS) + context.hold
        return HttpRequest(
            method=request.method,
            url=request.url,
            headers=request.headers,
            lines=lines,
            token=token,
            body=request.body,
            timeout=seconds,
            read_timeout=endpoint.timeout,
            max_reply_bytes=bound,
            proxy=endpoint.proxy,
            ca_bundle=endpoint.ca_bundle,
            permit=current_permit(),
            refused=self._refused,
        )
