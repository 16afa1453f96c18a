"""The items of a response while they are written, and their events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from hubgate.web.responses.input_items import REASONING_ID

Event: TypeAlias = dict[str, Any]
"""Without its sequence number, which is the response's."""


def message_item(item_id: str, status: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": parts}


def text_part(text: str, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


class Item(Protocol):
    """An item that is open."""

    def open(self) -> Iterator[Event]:
        """The events before its first piece."""
        ...

    def close(self, status: str) -> Iterator[Event]:
        """The events after its last piece."""
        ...

    def render(self, status: str) -> dict[str, Any]:
        """The item as it is now."""
        ...


class TextItem:
    """A message or reasoning: an item with one part, which is text.

    Args:
        response_id: of the response, without a prefix.
        index: of the item in the response.
    """

    event = "response.output_text"
    part_event = "response.content_part"
    part_index = "content_index"
    text_field = "text"
    prefix = "msg_"

    def __init__(self, response_id: str, index: int) -> None:
        self.id = f"{self.prefix}{response_id}{index}"
        self._index = index
        self._texts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def open(self) -> Iterator[Event]:
        item = self.render("in_progress", empty=True)
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
        yield {"type": f"{self.part_event}.added", **self._place, "part": self._part("", [])}

    def add(self, text: str, logprobs: Sequence[dict[str, Any]]) -> Event:
        """A piece of the text, with the log probabilities of its tokens if they were requested."""
        self._texts.append(text)
        self._logprobs += logprobs
        return self._delta(text, logprobs)

    def add_run(self, texts: Sequence[str]) -> None:
        """Pieces of the text. The event of each is `empty_delta` with this text."""
        self._texts += texts

    @property
    def empty_delta(self) -> Event:
        return self._delta("", ())

    def close(self, status: str) -> Iterator[Event]:
        text = "".join(self._texts)
        done = {self.text_field: text, **self._with_logprobs(self._logprobs)}
        yield {"type": f"{self.event}.done", **self._place, **done}
        yield {"type": f"{self.part_event}.done", **self._place, "part": self._part(text, self._logprobs)}
        item = self.render(status)
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}

    def render(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        content = [] if empty else [self._part("".join(self._texts), self._logprobs)]
        return message_item(self.id, status, content)

    def _delta(self, text: str, logprobs: Sequence[dict[str, Any]]) -> Event:
        return {"type": f"{self.event}.delta", **self._place, "delta": text, **self._with_logprobs(logprobs)}

    @property
    def _place(self) -> dict[str, object]:
        return {"item_id": self.id, "output_index": self._index, self.part_index: 0}

    def _part(self, text: str, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return text_part(text, list(logprobs))

    def _with_logprobs(self, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"logprobs": list(logprobs)}


class Refusal(TextItem):
    """A message in which the model refuses."""

    event = "response.refusal"
    text_field = "refusal"

    def _part(self, text: str, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "refusal", "refusal": text}

    def _with_logprobs(self, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {}


class Reasoning(TextItem):
    """What the model writes before its answer."""

    event = "response.reasoning_text"
    prefix = REASONING_ID

    def render(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        parts = [] if empty else [self._part("".join(self._texts), ())]
        return {"id": self.id, "type": "reasoning", "status": status, **self._with_parts(parts)}

    def _with_parts(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"summary": [], "content": parts}

    def _part(self, text: str, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": text}

    def _with_logprobs(self, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {}


class ReasoningSummary(Reasoning):
    """Reasoning where clients that request a summary show it. Open models write no other summary."""

    event = "response.reasoning_summary_text"
    part_event = "response.reasoning_summary_part"
    part_index = "summary_index"

    def _with_parts(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"summary": parts}

    def _part(self, text: str, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "summary_text", "text": text}


class FunctionCall:
    """A call of a function tool.

    Args:
        response_id: of the response, without a prefix.
        index: of the item in the response.
        call_id: the engine's id of the call, if it sends one.
        name: of the function.
    """

    def __init__(self, response_id: str, index: int, call_id: str | None, name: str) -> None:
        self.id = f"fc_{response_id}{index}"
        self.call_id = call_id or f"call_{response_id}{index}"
        self._index = index
        self._name = name
        self._arguments: list[str] = []

    def open(self) -> Iterator[Event]:
        item = self.render("in_progress")
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}

    def add(self, arguments: str) -> Event:
        """A piece of the arguments."""
        self._arguments.append(arguments)
        return {"type": "response.function_call_arguments.delta", **self._place, "delta": arguments}

    def close(self, status: str) -> Iterator[Event]:
        done = {"name": self._name, "arguments": "".join(self._arguments)}
        yield {"type": "response.function_call_arguments.done", **self._place, **done}
        item = self.render(status)
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}

    def render(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self.call_id,
            "name": self._name,
            "arguments": "".join(self._arguments),
        }

    @property
    def _place(self) -> dict[str, object]:
        return {"item_id": self.id, "output_index": self._index}
