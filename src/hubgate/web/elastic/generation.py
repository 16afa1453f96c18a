"""Text and chat completions in Elasticsearch's format, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from hubgate.core.transcoding import Piece, decode_reply, read_piece, text_of
from hubgate.core.transcoding.objects import Usage
from hubgate.core.transcoding.text_runs import ChunkReader, TextField, TextRun
from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import HubgateError
from hubgate.web.elastic.errors import ChatError, render
from hubgate.web.http.errors import error_response, status_of
from hubgate.web.shared.sse import TextEvents, sse_events, token_totals

_MESSAGE, _ERROR = b"event: message\ndata: ", b"event: error\ndata: "
_DONE = sse_events((b"[DONE]",), _MESSAGE)


class _Function(msgspec.Struct, omit_defaults=True, gc=False):
    arguments: str | None = None
    name: str | None = None


class _ToolCall(msgspec.Struct, omit_defaults=True, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    type: str | None = None


class _Message(msgspec.Struct, omit_defaults=True, gc=False):
    """A message, or a chunk's delta."""

    content: str | None = None
    refusal: str | None = None
    role: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    """The former name of `reasoning`; some servers still send it."""
    tool_calls: list[_ToolCall] | None = None

    def __post_init__(self) -> None:
        self.reasoning = self.reasoning or self.reasoning_content
        self.reasoning_content = None


class _Choice(msgspec.Struct, omit_defaults=True, gc=False):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    index: int = -1


class _PromptTokens(msgspec.Struct, omit_defaults=True, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, omit_defaults=True, gc=False):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptTokens | None = None


class _Chat(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A chunk or a whole reply. Absent and null fields are left out."""

    id: str | None = None
    choices: list[_Choice]
    model: str | None = None
    object: str | None = None
    usage: _Usage | None = None


_CHAT = msgspec.json.Decoder(_Chat)
_ENCODER = msgspec.json.Encoder()


def _only_text(chunk: _Chat) -> tuple[TextField, str] | None:
    delta = chunk.choices[0].delta if len(chunk.choices) == 1 and chunk.usage is None else None
    if delta is None or bool(delta.content) == bool(delta.reasoning):
        return None
    return ("content", delta.content) if delta.content else ("reasoning", delta.reasoning or "")


def completion_body(generated: Generated) -> bytes:
    """`{"completion": [{"result"}]}`."""
    return msgspec.json.encode({"completion": [{"result": text_of(generated)}]})


def chat_body(generated: Generated) -> bytes:
    return msgspec.json.encode(decode_reply(generated.body, _CHAT))


class ElasticEncoder:
    """Encodes a stream as Elasticsearch's events.

    Args:
        task: the endpoint's. A chat has one chunk per event, a completion all deltas that arrived together.
        wire_format: of the payloads.
        describe: returns an error in Elasticsearch's words.
    """

    def __init__(
        self, task: Task, wire_format: WireFormat, describe: Callable[[HubgateError], HubgateError]
    ) -> None:
        self._chats = task is Task.CHAT_COMPLETION
        self._wire_format = wire_format
        self._describe = describe
        self._usage: _Usage | Usage | None = None
        self._pieces = 0
        self._reader = ChunkReader(_CHAT, _only_text)
        self._like: _Chat | None = None
        self._texts: TextEvents
        """Of chunks that are like that one."""

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        self._pieces += len(payloads)
        if self._chats:
            return b"".join(map(self._chat_events, self._reader.read(payloads)))
        pieces = [read_piece(payload, self._wire_format) for payload in payloads]
        self._note_usage(pieces)
        deltas = [{"delta": piece.text} for piece in pieces if piece.text]
        return sse_events((msgspec.json.encode({"completion": deltas}),), _MESSAGE) if deltas else b""

    def finish(self) -> bytes:
        return _DONE

    def encode_error(self, error: HubgateError) -> bytes:
        described = self._describe(error)
        return error_event(ChatError(described, status_of(described)) if self._chats else described)

    @property
    def tokens(self) -> tuple[int, int]:
        usage = self._usage
        if isinstance(usage, _Usage):
            usage = Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
        return token_totals(usage, self._pieces)

    def _chat_events(self, part: _Chat | TextRun[_Chat]) -> bytes:
        """The events of a chunk, or of a run of chunks."""
        if isinstance(part, TextRun):
            if part.like is not self._like:
                self._like = part.like
                setattr(part.like.choices[0].delta, part.field, "")
                event = sse_events((_ENCODER.encode(part.like),), _MESSAGE)
                self._texts = TextEvents(event, part.field)
            return self._texts.render(part.texts)
        self._usage = part.usage or self._usage
        return sse_events((_ENCODER.encode(part),), _MESSAGE)

    def _note_usage(self, chunks: Sequence[Piece]) -> None:
        self._usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage), self._usage)


def error_event(error: HubgateError) -> bytes:
    return sse_events((error_response(render, error).body,), _ERROR)
