"""A response, made of the pieces of a chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from hubgate.core.transcoding import Label
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
)
from hubgate.web.shared.chat_reply import ChatReply, ChatUsage, Choice, Message, ToolCall

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""By OpenAI's finish reason of a chat."""


class Response:
    """A response while it is written: each step returns its events, and `render` the response.

    A whole reply is written in the same steps, or in `add_whole` at once: streams and whole responses are equal.

    Args:
        label: its id (without a prefix), model and time.
        repeated: the fields of the request that it repeats.
        summarized: whether the reasoning is the summary that the request asks for.
    """

    def __init__(self, label: Label, repeated: Mapping[str, object], *, summarized: bool = False) -> None:
        self._label = label
        self._repeated = repeated
        self._reasoning = ReasoningSummary if summarized else Reasoning
        self._done: list[dict[str, Any]] = []
        self._open: Item | None = None
        self._calls: set[int] = set()
        """The indices of the calls that have begun."""
        self._call: int | None = None
        """The index of the open one."""
        self._sequence = 0
        self._finish_reason: str | None = None
        self.usage: ChatUsage | None = None
        self._status = "in_progress"

    def begin(self) -> Iterator[Event]:
        """The events before the first piece."""
        for name in ("created", "in_progress"):
            yield self._numbered({"type": f"response.{name}", "response": self.render()})

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

    def add_whole(self, reply: ChatReply) -> None:
        """A whole reply, and the end. A message of text needs none of the steps, whose events nobody reads here."""
        choice = reply.choices[0] if len(reply.choices) == 1 else Choice()
        message = choice.message or Message()
        if choice.index or choice.logprobs or message.tool_calls or message.refusal or not message.content:
            for _ in chain(self.add(reply), self.end()):
                pass
            return
        self.usage, self._finish_reason = reply.usage, choice.finish_reason
        self._status = _final_status(self._finish_reason)
        if thinking := message.thinking:
            self._add_text(self._reasoning, thinking, "completed")
        self._add_text(TextItem, message.content, self._status)

    def end(self) -> Iterator[Event]:
        """The last events."""
        if not self._done and self._open is None:
            yield from map(self._numbered, self._switch(TextItem(self._label.id, 0)))
        self._status = _final_status(self._finish_reason)
        yield from map(self._numbered, self._close(self._status))
        yield self._numbered({"type": f"response.{self._status}", "response": self.render()})

    def fail(self, code: str, message: str) -> Iterator[Event]:
        """The last events of a stream that failed."""
        self._status = "failed"
        yield self._numbered(error_event(code, message))
        failed = self.render() | {"error": {"code": "server_error", "message": message}}
        yield self._numbered({"type": "response.failed", "response": failed})

    def render(self) -> dict[str, Any]:
        """The response as it is now."""
        incomplete = _INCOMPLETE.get(self._finish_reason or "")
        return {
            "id": f"resp_{self._label.id}",
            "object": "response",
            "created_at": self._label.created,
            "status": self._status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": incomplete} if self._status == "incomplete" else None,
            "model": self._label.model,
            "output": self._done,
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "truncation": "disabled",
            **self._repeated,
            "usage": _render_usage(self.usage) if self.usage else None,
        }

    def _add_text(self, kind: type[TextItem], text: str, status: str) -> None:
        item = kind(self._label.id, len(self._done))
        item.add_run([text])
        self._done.append(item.render(status))

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
            item = FunctionCall(self._label.id, self._next_index, call.id, call.function.name or "")
            yield from self._switch(item)
            self._calls.add(index)
            self._call = index
        if arguments := call.function.arguments_text:
            assert isinstance(self._open, FunctionCall)  # noqa: S101 - `_call` is its index
            yield self._open.add(arguments)

    @property
    def _next_index(self) -> int:
        return len(self._done) + (self._open is not None)

    @property
    def _text(self) -> TextItem:
        assert isinstance(self._open, TextItem)  # noqa: S101 - after `_begin_text`
        return self._open

    def _begin_text(self, kind: type[TextItem]) -> Iterator[Event]:
        """The events before a piece of text, if the open item is of another kind."""
        if type(self._open) is not kind:
            yield from self._switch(kind(self._label.id, self._next_index))

    def _switch(self, item: Item) -> Iterator[Event]:
        yield from self._close("completed")
        self._open = item
        yield from item.open()

    def _close(self, status: str) -> Iterator[Event]:
        item, self._open, self._call = self._open, None, None
        if item is not None:
            yield from item.close(status)
            self._done.append(item.render(status))

    def _numbered(self, event: Event) -> Event:
        self._sequence += 1
        return {"type": event["type"], "sequence_number": self._sequence - 1, **event}


def _final_status(finish_reason: str | None) -> str:
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def error_event(code: str, message: str) -> Event:
    """OpenAI documents the fields of an error at the root of the event, but sends them below `error`: clients read either."""
    error = {"code": code, "message": message, "param": None}
    return {"type": "error", **error, "error": {"type": "api_error", **error}}


def _render_usage(usage: ChatUsage) -> dict[str, object]:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning or 0},
        "total_tokens": usage.total,
    }
