"""The body of `POST /v1/responses` as a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from hubgate.domain.calls import Chat, Context
from hubgate.domain.errors import InvalidRequest
from hubgate.web.responses.input_items import Item, messages_of
from hubgate.web.responses.response import Repeated
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
_STATEFUL = _REFUSED.keys() | {"background"}
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
_REPEATED = frozenset(Repeated.__struct_fields__)
_CONVERTED = frozenset({"include", "parallel_tool_calls", "text", "tool_choice", "tools", "top_logprobs"})
"""The fields that `_tools`, `_text` and `_logprobs` take."""
_TEXT_TYPE = msgspec.Raw(b'"text"')


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


class _Named(msgspec.Struct):
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
_TOOLS = list[_Tool]
_CHOICE = Literal["none", "auto", "required"] | _ToolChoice


class ResponseRequest(msgspec.Struct, gc=False):
    """A request.

    `call` is the chat, `repeated` the fields that the response repeats, and `summarized` whether it has a summary of the
    reasoning.
    """

    call: Chat
    streamed: bool
    repeated: Mapping[str, msgspec.Raw]
    summarized: bool


def parse_request(fields: Fields, context: Context) -> ResponseRequest:
    """The request of a body without `model`.

    Raises:
        InvalidRequest: it is not valid, or needs state or tools that hubgate does not have.
    """
    streamed = fields.flag("stream")
    if not _STATEFUL.isdisjoint(fields.rest):
        _refuse_state(fields)
    given = dict(fields.rest)
    repeated = {name: msgspec.Raw(raw) for name, raw in given.items() if name in _REPEATED}
    reasoning: _Reasoning | None = fields.take("reasoning", _Reasoning)
    chat = _chat_fields(fields)
    if reasoning and reasoning.effort:
        chat["reasoning_effort"] = msgspec.json.encode(reasoning.effort)
    summarized = bool(reasoning and (reasoning.summary or reasoning.generate_summary))
    native = None if summarized or given["input"].find(b'"item_reference"') >= 0 else _native(given)
    call = Chat(fields=chat, responses=native, context=context)
    return ResponseRequest(call, streamed, repeated, summarized)


def _refuse_state(fields: Fields) -> None:
    for name, (reason, remedy) in _REFUSED.items():
        if name in fields.rest:
            raise InvalidRequest(f"[{name}] is not supported: {reason}", remedy=remedy)
    if fields.flag("background"):
        raise InvalidRequest(
            f"[background] is not supported: {_STATELESS}",
            remedy="Omit it, and set [stream] for long responses.",
        )


def _chat_fields(fields: Fields) -> dict[str, bytes]:
    """Fields that are not OpenAI's go to the engine unchanged."""
    is_text = fields.rest.get("input", b"").startswith(b'"')
    given = fields.take("input", str if is_text else _INPUT)  # the hash of a union costs more than the rest
    if given is None:
        raise InvalidRequest("[input] is required.", remedy="Send a string, or a list of items.")
    rest = fields.rest
    chat = {"messages": msgspec.json.encode(messages_of(fields.take("instructions", str), given))}
    if not _CONVERTED.isdisjoint(rest):
        for part in (_tools, _text, _logprobs):
            chat |= {name: msgspec.json.encode(value) for name, value in part(fields).items()}
    if "max_output_tokens" in rest:
        rest["max_tokens"] = rest.pop("max_output_tokens")
    if not _WITHOUT_EFFECT.isdisjoint(rest):
        rest = {name: value for name, value in rest.items() if name not in _WITHOUT_EFFECT}
    return chat | rest


def _tools(fields: Fields) -> dict[str, object]:
    tools: list[_Tool] = fields.take("tools", _TOOLS) or []
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
        name: value
        for name, value in given.items()
        if name not in _DROPPED and not (name in _NOOPS and _is_noop(name, value))
    }


def _is_noop(name: str, value: bytes) -> bool:
    try:
        return msgspec.json.decode(value) in _NOOPS[name]
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
