"""The text that every look-alike generates, and OpenAI's objects and chunks around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalikes.model import Model, ReceivedRequest

DEFAULT_TOKENS = 16
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Written:
    """The reply to a prompt."""

    pieces: list[str]
    prompt_tokens: int
    finish_reason: str

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @property
    def usage(self) -> dict[str, int]:
        """The token counts in OpenAI's format."""
        tokens = len(self.pieces)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }


def written(
    prompt: str, max_tokens: int | None = None, stop: object = None, schema: object = None
) -> Written:
    """`You said:` and the prompt, one token per word; with a schema, a JSON object that contains it."""
    text = json.dumps({"schema": schema}) if schema is not None else f"You said: {prompt}"
    stops = [stop] if isinstance(stop, str) else list(stop) if isinstance(stop, list) else []
    ends = [text.index(word) for word in stops if word in text]
    pieces = [
        word if not place else f" {word}"
        for place, word in enumerate(text[: min(ends, default=None)].split())
    ]
    limit = DEFAULT_TOKENS if max_tokens is None else max_tokens
    return Written(pieces[:limit], len(prompt.split()), "length" if len(pieces) > limit else "stop")


def prompt_of(request: ReceivedRequest) -> str:
    """The text of the last message, or the prompt."""
    messages = request.field("messages")
    if messages is None:
        return str(request.field("prompt"))
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def openai_reply(
    model: Model,
    request: ReceivedRequest,
    *,
    schema: object = None,
    done: bool = True,
    name: str | None = None,
) -> Answer:
    """The reply of `/v1/chat/completions` or `/v1/completions`, as one object or as a stream.

    Args:
        model: the model.
        request: the request.
        schema: for the text, if the server supports schemas.
        done: whether streams end with `[DONE]`; those that do not always report the usage.
        name: the server's name of the model; `None` for its own.
    """
    limit = request.field("max_tokens") or request.field("max_completion_tokens")
    text = written(prompt_of(request), limit, request.field("stop"), schema)
    chat = request.field("messages") is not None
    tool = _tool(request) if chat else None
    kind = ("chat.completion" if chat else "text_completion") if not request.field("stream") else None
    common = {"id": "cmpl-1", "created": 1795220569, "model": name or model.name}
    if request.field("stream"):
        chunks = _chat_chunks(text, tool) if chat else _text_chunks(text)
        common["object"] = "chat.completion.chunk" if chat else "text_completion"
        wants = not done or (request.field("stream_options") or {}).get("include_usage")
        return Answer(200, events=tuple(_events(common, chunks, text.usage if wants else None, done=done)))
    if not chat:
        choice: dict[str, Any] = {"index": 0, "text": text.text, "finish_reason": text.finish_reason}
    else:
        message: dict[str, Any] = {"role": "assistant", "content": text.text}
        if tool:
            message |= {"content": None, "tool_calls": [tool]}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if tool else text.finish_reason,
        }
    choice["logprobs"] = None
    return Answer(200, {**common, "object": kind, "choices": [choice], "usage": text.usage})


def _tool(request: ReceivedRequest) -> dict[str, Any] | None:
    tools = request.field("tools")
    if not tools or request.field("tool_choice") == "none" or request.field("messages")[-1]["role"] == "tool":
        return None
    arguments = json.dumps({"text": prompt_of(request)})
    return {
        "id": "call-1",
        "type": "function",
        "function": {"name": tools[0]["function"]["name"], "arguments": arguments},
    }


def _chat_chunks(text: Written, tool: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    yield {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    if tool:
        yield {"delta": {"tool_calls": [{"index": 0, **tool}]}, "finish_reason": None}
    else:
        for piece in text.pieces:
            yield {"delta": {"content": piece}, "finish_reason": None}
    yield {"delta": {}, "finish_reason": "tool_calls" if tool else text.finish_reason}


def _text_chunks(text: Written) -> Iterator[dict[str, Any]]:
    for piece in text.pieces:
        yield {"text": piece, "logprobs": None, "finish_reason": None}
    yield {"text": "", "logprobs": None, "finish_reason": text.finish_reason}


def _events(
    common: dict[str, Any],
    chunks: Iterator[dict[str, Any]],
    usage: dict[str, int] | None,
    *,
    done: bool,
) -> Iterator[bytes]:
    """Servers like vLLM report the usage in a chunk of its own and end with `[DONE]`; others in the last chunk."""
    for chunk in chunks:
        last = usage if chunk["finish_reason"] and not done else None
        yield event({**common, "choices": [{"index": 0, **chunk}]} | ({"usage": last} if last else {}))
    if done and usage:
        yield event({**common, "choices": [], "usage": usage})
    if done:
        yield DONE


def event(payload: object, *, space: bytes = b" ") -> bytes:
    """One event of a stream."""
    return b"data:" + space + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def native_response(model: Model, request: ReceivedRequest) -> Answer:
    """OpenAI's Responses API as vLLM 0.32 and SGLang 0.5.23 serve it, from their source; the id shows who made it."""
    text = written(_input_of(request), request.field("max_output_tokens"))
    if request.field("stream"):
        return Answer(200, events=tuple(_response_events(model, request, text)))
    return Answer(200, _response(model, request, text, "completed"))


def _input_of(request: ReceivedRequest) -> str:
    given = request.field("input")
    last = given if isinstance(given, str) else given[-1]
    content = last if isinstance(last, str) else last.get("content", last.get("output"))
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _message(text: str, status: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
    return {"id": "msg_native", "type": "message", "role": "assistant", "status": status, "content": [part]}


def _response(model: Model, request: ReceivedRequest, text: Written | None, status: str) -> dict[str, Any]:
    usage = None
    if text is not None:
        usage = {
            "input_tokens": text.usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": text.usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": text.usage["total_tokens"],
        }
    return {
        "id": "resp_native",
        "created_at": 1795220569,
        "incomplete_details": None,
        "instructions": request.field("instructions"),
        "metadata": request.field("metadata"),
        "model": model.name,
        "object": "response",
        "output": [] if text is None else [_message(text.text, "completed")],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": model.max_tokens,
        "service_tier": "auto",
        "status": status,
        "truncation": "disabled",
        "usage": usage,
    }


def _response_events(model: Model, request: ReceivedRequest, text: Written) -> Iterator[bytes]:
    place = {"item_id": "msg_native", "output_index": 0, "content_index": 0}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(model, request, None, "in_progress")},
        {"type": "response.in_progress", "response": _response(model, request, None, "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": _message("", "in_progress")},
        {"type": "response.content_part.added", **place, "part": part},
        *({"type": "response.output_text.delta", **place, "delta": piece} for piece in text.pieces),
        {"type": "response.output_text.done", **place, "text": text.text},
        {"type": "response.content_part.done", **place, "part": part | {"text": text.text}},
        {"type": "response.output_item.done", "output_index": 0, "item": _message(text.text, "completed")},
        {"type": "response.completed", "response": _response(model, request, text, "completed")},
    ]
    for number, event in enumerate(events):
        body = json.dumps({"sequence_number": number, **event})
        yield f"event: {event['type']}\ndata: {body}\n\n".encode()
