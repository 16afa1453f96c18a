"""Streams of generated text, turned from one of the two spellings into the other: see `hubgate.core.transcoding`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from hubgate.core.transcoding import Label, decode_reply, read_piece
from hubgate.core.transcoding.logprobs import TOKENS, Logprobs, Token
from hubgate.core.transcoding.objects import (
    LAST_TOKEN,
    OPENAI,
    TGI,
    USAGE,
    Choice,
    Completion,
    Event,
    ReadChoice,
    StreamDetails,
    Usage,
)
from hubgate.domain.calls import WireFormat


class StreamTranscoder(Protocol):
    """Turns the payloads of one stream into those that are wanted."""

    usage: Usage | None
    """As told, once it is."""
    pieces: int
    """Payloads so far: about as many as tokens."""

    def respell(self, payload: bytes) -> Sequence[bytes]:
        """What stands for one payload.

        Raises:
            UpstreamUnreadable: it is not spelled as it should be.
        """
        ...

    def end(self) -> Sequence[bytes]:
        """What is still to say when the stream has ended."""
        ...


def openai_transcoder(
    wire_format: WireFormat, label: Label, *, with_usage: bool, with_logprobs: bool = False, before: str = ""
) -> StreamTranscoder:
    """Spells a stream as OpenAI's chunks.

    Args:
        wire_format: the stream's own.
        label: for chunks that are made here.
        with_usage: whether the usage is told, in a last chunk of its own.
        with_logprobs: whether those of its tokens are told.
        before: what TGI leaves out of a stream: the prompt, where it is to stand before the text.
    """
    if wire_format is WireFormat.OPENAI:
        return _OpenAIAsItCame(with_usage=with_usage)
    return _TgiAsOpenAI(label, with_usage=with_usage, with_logprobs=with_logprobs, before=before)


def tgi_transcoder(wire_format: WireFormat, *, before: str = "") -> StreamTranscoder:
    """Spells a stream as TGI's events.

    Args:
        wire_format: the stream's own.
        before: what TGI leaves out of all events but the last: the prompt, where it stands before the text.
    """
    return _TgiAsItCame() if wire_format is WireFormat.TGI else _OpenAIAsTgi(before)


class _OpenAIAsItCame:
    """Bytes as they came, but for the usage: the engine is always asked for it, and not every client is to see it."""

    def __init__(self, *, with_usage: bool) -> None:
        self._with_usage = with_usage
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        self.pieces += 1
        if b'"usage"' in payload:
            chunk = decode_reply(payload, USAGE)
            self.usage = chunk.usage or self.usage
            if chunk.usage and not chunk.choices and not self._with_usage:
                return ()
        return (payload,)

    def end(self) -> Sequence[bytes]:
        return ()


class _TgiAsOpenAI:
    def __init__(self, label: Label, *, with_usage: bool, with_logprobs: bool, before: str) -> None:
        self._label = label
        self._with_usage = with_usage
        self._with_logprobs = with_logprobs
        self._before = before
        self._written = len(before)
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
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


class _TgiAsItCame:
    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        self.pieces += 1
        if b'"details":{' in payload:
            details = decode_reply(payload, TGI).details
            self.usage = details.usage if details else None
        return (payload,)

    def end(self) -> Sequence[bytes]:
        return ()


class _OpenAIAsTgi:
    """One event a chunk. The last has no text of its own, for OpenAI's usage comes after the last text."""

    def __init__(self, before: str) -> None:
        self._before = before
        self._parts: list[str] = []
        self._ended = ReadChoice()
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        chunk = decode_reply(payload, OPENAI)
        choice = chunk.first
        self.usage = chunk.usage or self.usage
        if choice.finish_reason:
            self._ended = choice
        said = choice.said
        self._parts.append(said)
        if said and self._before:
            said, self._before = said.removeprefix(self._before), ""
        if not said:
            return ()
        self.pieces += 1
        told = choice.logprobs or Logprobs()
        top = told.told_top()
        likeliest = top[0] if top and len(top) == 1 else msgspec.UNSET  # an event is of one token
        event = Event(self.pieces, Token(text=said, logprob=told.total), top_tokens=likeliest)
        return (msgspec.json.encode(event),)

    def end(self) -> Sequence[bytes]:
        usage = self.usage or Usage()
        written = self.pieces if usage.completion_tokens is None else usage.completion_tokens
        details = StreamDetails(self._ended.reason_at_tgi, written, usage.prompt_tokens or 0)
        return (msgspec.json.encode(Event(self.pieces + 1, LAST_TOKEN, "".join(self._parts), details)),)
