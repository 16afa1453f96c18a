"""The body of `POST /v1/responses` as a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.domain.calls import Chat, Context
from hubgate.domain.errors import InvalidRequest
from hubgate.web.responses.input_items import Item, messages_of
from hubgate.web.responses.response import rest_of_response
from hubgate.web.shared.generation import Fields

LOGPROBS = "message.output_text.logprobs"
_STATELESS = "hubgate stores no responses."
_REFUSED = {
    "previous_response_id": (_STATELESS, "Send the items of the earlier turns again in [input]."),
    "conversation": (_STATELESS, "Send the items of the earlier turns in [input]."),
    "prompt": ("hubgate stores no prompt templates.", "Send the text in [instructions] and [input]."),
    "context_management": (
        "hubgate does not shorten conversations.",
        "Send fewer items when a conversation becomes too long for the model.",
    ),
}
_WITHOUT_EFFECT = frozenset(
    {
        "include",
        "max_tool_calls",
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "truncation",
    }
)
"""Fields for services that only OpenAI has."""
_DROPPED = _WITHOUT_EFFECT - {"include", "metadata"}
"""Those that a server with a route of its own does not get either."""
_CONVERTED = frozenset({"include", "parallel_tool_calls", "text", "tool_choice", "tools", "top_logprobs"})
"""The fields that `_tools`, `_text` and `_logprobs` take."""
_UNLIKE_CHAT = frozenset({*_REFUSED, "background", "reasoning", *_CONVERTED, *_WITHOUT_EFFECT})
"""The fields that no engine gets as they are."""
_TEXT_TYPE = msgspec.Raw(b'"text"')


class _Tool(msgspec.Struct, gc=False):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


class _Named(msgspec.Struct, gc=False):
    name: str | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    function: _Named | None = None
    """Vercel's Hugging Face provider sends the name here, as in a chat."""
    mode: Literal["auto", "required"] = "auto"
    tools: list[_Named] = []


class _Text(msgspec.Struct):
    format: dict[str, msgspec.Raw] | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    """The former name of `summary`."""


_INPUT = str | list[Item]
_CHOICE = Literal["none", "auto", "required"] | _ToolChoice


class ResponseRequest(msgspec.Struct, gc=False):
    call: Chat
    streamed: bool
    rest: bytes
    """The rest of its response: see `rest_of_response`."""
    summarized: bool
    """Whether its response has a summary of the reasoning."""


def parse_request(fields: Fields, context: Context) -> ResponseRequest:
    """The request of a body without `model`.

    Raises:
        InvalidRequest: it is not valid, or needs state or tools that hubgate does not have.
    """
    streamed = fields.flag("stream")
    given = dict(fields.rest)
    chat, native, summarized = {}, given, False
    if not _UNLIKE_CHAT.isdisjoint(given):
        _refuse_state(fields)
        reasoning: _Reasoning = fields.take("reasoning", _Reasoning) or _Reasoning()
        chat, native = _converted(fields, reasoning), _native(given)
        summarized = bool(reasoning.summary or reasoning.generate_summary)
    items = _input(fields)
    messages = messages_of(fields.take("instructions", str), items)
    if "max_output_tokens" in fields.rest:
        fields.rest["max_tokens"] = fields.rest.pop("max_output_tokens")
    call = Chat(
        fields={"messages": msgspec.json.encode(messages), **chat, **fields.rest},
        responses=None if summarized or _has_reference(items) else native,
        context=context,
    )
    return ResponseRequest(call, streamed, rest_of_response(given), summarized)


def _input(fields: Fields) -> str | list[Item]:
    # To find the decoder of a union takes longer than to decode a text.
    raw = fields.rest.get("input", b"")
    is_large_list = len(raw) > LARGE_BYTES and raw.startswith(b"[")
    given: str | list[Item] | None
    if is_large_list:
        given = fields.take_items("input", Item)
    else:
        given = fields.take("input", str if raw.startswith(b'"') else _INPUT)
    if given is None:
        raise InvalidRequest("[input] is required.", remedy="Send a string, or a list of items.")
    return given


def _has_reference(items: str | list[Item]) -> bool:
    return not isinstance(items, str) and any(item.type == "item_reference" for item in items)


def _refuse_state(fields: Fields) -> None:
    for name, (reason, remedy) in _REFUSED.items():
        if name in fields.rest:
            raise InvalidRequest(f"[{name}] is not supported: {reason}", remedy=remedy)
    if fields.flag("background"):
        raise InvalidRequest(
            f"[background] is not supported: {_STATELESS}",
            remedy="Omit it, and set [stream] for long responses.",
        )


