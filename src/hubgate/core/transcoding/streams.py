"""Converting streams of generated text between wire formats: see `hubgate.core.transcoding`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from hubgate.core.sse import PlainEvents
from hubgate.core.transcoding import Label, decode_reply, read_piece
from hubgate.core.transcoding.logprobs import TOKENS, Logprobs, Token
from hubgate.core.transcoding.objects import (
    END_TOKEN,
    OPENAI_DECODER,
    TGI_DECODER,
    USAGE_DECODER,
    Choice,
    Completion,
    Event,
    ReadChoice,
    StreamDetails,
    Usage,
)
from hubgate.domain.calls import WireFormat


class StreamTranscoder(Protocol):
    """Converts the payloads of one stream."""

    usage: Usage | None
    """As reported by the engine so far."""
    pieces: int
    """How many payloads so far: about as many as tokens."""

    def transcode(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        """Convert payloads that arrived together.

        Raises:
            UpstreamUnreadable: one does not have the stream's format.
        """
        ...

    def end(self) -> Sequence[bytes]:
        """The payloads after the end of the stream."""
        ...


def openai_transcoder(
    wire_format: WireFormat, label: Label, *, with_usage: bool, with_logprobs: bool = False, before: str = ""
) -> StreamTranscoder:
    """Converts a stream to OpenAI's chunks.

    Args:
        wire_format: of the stream.
        label: for new chunks.
        with_usage: whether to add a last chunk with the usage.
        with_logprobs: whether to include them.
        before: the prompt, if it is to precede the text: TGI does not stream it.
    """
    if wire_format is WireFormat.OPENAI:
        return _OpenAIToOpenAI(with_usage=with_usage)
    return _TgiToOpenAI(label, with_usage=with_usage, with_logprobs=with_logprobs, before=before)


def tgi_transcoder(wire_format: WireFormat, *, before: str = "") -> StreamTranscoder:
    """Converts a stream to TGI's events.

    Args:
        wire_format: of the stream.
        before: the prompt, if it precedes the text: in TGI's format only the last event contains it.
    """
    return _TgiToTgi() if wire_format is WireFormat.TGI else _OpenAIToTgi(before)


class _OpenAIToOpenAI:
    """Passes bytes on, except the usage: it is always requested from the engine, but not by every client."""

    def __init__(self, *, with_usage: bool) -> None:
        self._with_usage = with_usage
        self.usage: Usage | None = None
        self.pieces = 0

    def transcode(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        if not isinstance(payloads, PlainEvents):
            self.pieces += len(payloads)
            return self._passed(payloads)
        self.pieces += payloads.size
        text = payloads.text
        first = text.find(b'"usage"')
        return payloads if first < 0 else self._passed_after(payloads, first)

    def _passed_after(self, events: PlainEvents, first: int) -> Sequence[bytes]:
        """The events that are passed on, if the first that mentions usage does so at index `first`."""
        end = events.text.rfind(b"\n\n", 0, first)
        begin = 0 if end < 0 else end + 2
        rest = events.text[begin:]
        if rest.count(b'"usage"') == rest.count(b'"usage":null'):
            return events
        payloads = rest[len(events.before) : -2].split(b"\n\n" + events.before)
        passed = self._passed(payloads)
        dropped = len(payloads) - len(passed)
        if not dropped:
            return events
        kept = b"".join([b"%b%b\n\n" % (events.before, payload) for payload in passed])
        return PlainEvents(events.text[:begin] + kept, events.size - dropped, events.before)

    def _passed(self, payloads: Sequence[bytes]) -> list[bytes]:
        return [payload for payload in payloads if payload.find(b'"usage"') < 0 or self._passes(payload)]

    def _passes(self, payload: bytes) -> bool:
        chunk = decode_reply(payload, USAGE_DECODER)
        self.usage = chunk.usage or self.usage
        return self._with_usage or not chunk.usage or bool(chunk.choices)

    def end(self) -> Sequence[bytes]:
        return ()


class _TgiToOpenAI:
    def __init__(self, label: Label, *, with_usage: bool, with_logprobs: bool, before: str) -> None:
        self._label = label
        self._with_usage = with_usage
        self._with_logprobs = with_logprobs
        self._before = before
        self._written = len(before)
        self.usage: Usage | None = None
        self.pieces = 0

    def transcode(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        return [chunk for payload in payloads for chunk in self._chunks_of(payload)]

    def _chunks_of(self, payload: bytes) -> Sequence[bytes]:
        self.pieces += 1
        piece = read_piece(payload, WireFormat.TGI)
        text, self._before = self._before + piece.text, ""
        self.usage = piece.usage or self.usage
        if not text and piece.reason is None:
            return ()
        logprobs = decode_reply(payload, TOKENS).logprobs(self._written) if self._with_logprobs else None
        self._written += len(piece.text)
        return (self._chunk([Choice(text=text, logprobs=logprobs, finish_reason=piece.reason)]),)

    def end(self) -> Sequence[bytes]:
        return (self._chunk([], self.usage),) if self.usage and self._with_usage else ()

    def _chunk(self, choices: list[Choice], usage: Usage | None = None) -> bytes:
        return msgspec.json.encode(Completion(*self._label, choices, usage))


class _TgiToTgi:
    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.pieces = 0

    def transcode(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        self.pieces += len(payloads)
        if isinstance(payloads, PlainEvents) and payloads.text.find(b'"details":{') < 0:
            return payloads
        for payload in payloads:
            if payload.find(b'"details":{') >= 0:
                details = decode_reply(payload, TGI_DECODER).details
                self.usage = details.usage if details else None
        return payloads

    def end(self) -> Sequence[bytes]:
        return ()


class _OpenAIToTgi:
    """One event a chunk. The last event has no text, because OpenAI's usage comes after the last text."""

    def __init__(self, before: str) -> None:
        self._before = before
        self._parts: list[str] = []
        self._last_choice = ReadChoice()
        self.usage: Usage | None = None
        self.pieces = 0

    def transcode(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        return [event for payload in payloads for event in self._events_of(payload)]

    def _events_of(self, payload: bytes) -> Sequence[bytes]:
        chunk = decode_reply(payload, OPENAI_DECODER)
        choice = chunk.first
        self.usage = chunk.usage or self.usage
        if choice.finish_reason:
            self._last_choice = choice
        text = choice.content
        self._parts.append(text)
        if text and self._before:
            text, self._before = text.removeprefix(self._before), ""
        if not text:
            return ()
        self.pieces += 1
        logprobs = choice.logprobs or Logprobs()
        top = logprobs.as_top_tokens()
        top_tokens = top[0] if top and len(top) == 1 else msgspec.UNSET  # an event has one token
        event = Event(self.pieces, Token(text=text, logprob=logprobs.total), top_tokens=top_tokens)
        return (msgspec.json.encode(event),)

    def end(self) -> Sequence[bytes]:
        usage = self.usage or Usage()
        count = self.pieces if usage.completion_tokens is None else usage.completion_tokens
        details = StreamDetails(self._last_choice.tgi_finish_reason, count, usage.prompt_tokens or 0)
        return (msgspec.json.encode(Event(self.pieces + 1, END_TOKEN, "".join(self._parts), details)),)
