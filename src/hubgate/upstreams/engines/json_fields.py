"""Request bodies made of raw JSON values: fields that need no translation reach the server byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import orjson

from hubgate.domain.errors import InvalidRequest
from hubgate.upstreams.http.messages import HttpRequest, render_headers

NULL, TRUE, FALSE = b"null", b"true", b"false"
_JSON_LINES = render_headers({"Content-Type": "application/json"})
_NOOP_VALUES: Mapping[str, tuple[object, ...]] = {
    "adapter_id": ("",),
    "best_of": (1,),
    "decoder_input_details": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "grammar": ("", {}),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"}, {}),
    "stop": ("", []),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "top_n_tokens": (0,),
    "truncate": (0,),
    "typical_p": (1, 0.95),  # langchain's HuggingFaceEndpoint sends 0.95 by default
    "watermark": (False,),
}
"""Values without effect, which clients send by default: a server that does not know the parameter acts the same."""
_KEYS: dict[str, bytes] = {}
_MAX_KEPT_NAME, _MAX_KEPT_NAMES = 64, 256
_EMPTY: tuple[object, ...] = (False, 0, "", [], {})


def encode(value: object) -> bytes:
    """A value as JSON.

    Raises:
        InvalidRequest: a text contains half of a surrogate pair, which no encoding can represent.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(
            "A text is not valid Unicode: it contains half of a surrogate pair.", remedy="Repair the text."
        ) from error


def json_object(fields: Mapping[str, bytes]) -> bytes:
    """The JSON object of raw fields, in their order."""
    parts: list[bytes] = []
    for name, value in fields.items():
        parts += (b",", _KEYS.get(name) or _key(name), value)
    parts[:1] = [b"{"]
    parts.append(b"}")
    return b"".join(parts)


def _key(name: str) -> bytes:
    """A field's name as JSON, with its colon. The names of parameters are kept; others may be anything."""
    key = encode(name) + b":"
    if len(name) <= _MAX_KEPT_NAME and len(_KEYS) < _MAX_KEPT_NAMES:
        _KEYS[name] = key
    return key


def post(url: str, body: bytes) -> HttpRequest:
    """A POST of a JSON body."""
    return HttpRequest(method="POST", url=url, lines=_JSON_LINES, body=body)


def rename(fields: Mapping[str, bytes], names: Mapping[str, str]) -> dict[str, bytes]:
    """The fields under the server's names. If two fields get the same name, the renamed one wins."""
    if not names:
        return dict(fields)
    taken = {names[name] for name in fields if name in names}
    return {names.get(name, name): raw for name, raw in fields.items() if name not in taken}


def without_null_fields(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fields without nulls, which many clients send for unset parameters."""
    return {name: raw for name, raw in fields.items() if raw != NULL}


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_OPAQUE = frozenset({"arguments", "input", "parameters"})
"""Values that belong to a tool, where null has a meaning."""
_MAX_DEPTH = 6
"""Nested lists and objects: messages, message, tool calls, tool call, function, and one more."""


def without_nulls(messages: bytes) -> bytes:
    """Messages without null members.

    Some servers refuse them (llama.cpp `name`, transformers serve `tool_calls`). `content` stays: some servers
    require it beside `tool_calls`, null or not.
    """
    if NULL not in messages:
        return messages
    try:
        return _without_nulls(messages, _MAX_DEPTH)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return messages  # the server reports what is wrong with it


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


def as_list(raw: bytes) -> bytes:
    """A text or a list of texts, as a list."""
    return b"[" + raw + b"]" if raw[:1] == b'"' else raw


_STOP = msgspec.json.Decoder(str | list[str] | None)


def stop_sequences(fields: Mapping[str, bytes]) -> list[str]:
    """The values of `stop`.

    Raises:
        InvalidRequest: it is neither a text nor a list of texts.
    """
    try:
        stops = _STOP.decode(fields.get("stop", NULL))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest("[stop] must be a text, or a list of texts.") from error
    return [stops] if isinstance(stops, str) else stops or []


def is_known_noop(name: str, raw: bytes) -> bool:
    """Whether this is a well-known parameter at a value without effect."""
    return name in _NOOP_VALUES and _value(raw) in _NOOP_VALUES[name]


def is_noop(name: str, raw: bytes) -> bool:
    """The same for any parameter, assuming that false, 0 and empty values have no effect."""
    return _value(raw) in _NOOP_VALUES.get(name, _EMPTY)


def _value(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw


def unsupported_parameters(server: str, names: Iterable[str]) -> InvalidRequest:
    """The error for parameters that a server would silently ignore."""
    listed = ", ".join(f"[{name}]" for name in sorted(names))
    return InvalidRequest(
        f"This endpoint's server, {server}, does not support {listed}.",
        remedy="Leave out what it does not support.",
    )
