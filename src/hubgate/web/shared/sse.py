"""Streams of generated text, sent as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from hubgate.core.generation import ManagedStream
from hubgate.core.sse import DATA, PlainEvents
from hubgate.core.transcoding.objects import Usage
from hubgate.core.transcoding.streams import StreamTranscoder
from hubgate.domain.errors import HubgateError
from hubgate.web.http.asgi import Headers, Send
from hubgate.web.http.errors import error_response, stopping
from hubgate.web.http.face import RenderError
from hubgate.web.http.request_context import RequestContext
from hubgate.web.shared.embeddings import waited_header

EVENT_STREAM = b"text/event-stream"
_ENCODER = msgspec.json.Encoder()
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
_HEADERS = (
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy must not buffer a stream
)


class StreamEncoder(Protocol):
    """Renders a stream in a face's format."""

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        """Encode payloads that arrived together.

        Raises:
            UpstreamUnreadable: a payload is not valid.
        """
        ...

    def finish(self) -> bytes:
        """The last bytes of a complete stream."""
        ...

    def encode_error(self, error: HubgateError) -> bytes:
        """The last bytes of a stream that failed."""
        ...

    @property
    def tokens(self) -> tuple[int, int]:
        """Total and completion tokens; without usage from the server, both are the number of payloads."""
        ...


class SseEncoder:
    """Renders a stream as `data:` events in the transcoder's format.

    Args:
        transcoder: of the stream.
        render_error: for an error within the stream.
        before: what precedes the payload in an event.
        done: what follows the last event.
    """

    def __init__(
        self,
        transcoder: StreamTranscoder,
        *,
        render_error: RenderError,
        before: bytes = DATA,
        done: bytes = b"",
    ) -> None:
        self._transcoder = transcoder
        self._before = before
        self._render_error = render_error
        self._done = done

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        return sse_events(self._transcoder.transcode(payloads), self._before)

    def finish(self) -> bytes:
        return sse_events(self._transcoder.end(), self._before) + self._done

    def encode_error(self, error: HubgateError) -> bytes:
        """An error event, without `[DONE]`: the client must not take the partial text for the whole."""
        return sse_events((error_response(self._render_error, error).body,), self._before)

    @property
    def tokens(self) -> tuple[int, int]:
        return token_totals(self._transcoder.usage, self._transcoder.pieces)


def token_totals(usage: Usage | None, pieces: int) -> tuple[int, int]:
    """Total and completion tokens; without usage, both are the number of payloads."""
    return (usage.total, usage.completion_tokens or 0) if usage else (pieces, pieces)


def sse_events(payloads: Sequence[bytes], before: bytes = DATA) -> bytes:
    """One event per payload; `before` is everything that precedes the payload in its event."""
    if isinstance(payloads, PlainEvents) and before == payloads.before:
        return payloads.text
    if not payloads:
        return b""
    text = b"".join(payloads)
    if _LINE_FEED in text or _CARRIAGE_RETURN in text:
        payloads = [_on_one_line(payload) for payload in payloads]
    return before + (b"\n\n" + before).join(payloads) + b"\n\n"


def named_event(name: str, payload: bytes) -> bytes:
    """One event with an `event:` line."""
    if _LINE_FEED in payload or _CARRIAGE_RETURN in payload:
        payload = _on_one_line(payload)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), payload)


class TextEvents:
    """Renders events that differ in nothing but the text of a field.

    Args:
        event: one of them, with an empty text.
        field: of the text; its last occurrence that is empty.
    """

    def __init__(self, event: bytes, field: str) -> None:
        self._before, self._after = around_text(event, field)
        self._between = self._after + self._before

    def render(self, texts: Sequence[str]) -> bytes:
        return b"%b%b%b" % (self._before, self._between.join(encode_each(texts)), self._after)


def around_text(event: bytes, field: str) -> tuple[bytes, bytes]:
    """What precedes and what follows the text of this field, which is empty."""
    before, _, after = event.rpartition(b'"%b":""' % field.encode())
    return b'%b"%b":' % (before, field.encode()), after


def encode_each(values: Iterable[str | int]) -> list[bytes]:
    """Each as JSON."""
    return _ENCODER.encode_lines(values).split(b"\n")[:-1]  # a line break within a string is escaped


async def send_stream(
    send: Send,
    context: RequestContext,
    events: ManagedStream,
    encoder: StreamEncoder,
    headers: Headers = (),
    *,
    content_type: bytes = EVENT_STREAM,
) -> None:
    """Send a stream and close it. Every `send` waits for the client, so nothing accumulates here.

    Raises:
        HubgateError: it failed before anything was sent, so the error can have a status of its own.
    """
    try:
        remaining = aiter(events)
        first = await anext(remaining, None)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", content_type),
                    *_HEADERS,
                    *waited_header(events.waited),
                    *headers,
                ],
            }
        )
        last = await _send_parts(send, context, first or (), remaining, encoder)
    finally:
        context.tokens, context.completion_tokens = encoder.tokens
        await events.aclose()
    await send({"type": "http.response.body", "body": last})


async def _send_parts(
    send: Send,
    context: RequestContext,
    first: Sequence[bytes],
    remaining: AsyncIterator[Sequence[bytes]],
    encoder: StreamEncoder,
) -> bytes:
    """Send everything but the last bytes, which are returned."""
    try:
        if body := encoder.encode(first):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        async for payloads in remaining:
            if body := encoder.encode(payloads):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        return encoder.finish()
    except HubgateError as error:  # in no other variable: its traceback would keep it alive
        context.cause = error.cause
        return encoder.encode_error(error)
    except asyncio.CancelledError:
        if context.client_left or not (task := asyncio.current_task()):
            raise
        task.uncancel()  # the drain period of a stop is over
        stop = stopping()
        context.cause = stop.cause
        return encoder.encode_error(stop)


def _on_one_line(payload: bytes) -> bytes:
    """A line break inside JSON is only white space, but it would end the event's line."""
    return payload.replace(b"\r", b" ").replace(b"\n", b" ")
