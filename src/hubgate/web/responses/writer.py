"""Writes a response from the pieces of a chat."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import msgspec

from hubgate.core.transcoding.text_runs import TextRun
from hubgate.domain.errors import UpstreamUnreadable
from hubgate.web.responses.items import (
    Event,
    FunctionCall,
    Item,
    Reasoning,
    ReasoningSummary,
    Refusal,
    TextItem,
    message_item,
    text_part,
)
from hubgate.web.responses.response import Response
from hubgate.web.shared.chat_reply import ChatReply, ChatUsage, Choice, Message, ToolCall


class ResponseWriter:
    """Writes a response in steps. Each changes it, and returns the events.

    Args:
        response: to write, without items.
        rest: of its JSON.
        summarized: whether the reasoning is the summary that the request asks for.
    """

    def __init__(self, response: Response, rest: bytes, *, summarized: bool = False) -> None:
        self._response = response
        self._rest = rest
        self._id = response.bare_id
        self._reasoning = ReasoningSummary if summarized else Reasoning
        self._open: Item | None = None
        self._calls: set[int] = set()
        """The indices of the calls that have begun."""
        self._call: int | None = None
        """The index of the open one."""
        self._sequence = 0
        self._finish_reason: str | None = None
        self.usage: ChatUsage | None = None

    def begin(self) -> Iterator[Event]:
        """The events before the first piece."""
        for name in ("created", "in_progress"):
            yield self._state(name)

    def add(self, reply: ChatReply) -> Iterator[Event]:
        """A chunk of a chat, or a whole reply.

        Raises:
            UpstreamUnreadable: it continues a tool call that has ended.
        """
        self.usage = reply.usage or self.usage
        for choice in reply.choices:
            if choice.index == 0:
                self._finish_reason = choice.finish_reason or self._finish_reason
                yield from map(self._numbered, self._add(choice, choice.message or choice.delta or Message()))

    def add_run(self, run: TextRun[ChatReply]) -> tuple[list[Event], TextItem, int]:
        """Chunks of a chat that have nothing but text.

        Returns:
            The events before theirs, their item, and the sequence number of their first event; the others follow it.
        """
        kind = TextItem if run.field == "content" else self._reasoning
        begin = [*map(self._numbered, self._begin_text(kind))]
        first = self._sequence
        self._sequence += len(run.texts)
        self._text.add_run(run.texts)
        return begin, self._text, first

    def end(self) -> Iterator[Event]:
        """The last events."""
        if not self._response.output and self._open is None:
            yield from map(self._numbered, self._switch(TextItem(self._id, 0)))
        self._response.end(self._finish_reason, self.usage)
        yield from map(self._numbered, self._close(self._response.status))
        yield self._state(self._response.status)

    def fail(self, code: str, message: str) -> Iterator[Event]:
        """The last events of a stream that failed."""
        yield self._numbered(error_event(code, message))
        self._response.fail(message, self.usage)
        yield self._state("failed")

    def _add(self, choice: Choice, message: Message) -> Iterator[Event]:
        logprobs = (choice.logprobs and choice.logprobs.content) or []
        for kind, text in (
            (self._reasoning, message.thinking),
            (TextItem, message.content),
            (Refusal, message.refusal),
        ):
            if text:
                yield from self._begin_text(kind)
                yield self._text.add(text, logprobs if kind is TextItem else ())
        for place, call in enumerate(message.tool_calls or ()):
            yield from self._add_call(call, place if choice.message else call.index)

    def _add_call(self, call: ToolCall, index: int | None) -> Iterator[Event]:
        """A call, or a piece of one. Without an index, a name begins a new call."""
        if index is None:
            index = len(self._calls) if call.function.name or self._call is None else self._call
        if index != self._call:
            if index in self._calls:
                raise UpstreamUnreadable(
                    "The server continued a tool call after it began another one.",
                    remedy="Check the server's version: tool calls must be streamed one after the other.",
                )
            item = FunctionCall(self._id, self._next_index, call.id, call.function.name or "")
            yield from self._switch(item)
            self._calls.add(index)
            self._call = index
        if arguments := call.function.arguments_text:
            assert isinstance(self._open, FunctionCall)  # noqa: S101 - `_call` is its index
            yield self._open.add(arguments)

    @property
    def _next_index(self) -> int:
        return len(self._response.output) + (self._open is not None)

    @property
    def _text(self) -> TextItem:
        assert isinstance(self._open, TextItem)  # noqa: S101 - after `_begin_text`
        return self._open

    def _begin_text(self, kind: type[TextItem]) -> Iterator[Event]:
        """The events before a piece of text, if the open item is of another kind."""
        if type(self._open) is not kind:
            yield from self._switch(kind(self._id, self._next_index))

    def _switch(self, item: Item) -> Iterator[Event]:
        yield from self._close("completed")
        self._open = item
        yield from item.open()

    def _close(self, status: str) -> Iterator[Event]:
        item, self._open, self._call = self._open, None, None
        if item is not None:
            yield from item.close(status)
            self._response.output.append(item.render(status))

    def _state(self, name: str) -> Event:
        response = msgspec.Raw(self._response.encode(self._rest))
        return self._numbered({"type": f"response.{name}", "response": response})

    def _numbered(self, event: Event) -> Event:
        self._sequence += 1
        return {"type": event["type"], "sequence_number": self._sequence - 1, **event}


def write_whole(response: Response, rest: bytes, reply: ChatReply, *, summarized: bool) -> bytes:
    """The JSON of a whole reply, as after the steps of a stream. One that is nothing but a text needs none of them."""
    choice = reply.choices[0] if len(reply.choices) == 1 else Choice()
    message = choice.message or Message()
    if (
        not message.content
        or message.thinking
        or message.refusal
        or message.tool_calls
        or choice.logprobs
        or choice.index
    ):
        writer = ResponseWriter(response, rest, summarized=summarized)
        for _ in chain(writer.add(reply), writer.end()):
            pass
    else:
        response.end(choice.finish_reason, reply.usage)
        parts = [text_part(message.content, [])]
        item_id = f"{TextItem.prefix}{response.bare_id}0"
        response.output.append(message_item(item_id, response.status, parts))
    return response.encode(rest)


def error_event(code: str, message: str) -> Event:
    """OpenAI documents the fields of an error at the root of the event, but sends them below `error`: clients read either."""
    error = {"code": code, "message": message, "param": None}
    return {"type": "error", **error, "error": {"type": "api_error", **error}}
