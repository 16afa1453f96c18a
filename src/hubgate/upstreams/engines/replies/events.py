"""Streams of generated text: payloads are inspected, but never changed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import msgspec
import orjson

from hubgate.core.sse import PlainEvents, SseParser
from hubgate.domain.calls import WireFormat
from hubgate.domain.errors import Cause, HubgateError, UpstreamUnreachable, UpstreamUnreadable
from hubgate.upstreams.engines.replies.text import is_utf8, not_utf8
from hubgate.upstreams.http.messages import HttpReply, HttpStream

_LAST = 4
"""Reads with payloads, and payloads, at the end of a stream of which one reports that the text is finished; usage may
follow it."""
_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")
_ERROR_STATUSES = {
    "validation": 422,
    "template_error": 422,
    "tool_error": 422,
    "generation": 424,
    "overloaded": 429,
    "unhealthy": 503,
}
"""The statuses that text-generation-inference would send, by its `error_type`."""


class _Error(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw()
    error_type: Any = None
    code: Any = None
    kind: Any = msgspec.field(name="object", default=None)
    type: Any = None


class _ErrorObject(msgspec.Struct):
    code: Any = None


class _Choice(msgspec.Struct):
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    generated_text: Any = None
    type: Any = None


_READ_ERROR = msgspec.json.Decoder(_Error)
_READ_CODE = msgspec.json.Decoder(_ErrorObject)
_READ_CHUNK = msgspec.json.Decoder(_Chunk)


class ServerEvents:
    """Implements `domain.ports.Events` over an event stream.

    Args:
        stream: the reply; closed together with this.
        wire_format: of the payloads.
        refused: makes the error for an error reply.
    """

    def __init__(
        self, stream: HttpStream, wire_format: WireFormat, refused: Callable[[HttpReply], HubgateError]
    ) -> None:
        self.wire_format = wire_format
        self._stream = stream
        self._refused = refused
        self._parser = SseParser()
        self._first: Sequence[bytes] | None = None
        self._last: deque[Sequence[bytes]] = deque(maxlen=_LAST)
        self._failure: HubgateError | None = None
        """To raise once the payloads before it are read. Not kept longer, as its traceback refers to this stream."""
        self._failed = self._ended = False

    async def begin(self) -> None:
        """Wait for the first payloads, so that an early failure becomes an error reply instead of a stream.

        Raises:
            HubgateError: the server refuses or fails, or the reply is not an event stream.
        """
        if self._stream.status >= 400:
            raise self._refused(await self._stream.rest())
        if self._stream.headers.get("content-type", "").partition(";")[0].strip() != "text/event-stream":
            raise self._not_a_stream(await self._stream.rest())
        self._first = await anext(self, None)

    def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        return self

    async def __anext__(self) -> Sequence[bytes]:
        """The payloads, as they arrive."""
        payloads, self._first = self._first, None
        while payloads is None:
            if self._failure is not None:
                raise self._take_failure()
            if self._ended:
                raise StopAsyncIteration
            payloads = self._take(await self._stream.read())
        return payloads

    async def aclose(self) -> None:
        """Close the stream; its connection too, unless the server has sent everything."""
        if self._parser.done and not self._failed and self._failure is None:
            await self._stream.finish()
        else:
            await self._stream.aclose()

    def _take_failure(self) -> HubgateError:
        failure, self._failure = cast("HubgateError", self._failure), None
        self._failed, self._ended = True, True
        return failure

    def _take(self, chunk: bytes) -> Sequence[bytes] | None:
        """The payloads in a piece of the reply, up to a failure; the piece is empty at the end."""
        read = self._parser.feed(chunk) if chunk else self._unterminated()
        is_plain = (
            isinstance(read, PlainEvents)
            and read.text.find(b'"error"') < 0
            and (read.text.isascii() or is_utf8(read.text))
        )
        payloads = read if is_plain else self._checked(read)
        if payloads is not None:
            self._last.append(payloads)
        if self._parser.done or not chunk:
            self._end()
        return payloads

    def _checked(self, payloads: Sequence[bytes]) -> Sequence[bytes] | None:
        """The payloads up to a failure, each looked at."""
        for index, payload in enumerate(payloads):
            if payload[:1] != b"{" or payload.find(b'"error"') >= 0:
                self._failure = self._failure_in(payload)
            if self._failure is None and not is_utf8(payload):
                self._failure = not_utf8()
            if self._failure is not None:
                return payloads[:index] or None
        return payloads or None

    def _end(self) -> None:
        self._ended = True
        if self._parser.done or self._failure is not None:
            return
        last = [payload for payloads in self._last for payload in payloads][-_LAST:]
        if not any(map(_finishes, last)):
            self._failure = UpstreamUnreachable(
                "The text is incomplete: the server ended its stream without a final event.",
                remedy="The server, or a proxy in front of it, may have crashed or timed out: check its log.",
                cause=Cause.CONNECTION_LOST,
            )

    def _unterminated(self) -> list[bytes]:
        """A complete payload after the last empty line: some servers omit the last one."""
        return [payload for payload in self._parser.end() if _is_json(payload)]

    def _failure_in(self, payload: bytes) -> HubgateError | None:
        try:
            event = _READ_ERROR.decode(payload)
            error = bytes(event.error)
            code = _code_in(error)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return UpstreamUnreadable("The server sent an event that is not a JSON object.")
        if "error" not in (event.kind, event.type) and error in {b"", b"null"}:
            return None
        status = _status(event.code) or _status(code) or _ERROR_STATUSES.get(str(event.error_type))
        return self._refused(HttpReply(status=status or 500, headers={}, body=payload))

    def _not_a_stream(self, reply: HttpReply) -> HubgateError:
        if reply.is_html:
            return UpstreamUnreadable(
                "The server sent a web page instead of an event stream.",
                remedy="Check the URL: it must be the model server's own, not a page about it or a login page.",
                cause=Cause.NOT_AN_API,
            )
        failure = self._failure_in(reply.body)
        if failure is None or isinstance(failure, UpstreamUnreadable):
            return UpstreamUnreadable(
                "The server does not stream text.",
                remedy="Send the request without streaming.",
            )
        return failure


class WholeText:
    """Implements `domain.ports.Events` for a server that does not stream: one payload with the whole text."""

    def __init__(self, payload: bytes, wire_format: WireFormat) -> None:
        self.wire_format = wire_format
        self._payload = payload

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The payload."""
        yield [self._payload]

    async def aclose(self) -> None:
        """Does nothing."""


def _finishes(payload: bytes) -> bool:
    try:
        chunk = _READ_CHUNK.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    if chunk.generated_text is not None or chunk.type in _LAST_EVENTS:
        return True
    return any(choice.finish_reason for choice in chunk.choices or ())


def _code_in(error: bytes) -> Any:
    return _READ_CODE.decode(error).code if error[:1] == b"{" else None


def _status(code: Any) -> int | None:
    try:
        number = int(code)
    except (TypeError, ValueError):
        return None
    return number if 400 <= number < 600 else None


def _is_json(payload: bytes) -> bool:
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return True