def _converted(fields: Fields, reasoning: _Reasoning) -> dict[str, bytes]:
    """The fields of a chat for those that it has in another form. What only OpenAI has is left out."""
    chat = {**_tools(fields), **_text(fields), **_logprobs(fields)}
    for name in _WITHOUT_EFFECT & fields.rest.keys():
        del fields.rest[name]
    if reasoning.effort:
        fields.rest["reasoning_effort"] = msgspec.json.encode(reasoning.effort)
    return {name: msgspec.json.encode(value) for name, value in chat.items()}


def _tools(fields: Fields) -> dict[str, object]:
    tools: list[_Tool] = fields.take_items("tools", _Tool) or []
    choice: str | _ToolChoice | None = fields.take("tool_choice", _CHOICE)
    for index, tool in enumerate(tools):
        if tool.type != "function" or not tool.name:
            raise _unsupported_tool(f"tools[{index}]", tool.type)
    chosen: object = choice
    if isinstance(choice, _ToolChoice):
        names, chosen = _chosen(choice)
        tools = [tool for tool in tools if tool.name in names] if choice.type == "allowed_tools" else tools
    if not tools:
        if chosen not in (None, "auto", "none"):
            raise InvalidRequest("[tool_choice] requires a tool, but [tools] has none to choose.")
        fields.take("parallel_tool_calls")  # engines refuse it, and a choice, without tools
        return {}
    chat: dict[str, object] = {"tools": [_chat_tool(tool) for tool in tools]}
    return chat if chosen is None else chat | {"tool_choice": chosen}


def _chosen(choice: _ToolChoice) -> tuple[frozenset[str | None], object]:
    """The names of the tools that may be called, and the choice among them as in a chat."""
    if choice.type == "allowed_tools":
        return frozenset(tool.name for tool in choice.tools), choice.mode
    name = choice.function.name if choice.function else choice.name
    if choice.type != "function" or not name:
        raise _unsupported_tool("tool_choice", choice.type)
    return frozenset({name}), {"type": "function", "function": {"name": name}}


def _chat_tool(tool: _Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if bytes(tool.parameters) not in {b"", b"null"}:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _unsupported_tool(where: str, kind: str) -> InvalidRequest:
    return InvalidRequest(
        f"[{where}] has the type [{kind[:100]}]. hubgate supports function tools, with a name; OpenAI runs the others.",
        remedy="Declare it as a function tool, and run it in the application when the model calls it.",
    )


def _text(fields: Fields) -> dict[str, object]:
    text: _Text = fields.take("text", _Text) or _Text()
    chat: dict[str, object] = {"verbosity": text.verbosity} if text.verbosity else {}
    form = {name: value for name, value in (text.format or {}).items() if bytes(value) != b"null"}
    kind = bytes(form.pop("type", _TEXT_TYPE))
    if kind == b'"json_schema"':
        if not {"name", "schema"} <= form.keys():
            raise InvalidRequest("[text.format] must have a [name] and a [schema].")
        return chat | {"response_format": {"type": "json_schema", "json_schema": form}}
    if kind == b'"json_object"':
        return chat | {"response_format": {"type": "json_object"}}
    if kind != b'"text"':
        raise InvalidRequest("[text.format.type] must be text, json_object or json_schema.")
    return chat


def _logprobs(fields: Fields) -> dict[str, object]:
    top = fields.take("top_logprobs", int) or 0
    wanted = LOGPROBS in (fields.take("include", list[str]) or ())
    return {"logprobs": True, "top_logprobs": top} if wanted or top else {}


def _native(given: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fields for a server with a route of its own: those that have an effect."""
    return {
        name: value for name, value in given.items() if name not in _DROPPED and not _is_noop(name, value)
    }


def _is_noop(name: str, value: bytes) -> bool:
    try:
        return name in _NOOPS and msgspec.json.decode(value) in _NOOPS[name]
    except (msgspec.MsgspecError, ValueError, RecursionError):  # in a part that nothing here reads
        return False


_NOOPS: Mapping[str, tuple[object, ...]] = {
    "include": ([], ["reasoning.encrypted_content"]),
    "parallel_tool_calls": (True,),
    "text": (
        {},
        {"format": {"type": "text"}},
        {"verbosity": None},
        {"format": {"type": "text"}, "verbosity": None},
    ),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_logprobs": (0,),
}
