"""The fields of `Chat` and `Complete` as a local model takes them. What it would ignore is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from hubgate.domain.calls import Chat, GenerationCall
from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.protocol import SamplingOptions
from hubgate.upstreams.engines import json_fields as raw

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
_Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_SERVER = "a local model"
_FIELDS: Mapping[str, tuple[str, Any]] = {
    "max_tokens": ("max_tokens", _Count),
    "max_completion_tokens": ("max_tokens", _Count),
    "do_sample": ("sample", bool),
    "temperature": ("temperature", Annotated[float, msgspec.Meta(ge=0, le=100)]),
    "top_p": ("top_p", Annotated[float, msgspec.Meta(gt=0, le=1)]),
    "top_k": ("top_k", Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]),
    "min_p": ("min_p", Annotated[float, msgspec.Meta(ge=0, lt=1)]),
    "seed": ("seed", int),
    "repetition_penalty": ("repetition_penalty", Annotated[float, msgspec.Meta(gt=0, le=100)]),
    "presence_penalty": ("presence_penalty", _Penalty),
    "frequency_penalty": ("frequency_penalty", _Penalty),
}
"""By name: the option, and its type and range."""
_WITHOUT_EFFECT = frozenset(
    {
        "details",
        "echo",
        "metadata",
        "model",
        "prompt_cache_key",
        "return_full_text",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""About the caller or the reply's format, not about the text."""
_TOOLS = frozenset({"parallel_tool_calls", "tool_choice", "tools"})
_TEXT_FORMAT = {"type": "text"}


def sampling_options(call: GenerationCall) -> SamplingOptions:
    """The options of a call.

    Raises:
        InvalidRequest: one has no valid value, or is not supported.
    """
    fields = raw.without_null_fields(call.fields)
    options: dict[str, Any] = {"stop": raw.stop_sequences(fields)}
    refused = set()
    for name, value in fields.items():
        if name in _FIELDS:
            option, kind = _FIELDS[name]
            options[option] = _decode(name, value, kind)
        elif not _is_accepted(call, name, value, fields):
            refused.add(name)
    if refused:
        raise raw.unsupported_parameters(_SERVER, refused)
    if options.get("top_k", 0) < 0:  # vLLM's value for no limit
        options["top_k"] = 0
    if "seed" in options:
        options["seed"] %= 2**31
    return SamplingOptions(**options)


def messages_of(call: Chat) -> list[dict[str, Any]]:
    """The messages of a chat, with text as their content.

    Raises:
        InvalidRequest: they are not a list of messages, or not text.
    """
    messages = _decode("messages", call.fields.get("messages", b"[]"), list[dict[str, Any]])
    if not messages:
        raise InvalidRequest("[messages] must be a list of at least one message.")
    return [_message(index, message) for index, message in enumerate(messages)]


def template_options(call: Chat) -> dict[str, Any]:
    """Further variables for the chat template: vLLM's `chat_template_kwargs`, such as `enable_thinking`.

    Raises:
        InvalidRequest: it is not an object.
    """
    name = "chat_template_kwargs"
    options: dict[str, Any] = _decode(name, call.fields.get(name, b"{}"), dict[str, Any] | None) or {}
    if reserved := sorted({"messages", "add_generation_prompt"} & options.keys()):
        raise InvalidRequest(f"[{name}] cannot set [{reserved[0]}].")
    return options


def _message(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message.get("role"), str):
        raise InvalidRequest(f"[messages][{index}] must have a [role].")
    kept = {name: value for name, value in message.items() if value is not None}
    content = kept.get("content", "")
    if isinstance(content, list):
        content = "\n".join(_part(index, part) for part in content)
    if not isinstance(content, str):
        raise InvalidRequest(f"[messages][{index}][content] must be text, or a list of text parts.")
    return {**kept, "content": content}


def _part(index: int, part: object) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
    if not isinstance(text, str):
        raise InvalidRequest(
            f"[messages][{index}][content] has a part that is not text, and local models read text only.",
            remedy="Send text, or use an endpoint whose model reads other content.",
        )
    return text


def _is_accepted(call: GenerationCall, name: str, value: bytes, fields: Mapping[str, bytes]) -> bool:
    if name in {"messages", "chat_template_kwargs"}:
        return isinstance(call, Chat)
    if name == "stop" or name in _WITHOUT_EFFECT or raw.is_noop(name, value):
        return True
    if name in _TOOLS:
        return fields.get("tool_choice") == b'"none"' or raw.is_noop("tools", fields.get("tools", b"[]"))
    return name == "response_format" and _decode(name, value, Any) == _TEXT_FORMAT


def _decode(name: str, value: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"[{name}] is not valid: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(f"[{name}] is not valid JSON.") from None
