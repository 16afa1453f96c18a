"""Bodies made of raw JSON values: what is not respelled goes to the server byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import orjson

from hubgate.domain.errors import InvalidRequest
from hubgate.upstreams.http.messages import HttpRequest

NULL, TRUE, FALSE = b"null", b"true", b"false"
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "adapter_id": ("",),
    "best_of": (1,),
    "decoder_input_details": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "grammar": ("", {}),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "n": (1,),
    "presence_penalty": (0,),
    "stop": ("", []),
    "suffix": ("",),
    "top_logprobs": (0,),
    "top_n_tokens": (0,),
    "truncate": (0,),
    "typical_p": (1, 0.95),  # langchain's HuggingFaceEndpoint sends 0.95 unless it is told not to
    "watermark": (False,),
}
"""Values that ask for nothing: clients send them unasked, and a server that does not know the name does the same."""
_EMPTY: tuple[object, ...] = (False, 0, "", [], {})
"""The same of any other name."""


def json_object(fields: Mapping[str, bytes]) -> bytes:
    """The object of these fields, in their order."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + raw for name, raw in fields.items()) + b"}"


def json_text(text: str) -> bytes:
    """A text as JSON.

    Raises:
        InvalidRequest: it holds half of a surrogate pair, which no encoding can carry.
    """
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(
            "A text is not valid Unicode: it holds half of a surrogate pair.", remedy="Repair the text."
        ) from error


def post(url: str, body: bytes) -> HttpRequest:
    """A POST of a JSON body."""
    return HttpRequest(method="POST", url=url, headers={"Content-Type": "application/json"}, body=body)


def renamed(fields: Mapping[str, bytes], names: Mapping[str, str]) -> dict[str, bytes]:
    """The fields under the names that the server knows; of two that become one, the one of the old name stays."""
    taken = {names[name] for name in fields if name in names}
    return {names.get(name, name): raw for name, raw in fields.items() if name not in taken}


def said(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fields without those that are null, which many clients send for what they do not want."""
    return {name: raw for name, raw in fields.items() if raw != NULL}


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_OPAQUE = frozenset({"arguments", "input", "parameters"})
"""Values that belong to a tool, where a null has a meaning."""
_DEEPEST = 6
"""Lists and objects in one another: a function of a tool call of a message, and one more."""


def without_nulls(messages: bytes) -> bytes:
    """Messages without the members that are null, which clients send for what they do not use.

    Servers refuse some of them (llama.cpp `name`, transformers serve `tool_calls`). `content` stays: some servers want
    it beside `tool_calls`, null or not.
    """
    if NULL not in messages:
        return messages
    try:
        return _without_nulls(messages, _DEEPEST)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return messages  # the server says what is wrong with it


def _without_nulls(raw: bytes, depth: int) -> bytes:
    if not depth or NULL not in raw or raw[:1] not in {b"[", b"{"}:
        return raw
    if raw[:1] == b"[":
        return b"[" + b",".join(_without_nulls(bytes(item), depth - 1) for item in _ITEMS.decode(raw)) + b"]"
    kept = ((name, bytes(value)) for name, value in _MEMBERS.decode(raw).items())
    return json_object(
        {
            name: value if name in _OPAQUE else _without_nulls(value, depth - 1)
            for name, value in kept
            if value != NULL or name == "content"
        }
    )


def listed(raw: bytes) -> bytes:
    """A text or a list of texts, as a list."""
    return b"[" + raw + b"]" if raw[:1] == b'"' else raw


_STOPS = msgspec.json.Decoder(str | list[str] | None)


def stops_in(fields: Mapping[str, bytes]) -> list[str]:
    """The texts at which to end.

    Raises:
        InvalidRequest: they are something else.
    """
    try:
        stops = _STOPS.decode(fields.get("stop", NULL))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest("[stop] must be a text, or a list of texts.") from error
    return [stops] if isinstance(stops, str) else stops or []


def is_neutral(name: str, raw: bytes) -> bool:
    """Whether a well-known parameter asks for nothing, so that a server that does not know it does as is asked."""
    return name in _NEUTRAL and _value(raw) in _NEUTRAL[name]


def is_off(name: str, raw: bytes) -> bool:
    """The same of any parameter, by the custom that false, 0 and what is empty ask for nothing."""
    return _value(raw) in _NEUTRAL.get(name, _EMPTY)


def _value(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw


def unknown(server: str, names: Iterable[str]) -> InvalidRequest:
    """The error for parameters that a server would pass over in silence."""
    named = ", ".join(f"[{name}]" for name in sorted(names))
    return InvalidRequest(
        f"This endpoint's server, {server}, knows no {named}.", remedy="Leave out what it does not know."
    )
