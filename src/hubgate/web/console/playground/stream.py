"""Generated text streamed into the page, as server-sent events with JSON that the page's script reads.

`{"text"}` is a piece of text, `{"reasoning"}` a piece of reasoning. The last event is `{"end"}` or `{"failed"}` with HTML
to show, so that the script needs no translations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hubgate.core.transcoding import decode_reply, read_piece
from hubgate.core.transcoding.objects import Usage
from hubgate.domain.calls import GenerationCall, WireFormat
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError
from hubgate.service.gateway import Gateway
from hubgate.web.console.page_context import PageContext
from hubgate.web.http.errors import status_of
from hubgate.web.http.request_context import context_of
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import stream
from hubgate.web.shared.sse import send_stream, sse_events, token_totals

_SET_BY_STREAM = frozenset({b"content-type", b"content-length", b"cache-control"})


class _Reasoning(msgspec.Struct):
    """vLLM and OpenRouter call it `reasoning`, SGLang and DeepSeek `reasoning_content`."""

    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Reasoning | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_CHUNK = msgspec.json.Decoder(_Chunk)


class PageEncoder:
    """Encodes a stream for the page. See `hubgate.web.shared.sse.StreamEncoder`.

    Args:
        context: the request.
        wire_format: the format of the stream.
        started: when the request arrived, in monotonic seconds.
    """

    def __init__(self, context: PageContext, wire_format: WireFormat, *, started: float) -> None:
        self._context = context
        self._wire_format = wire_format
        self._started = started
        self._first: float | None = None
        self._usage: Usage | None = None
        self._reason: str | None = None
        self._pieces = 0

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        """One event with the text and the reasoning that arrived."""
        text, reasoning = "", ""
        for payload in payloads:
            piece = read_piece(payload, self._wire_format)
            text += piece.text
            reasoning += self._reasoning_in(payload)
            self._usage, self._reason = piece.usage or self._usage, piece.reason or self._reason
        if not text and not reasoning:
            return b""
        self._pieces += len(payloads)
        if self._first is None:
            self._first = time.monotonic()
        event = {"reasoning": reasoning, "text": text}
        return sse_events((msgspec.json.encode({name: text for name, text in event.items() if text}),))

    def finish(self) -> bytes:
        """The last event of a complete stream: durations and token counts."""
        now, (_, written) = time.monotonic(), self.tokens
        first = self._first or now
        return self._last_event(
            "end",
            "playground/stats.html",
            usage=self._usage,
            reason=self._reason,
            first=first - self._started,
            seconds=now - self._started,
            rate=written / (now - first) if written > 1 and now > first else None,
        )

    def encode_error(self, error: HubgateError) -> bytes:
        """The last event of a stream that failed."""
        return self._last_event("failed", "notice.html", error=error)

    @property
    def tokens(self) -> tuple[int, int]:
        """See `StreamEncoder`."""
        return token_totals(self._usage, self._pieces)

    def _last_event(self, name: str, template: str, **values: Any) -> bytes:
        html = bytes(self._context.render(template, **values).body).decode()
        return sse_events((msgspec.json.encode({name: html}),))

    def _reasoning_in(self, payload: bytes) -> str:
        if b'"reasoning' not in payload or self._wire_format is not WireFormat.OPENAI:
            return ""
        choices = decode_reply(payload, _CHUNK).choices
        delta = choices[0].delta if choices else None
        return (delta.reasoning or delta.reasoning_content or "") if delta else ""


class StreamedResponse(Response):
    """Generated text while the model generates it. Closing or stopping the page stops the model too."""

    def __init__(
        self, context: PageContext, gateway: Gateway, endpoint: Endpoint, call: GenerationCall
    ) -> None:
        super().__init__()
        self._context = context
        self._gateway = gateway
        self._endpoint = endpoint
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open and send the stream. An error before the first piece has its own status."""
        request_context = context_of(scope)
        headers = [pair for pair in self.raw_headers if pair[0] not in _SET_BY_STREAM]
        try:
            events = await stream(Exchange(self._gateway, self._endpoint, request_context, send), self._call)
            encoder = PageEncoder(self._context, events.wire_format, started=request_context.started)
            await send_stream(send, request_context, events, encoder, headers)
        except HubgateError as error:
            request_context.cause = error.cause
            await self._context.render("notice.html", status_of(error), error=error)(scope, receive, send)
