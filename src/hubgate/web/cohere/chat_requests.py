"""Cohere's chat requests as OpenAI's fields, which engines understand.

The parameters have other names. Fields that neither Cohere nor hubgate knows go to the engine unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.domain.errors import InvalidRequest
from hubgate.web.shared.generation import Fields, decode_items

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
_TRANSLATED = frozenset({*_IGNORED, *_UNSUPPORTED, *_RENAMED, "safety_mode", "response_format"})
_NULL = b"null"
_EMPTY = frozenset({b'""', b"[]", b"{}", b"false", b"0"})
_TOOL_FIELDS = frozenset({"strict_tools", "tools", "tool_choice"})


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message of version 2 that engines understand as it is."""

    role: str
    content: str


_PLAIN_MESSAGES = msgspec.json.Decoder(Annotated[list[_PlainMessage], msgspec.Meta(min_length=1)])


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
    rest = fields.rest
    if not _are_plain(rest.get("messages", b"")):
        rest["messages"] = _translated_messages(fields)
    _translate(fields)
    if not _TOOL_FIELDS.isdisjoint(rest):
        _translate_tools(fields)
    return rest


def fields_of_v1(fields: Fields) -> dict[str, bytes]:
    message, preamble = fields.take("message", str), fields.take("preamble", str)
    history: list[_Turn] = fields.take_items("chat_history", _Turn) or []
    if not message:
        raise InvalidRequest("[message] is required.", remedy="Send the user's message as a string.")
    for name in ("tools", "tool_results"):
        if _is_given(fields, name):
            raise InvalidRequest(f"[{name}] is not supported here.", remedy="Use /v2/chat, which has tools.")
    fields.take("force_single_step")  # concerns only tools
    _translate(fields)
    messages = [{"role": _ROLES[turn.role], "content": turn.message} for turn in history]
    if preamble:
        messages.insert(0, {"role": "system", "content": preamble})
    messages.append({"role": "user", "content": message})
    return {**fields.rest, "messages": msgspec.json.encode(messages)}


def _translate(fields: Fields) -> None:
    """The parameters that both versions have."""
    if _TRANSLATED.isdisjoint(fields.rest):
        return
    for name in _IGNORED:
        fields.rest.pop(name, None)
    if fields.take("safety_mode", Literal["CONTEXTUAL", "STRICT", "OFF", "NONE"]) == "STRICT":
        raise InvalidRequest(
            "[safety_mode] cannot be STRICT: only Cohere's models have safety modes.", remedy="Omit it."
        )
    for name, remedy in _UNSUPPORTED.items():
        if _is_given(fields, name):
            raise InvalidRequest(f"[{name}] is not supported here.", remedy=remedy)
    if fields.rest.get("k") == b"0":  # Cohere's word for "off"
        del fields.rest["k"]
    for name, new in _RENAMED.items():
        if name in fields:
            fields.rest[new] = fields.rest.pop(name)
    form = fields.take("response_format", _ResponseFormat)
    if form is not None and form.type == "json_object":
        fields.rest["response_format"] = msgspec.json.encode(_response_format(form))


def _is_given(fields: Fields, name: str) -> bool:
    """Whether a field has a value other than an empty one. A large value is not decoded."""
    if len(fields.rest.get(name, b"")) > LARGE_BYTES:
        return True
    return bool(fields.take(name))


def _response_format(form: _ResponseFormat) -> dict[str, Any]:
    schema = form.json_schema or form.schema
    if schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}


def _translate_tools(fields: Fields) -> None:
    strict, tools = fields.flag("strict_tools"), fields.take_items("tools", dict[str, Any])
    if tools and strict:
        tools = [{**tool, "function": {**tool.get("function", {}), "strict": True}} for tool in tools]
    if tools is not None:
        fields.rest["tools"] = msgspec.json.encode(tools)
    if choice := fields.take("tool_choice", Literal["REQUIRED", "NONE"]):
        fields.rest["tool_choice"] = msgspec.json.encode(_TOOL_CHOICES[choice])


def _are_plain(messages: bytes) -> bool:
    """Whether these are valid messages that need no translation."""
    try:
        _PLAIN_MESSAGES.decode(messages)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _translated_messages(fields: Fields) -> bytes:
    messages = fields.take_items("messages", dict[str, msgspec.Raw])
    if not messages:
        raise InvalidRequest(
            "[messages] must be a list of messages.",
            remedy='Send for example [{"role": "user", "content": "Hello"}].',
        )
    return msgspec.json.encode([_message(message) for message in messages])


def _message(message: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """A message of version 2. Reasoning, plans and citations of earlier replies are not sent back."""
    given: dict[str, Any] = {name: value for name, value in message.items() if bytes(value) != _NULL}
    plan, content = given.pop("tool_plan", None), given.pop("content", None)
    given.pop("citations", None)
    if content is not None and bytes(content).startswith(b"["):
        content = _content(decode_items(bytes(content), Any, "content"))
    has_plan = content is None and plan is not None and bytes(plan) not in _EMPTY
    return {**given, "content": plan if has_plan else content}


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
