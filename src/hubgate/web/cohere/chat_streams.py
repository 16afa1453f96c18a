"""Streams of chats in Cohere's formats: server-sent events in version 2, lines of JSON in version 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from hubgate.core.transcoding.objects import Usage
from hubgate.core.transcoding.text_runs import TextRun
from hubgate.domain.errors import HubgateError
from hubgate.web.cohere.chat_replies import (
    FINISH_REASONS,
    estimate,
    reply_v1,
    usage_of,
)
from hubgate.web.shared.chat_reply import ChatReply, Message, ToolCall, chunk_reader
from hubgate.web.shared.sse import TextEvents, named_event, token_totals

_PARTS = {"content": "text", "reasoning": "thinking"}
"""Cohere's names of what a chunk contains."""


class _ChatStream:
    """What both versions read from the engine's chunks.

    Args:
        reply_id: of the reply.
        prompt: the messages as JSON, for an estimate if the engine counts no tokens.
    """

    def __init__(self, reply_id: str, prompt: bytes) -> None:
        self._id = reply_id
        self._prompt = prompt
        self._reader = chunk_reader()
        self._usage: Usage | None = None
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._reason = "COMPLETE"
        self._pieces = 0
        self._started = False
        self._unsent: list[bytes] = []
        """Events before a chunk that is not valid."""

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        for part in self._reader.read(payloads):
            self._unsent += self._events(part)
        return self._take_unsent()

    @property
    def tokens(self) -> tuple[int, int]:
        return token_totals(self._usage, self._pieces)

    def _read(self, chunk: ChatReply) -> Message:
        self._pieces += 1
        self._usage = chunk.usage or self._usage
        if not chunk.choices:
            return Message()
        choice = chunk.choices[0]
        if choice.finish_reason:
            self._reason = FINISH_REASONS.get(choice.finish_reason, "COMPLETE")
        delta = choice.delta or Message()
        self._thoughts.append(delta.thinking)
        self._texts.append(delta.content or "")
        return delta

    def _read_run(self, run: TextRun[ChatReply]) -> None:
        self._pieces += len(run.texts)
        (self._texts if run.field == "content" else self._thoughts).extend(run.texts)

    def _events(self, part: ChatReply | TextRun[ChatReply]) -> Iterator[bytes]:
        raise NotImplementedError

    def _take_unsent(self) -> bytes:
        encoded, self._unsent = b"".join(self._unsent), []
        return encoded

    def _final_usage(self) -> Usage:
        return self._usage or estimate(self._prompt, "".join((*self._thoughts, *self._texts)))


class V2Stream(_ChatStream):
    """Each part of a message (its reasoning, its text, each tool call) starts, continues and ends."""

    def __init__(self, reply_id: str, prompt: bytes) -> None:
        super().__init__(reply_id, prompt)
        self._open: tuple[str, object] | None = None
        """The part that is being written: its kind, and which tool call it is."""
        self._index = -1
        self._deltas: TextEvents
        """Of the part, if it is text or reasoning."""

    def finish(self) -> bytes:
        usage = usage_of(self._final_usage())
        last = {"type": "message-end", "delta": {"finish_reason": self._reason, "usage": usage}}
        return self._start() + self._close() + _event(last)

    def encode_error(self, error: HubgateError) -> bytes:
        """A last event without usage: Cohere's clients know no other way to end a message that failed."""
        last = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": str(error)}}
        return self._take_unsent() + self._close() + _event(last)

    def _events(self, part: ChatReply | TextRun[ChatReply]) -> Iterator[bytes]:
        if isinstance(part, TextRun):
            self._read_run(part)
            yield self._start()
            yield self._text(_PARTS[part.field], part.texts)
            return
        delta = self._read(part)
        yield self._start()
        if delta.thinking:
            yield self._text("thinking", [delta.thinking])
        if delta.content:
            yield self._text("text", [delta.content])
        for call in delta.tool_calls or ():
            yield self._tool_call(call)

    def _start(self) -> bytes:
        """The first event, once."""
        if self._started:
            return b""
        self._started = True
        empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        return _event({"type": "message-start", "id": self._id, "delta": {"message": empty}})

    def _text(self, kind: str, texts: Sequence[str]) -> bytes:
        begin = b""
        if self._open != (kind, None):
            begin = self._close()
            self._open_part(kind, None)
            begin += self._delta("content-start", {"content": {"type": kind, kind: ""}})
            self._deltas = TextEvents(self._delta("content-delta", {"content": {kind: ""}}), kind)
        return begin + self._deltas.render(texts)

    def _tool_call(self, call: ToolCall) -> bytes:
        kind, which = self._open or ("", None)
        is_same = kind == "tool" and call.index in (None, which) and not (call.index is None and call.id)
        arguments = call.function.arguments_text
        if is_same:
            return self._delta("tool-call-delta", {"tool_calls": {"function": {"arguments": arguments}}})
        end = self._close()
        self._open_part("tool", call.index)
        self._reason = "TOOL_CALL"
        function = {"name": call.function.name or "", "arguments": arguments}
        started = {"id": call.id or "", "type": "function", "function": function}
        return end + self._delta("tool-call-start", {"tool_calls": started})

    def _open_part(self, kind: str, which: object) -> None:
        self._open = (kind, which)
        self._index += 1

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        kind = "tool-call-end" if self._open[0] == "tool" else "content-end"
        self._open = None
        return _event({"type": kind, "index": self._index})

    def _delta(self, kind: str, message: dict[str, Any]) -> bytes:
        return _event({"type": kind, "index": self._index, "delta": {"message": message}})


class V1Stream(_ChatStream):
    def finish(self) -> bytes:
        text = "".join(self._texts)
        reply = reply_v1(text, self._reason, self._final_usage(), self._id)
        last = {"event_type": "stream-end", "finish_reason": self._reason, "response": reply}
        return _line(last, is_finished=True)

    def encode_error(self, error: HubgateError) -> bytes:
        text = "".join(self._texts)
        reply = {"response_id": self._id, "generation_id": self._id, "text": text, "finish_reason": "ERROR"}
        last = {"event_type": "stream-end", "finish_reason": "ERROR", "error": str(error), "response": reply}
        return self._take_unsent() + _line(last, is_finished=True)

    def _events(self, part: ChatReply | TextRun[ChatReply]) -> Iterator[bytes]:
        if isinstance(part, TextRun):
            self._read_run(part)
            texts = part.texts if part.field == "content" else ()
        else:
            content = self._read(part).content
            texts = [content] if content else ()
        if not self._started:
            self._started = True
            yield _line({"event_type": "stream-start", "generation_id": self._id}, is_finished=False)
        if texts:
            yield _V1_TEXTS.render(texts)


def _event(event: dict[str, Any]) -> bytes:
    return named_event(event["type"], msgspec.json.encode(event))


def _line(line: dict[str, Any], *, is_finished: bool) -> bytes:
    return msgspec.json.encode({"is_finished": is_finished, **line}) + b"\n"


_V1_TEXTS = TextEvents(_line({"event_type": "text-generation", "text": ""}, is_finished=False), "text")
