"""Cohere's chat requests as OpenAI's fields, which engines understand.

The parameters have other names. Fields that neither Cohere nor hubgate knows go to the engine unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from hubgate.domain.errors import InvalidRequest
from hubgate.web.shared.generation import Fields

_RENAMED = {"p": "top_p", "k": "top_k", "stop_sequences": "stop"}
_TOOL_CHOICES = {"REQUIRED": "required", "NONE": "none"}
_ROLES = {"USER": "user", "CHATBOT": "assistant", "SYSTEM": "system"}
# These concern Cohere's own models and queue.
_IGNORED = ("citation_options", "citation_quality", "prompt_truncation", "priority")
_UNSUPPORTED = {
    "documents": "Put their text into a message.",
    "connectors": "Put what they would find into a message.",
    "conversation_id": "Send the earlier messages instead: hubgate stores none.",
    "search_queries_only": "Ask for search queries in the message.",
    "thinking": "Omit it, or use [chat_template_kwargs] if the model's template has such a switch.",
    "logprobs": "Omit it, or use /v1/chat/completions.",
    "max_input_tokens": "Omit it.",
    "raw_prompting": "Omit it, or use /v1/completions.",
}


class _Turn(msgspec.Struct):
    """A message of version 1."""

    role: Literal["USER", "CHATBOT", "SYSTEM"]
    message: str


class _ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object"]
    json_schema: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None
    """Its name in version 1."""


def fields_of_v2(fields: Fields) -> dict[str, bytes]:
    messages = fields.take("messages", list[dict[str, Any]])
    if not messages:
        raise InvalidRequest(
            "[messages] must be a list of messages.",
            remedy='Send for example [{"role": "user", "content": "Hello"}].',
        )
    _translate(fields)
    strict, tools = fields.flag("strict_tools"), fields.take("tools", list[dict[str, Any]])
    if tools and strict:
        tools = [{**tool, "function": {**tool.get("function", {}), "strict": True}} for tool in tools]
    choice = fields.take("tool_choice", Literal["REQUIRED", "NONE"])
    return _with(
        fields,
        messages=[_message(message) for message in messages],
        tools=tools,
        tool_choice=_TOOL_CHOICES.get(choice) if choice else None,
    )


def fields_of_v1(fields: Fields) -> dict[str, bytes]:
    message, preamble = fields.take("message", str), fields.take("preamble", str)
    history: list[_Turn] = fields.take("chat_history", list[_Turn]) or []
    if not message:
        raise InvalidRequest("[message] is required.", remedy="Send the user's message as a string.")
    for name in ("tools", "tool_results"):
        if fields.take(name):
            raise InvalidRequest(f"[{name}] is not supported here.", remedy="Use /v2/chat, which has tools.")
    fields.take("force_single_step")  # concerns only tools
    _translate(fields)
    messages = [{"role": _ROLES[turn.role], "content": turn.message} for turn in history]
    if preamble:
        messages.insert(0, {"role": "system", "content": preamble})
    return _with(fields, messages=[*messages, {"role": "user", "content": message}])


def _translate(fields: Fields) -> None:
    """The parameters that both versions have."""
    for name in _IGNORED:
        fields.take(name)
    if fields.take("safety_mode", Literal["CONTEXTUAL", "STRICT", "OFF", "NONE"]) == "STRICT":
        raise InvalidRequest(
            "[safety_mode] cannot be STRICT: only Cohere's models have safety modes.", remedy="Omit it."
        )
    for name, remedy in _UNSUPPORTED.items():
        if fields.take(name):
            raise InvalidRequest(f"[{name}] is not supported here.", remedy=remedy)
    if fields.rest.get("k") == b"0":  # Cohere's word for "off"
        del fields.rest["k"]
    for name, new in _RENAMED.items():
        if name in fields:
            fields.rest[new] = fields.rest.pop(name)
    form = fields.take("response_format", _ResponseFormat)
    if form is not None and form.type == "json_object":
        fields.rest["response_format"] = msgspec.json.encode(_response_format(form))


def _response_format(form: _ResponseFormat) -> dict[str, Any]:
    schema = form.json_schema or form.schema
    if schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}


def _with(fields: Fields, **values: Any) -> dict[str, bytes]:
    return {
        **fields.rest,
        **{name: msgspec.json.encode(value) for name, value in values.items() if value is not None},
    }


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of version 2. Reasoning, plans and citations of earlier replies are not sent back."""
    plan = message.get("tool_plan")
    kept = {
        name: value
        for name, value in message.items()
        if name not in {"tool_plan", "citations", "content"} and value is not None
    }
    content = message.get("content")
    if isinstance(content, list):
        content = _content(content)
    return {**kept, "content": plan if content is None and plan else content}


def _content(parts: Iterable[Any]) -> str | list[Any]:
    """A string if all parts are texts, because not every chat template reads lists."""
    kept = [part for part in parts if not (isinstance(part, dict) and part.get("type") == "thinking")]
    texts = [_text_of(part) for part in kept]
    return kept if None in texts else "".join(text or "" for text in texts)


def _text_of(part: Any) -> str | None:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "document", "document": {"data": str(data)}}:
            return data
        case {"type": "document", "document": {"data": data}}:
            return msgspec.json.encode(data).decode()
    return None
