"""Streams of generated text on their way out, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from hubgate.core.generation import ManagedStream
from hubgate.core.transcoding.objects import Usage
from hubgate.core.transcoding.streams import StreamTranscoder
from hubgate.domain.errors import HubgateError
from hubgate.web.http.asgi import Headers, Send
from hubgate.web.http.errors import error_response
from hubgate.web.http.face import RenderError
from hubgate.web.http.request_context import RequestContext
from hubgate.web.shared.embeddings import waited_header

# A proxy that collects the answer before it passes it on would make a stream pointless.
_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class StreamEncoder(Protocol):
    """Tells a stream in the words of a face."""

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        """The bytes for payloads that arrived together.

        Raises:
            UpstreamUnreadable: one of them is not what it should be.
        """
        ...

    def finish(self) -> bytes:
        """The last bytes of a stream that ended well."""
        ...

    def encode_error(self, error: HubgateError) -> bytes:
        """The last bytes of one that broke off."""
        ...

    @property
    def tokens(self) -> tuple[int, int]:
        """Of prompt and text together, and of the text; where nobody tells, about as many as the text has."""
        ...


class SseEncoder:
    """Tells a stream as `data:` lines of one spelling.

    Args:
        speller: of the stream.
        render_error: for an error in the middle.
        before: what of an event stands before its payload.
        done: what stands after the last event.
    """

    def __init__(
        self,
        speller: StreamTranscoder,
        *,
        render_error: RenderError,
        before: bytes = b"data: ",
        done: bytes = b"",
    ) -> None:
        self._transcoder = speller
        self._before = before
        self._render_error = render_error
        self._done = done

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        """See `StreamEncoder`."""
        transcoded = (part for payload in payloads for part in self._transcoder.transcode(payload))
        return sse_events(transcoded, self._before)

    def finish(self) -> bytes:
        """See `StreamEncoder`."""
        return sse_events(self._transcoder.end(), self._before) + self._done

    def encode_error(self, error: HubgateError) -> bytes:
        """An error event; without `[DONE]`, so that nobody takes what came before for the whole."""
        return sse_events((error_response(self._render_error, error).body,), self._before)

    @property
    def tokens(self) -> tuple[int, int]:
        """See `StreamEncoder`."""
        return token_totals(self._transcoder.usage, self._transcoder.pieces)


def token_totals(usage: Usage | None, pieces: int) -> tuple[int, int]:
    """Of prompt and text together, and of the text; without usage as many as there were pieces."""
    return (usage.total, usage.completion_tokens or 0) if usage else (pieces, pieces)


def sse_events(payloads: Iterable[bytes], before: bytes = b"data: ") -> bytes:
    """Each payload as an event; `before` is all of the event that stands before it."""
    return b"".join(b"%b%b\n\n" % (before, _on_one_line(payload)) for payload in payloads)


async def send_stream(
    send: Send, context: RequestContext, events: ManagedStream, encoder: StreamEncoder, headers: Headers = ()
) -> None:
    """Send a stream to its end, and close it. Every `send` waits for the reader: nothing piles up here.

    Raises:
        HubgateError: it failed before anything was sent, so that the error can have a status of its own.
    """
    try:
        arriving = aiter(events)
        first = await anext(arriving, None)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*_HEADERS, *waited_header(events.waited), *headers],
            }
        )
        last = await _send_parts(send, context, first or (), arriving, encoder)
    finally:
        context.tokens, context.completion_tokens = encoder.tokens
        await events.aclose()
    await send({"type": "http.response.body", "body": last})


async def _send_parts(
    send: Send,
    context: RequestContext,
    first: Sequence[bytes],
    rest: AsyncIterator[Sequence[bytes]],
    encoder: StreamEncoder,
) -> bytes:
    """Send all but the end, which is returned."""
    try:
        if body := encoder.encode(first):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        async for payloads in rest:
            if body := encoder.encode(payloads):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        return encoder.finish()
    except HubgateError as error:
        context.cause = error.cause
        return encoder.encode_error(error)


def _on_one_line(payload: bytes) -> bytes:
    """A line break inside JSON is only white space, but it would end the event's line."""
    if b"\n" in payload or b"\r" in payload:
        return payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return payload
