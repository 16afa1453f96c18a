"""Chat replies of engines, which have OpenAI's format, in Cohere's."""

from __future__ import annotations

from typing import Any

import msgspec

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.core.transcoding import decode_reply
from hubgate.core.transcoding.objects import Usage
from hubgate.web.shared.chat_reply import CHAT_REPLY, Choice, Message, ToolCall
from hubgate.web.shared.embeddings import estimate_tokens

FINISH_REASONS = {"length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "content_filter": "ERROR"}
"""Cohere's names; every other reason is COMPLETE."""


def render_v2(body: bytes, reply_id: str, prompt: bytes) -> bytes:
    """Version 2's reply.

    Args:
        body: the engine's reply.
        reply_id: of the new reply.
        prompt: the messages as JSON, for an estimate if the engine counts no tokens.
    """
    message, reason, usage = _read(body, prompt)
    content: list[dict[str, str]] = []
    if thinking := message.thinking:
        content.append({"type": "thinking", "thinking": thinking})
    if message.content:
        content.append({"type": "text", "text": message.content})
    written: dict[str, Any] = {"role": "assistant", "content": content}
    if message.tool_calls:
        written["tool_calls"] = [
            {"id": call.id or "", "type": "function", "function": _function(call)}
            for call in message.tool_calls
        ]
    return msgspec.json.encode(
        {"id": reply_id, "finish_reason": reason, "message": written, "usage": usage_of(usage)}
    )


def render_v1(body: bytes, reply_id: str, prompt: bytes) -> bytes:
    """Version 1's reply; arguments as in `render_v2`."""
    message, reason, usage = _read(body, prompt)
    return msgspec.json.encode(reply_v1(message.content or "", reason, usage, reply_id))


def reply_v1(text: str, reason: str, usage: Usage, reply_id: str) -> dict[str, Any]:
    return {
        "response_id": reply_id,
        "generation_id": reply_id,
        "text": text,
        "finish_reason": reason,
        "meta": {"api_version": {"version": "1"}, **usage_of(usage)},
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Cohere's `usage`, and hubgate's `estimated` if the engine counted no tokens."""
    tokens = {"input_tokens": usage.prompt_tokens or 0, "output_tokens": usage.completion_tokens or 0}
    if usage.estimated is True:
        return {"billed_units": tokens, "tokens": tokens, "estimated": True}
    return {"billed_units": tokens, "tokens": tokens}


def estimate(prompt: bytes, written: str) -> Usage:
    if len(prompt) <= LARGE_BYTES:  # without spaces and escapes; a larger one would take too long
        prompt = msgspec.json.encode(msgspec.json.decode(prompt))
    return Usage(
        estimate_tokens((prompt.decode(errors="replace"),)),
        estimate_tokens((written,)) if written else 0,
        estimated=True,
    )


def _read(body: bytes, prompt: bytes) -> tuple[Message, str, Usage]:
    reply = decode_reply(body, CHAT_REPLY)
    choice = reply.choices[0] if reply.choices else Choice()
    message = choice.message or Message()
    reason = FINISH_REASONS.get(choice.finish_reason or "", "COMPLETE")
    if message.tool_calls:
        reason = "TOOL_CALL"  # some engines say "stop"
    return message, reason, reply.usage or estimate(prompt, f"{message.thinking}{message.content or ''}")


def _function(call: ToolCall) -> dict[str, str]:
    return {"name": call.function.name or "", "arguments": call.function.arguments_text}
