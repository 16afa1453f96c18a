"""The `input` of a request as the messages of a chat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from hubgate.domain.errors import InvalidRequest

Message: TypeAlias = dict[str, Any]
_PARAGRAPH = "\n\n"
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""The chat templates of open models know no `developer`."""
REASONING_ID = "rs_"
"""How the ids of reasoning items begin."""


class Part(msgspec.Struct, gc=False):
    """A part of the content of a message, or of the output of a tool."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    input_audio: msgspec.Raw = msgspec.Raw()


Content: TypeAlias = str | list[Part]


class Item(msgspec.Struct, gc=False):
    """An item of any type; fields of other types are ignored."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Content | None = None


def messages_of(instructions: str | None, given: str | Sequence[Item]) -> list[Message]:
    """The messages of a chat.

    Text that an assistant writes in several items becomes one message, together with its tool calls: many chat
    templates require that roles alternate, and that only the first message is the system's. Reasoning is left out, as
    those templates leave it out.

    Raises:
        InvalidRequest: an item is not valid, or needs what hubgate does not store.
    """
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not given:
        raise InvalidRequest("[input] is empty.", remedy="Send a string, or at least one item.")
    for index, item in enumerate(given):
        where = f"input[{index}]"
        add = _ADD.get(item.type or "message")
        if add is None:
            raise _unsupported_item(item, where)
        add(messages, item, where)
    return messages


def _add_message(messages: list[Message], item: Item, where: str) -> None:
    role = _ROLES.get(item.role or "")
    if role is None or item.content is None:
        raise InvalidRequest(
            f"[{where}] must have a [role] (user, assistant, system or developer) and a [content]."
        )
    content = _content(item.content, f"{where}.content", joined=role != "user")
    if role == "assistant" and not isinstance(content, str):
        raise InvalidRequest(f"[{where}] is an assistant's message, so its content can only be text.")
    last = messages[-1] if messages else {}
    is_same = last.get("role") == role and "tool_calls" not in last
    leads = role == "system" and len(messages) == 1
    if (
        is_same
        and (role == "assistant" or leads)
        and isinstance(last["content"], str)
        and isinstance(content, str)
    ):
        last["content"] += _PARAGRAPH + content
    else:
        messages.append({"role": role, "content": content})


def _add_call(messages: list[Message], item: Item, where: str) -> None:
    if item.call_id is None or item.name is None or item.arguments is None:
        raise InvalidRequest(f"[{where}] is a function call: it must have [call_id], [name] and [arguments].")
    call = {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": item.arguments},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _add_output(messages: list[Message], item: Item, where: str) -> None:
    if item.call_id is None or item.output is None:
        raise InvalidRequest(f"[{where}] is the output of a function: it must have [call_id] and [output].")
    content = _content(item.output, f"{where}.output", joined=True)
    messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})


def _skip(messages: list[Message], item: Item, where: str) -> None:
    """Reasoning of earlier turns."""


def _skip_reference(messages: list[Message], item: Item, where: str) -> None:
    if not (item.id or "").startswith(REASONING_ID):
        raise _unsupported_item(item, where)


_ADD: Mapping[str, Callable[[list[Message], Item, str], None]] = {
    "message": _add_message,
    "function_call": _add_call,
    "function_call_output": _add_output,
    "reasoning": _skip,
    "item_reference": _skip_reference,
}


def _unsupported_item(item: Item, where: str) -> InvalidRequest:
    if item.type == "item_reference":
        return InvalidRequest(
            f"[{where}] refers to an earlier item, but hubgate stores no responses.",
            remedy="Send the item itself. Vercel's AI SDK does so with the provider option store: false.",
        )
    return InvalidRequest(
        f"[{where}] has the type [{(item.type or '')[:100]}], which only OpenAI's own tools produce.",
        remedy="Send messages, function calls and their outputs.",
    )


def _content(content: Content, where: str, *, joined: bool) -> str | list[dict[str, Any]]:
    """The content of a chat's message: a string for one text, which every chat template accepts.

    Args:
        content: of the item.
        where: the item is.
        joined: whether several texts become one, too.
    """
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    is_text = all(part["type"] == "text" for part in parts)
    if is_text and (joined or len(parts) == 1):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Part, where: str) -> dict[str, Any]:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type in {"input_text", "output_text", "refusal", "text"} and text is not None:
        return {"type": "text", "text": text}
    if part.type == "input_image" and part.image_url is not None:
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
    if part.type == "input_audio" and part.input_audio:
        return {"type": "input_audio", "input_audio": part.input_audio}
    if part.type in {"input_image", "input_file"}:
        raise InvalidRequest(
            f"[{where}] is a file, and hubgate stores and reads none.",
            remedy="Send an image as [image_url], with a URL or a data URL, and other files as text.",
        )
    raise InvalidRequest(
        f"[{where}] is not a valid part of a message: its type is [{part.type[:100]}].",
        remedy="Send parts of the types input_text, output_text and input_image.",
    )
