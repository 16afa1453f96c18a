"""`response_format`: the spellings in which servers take the schema of a JSON answer.

    {"type": "json_schema", "json_schema": {"name", "schema"}}   OpenAI, vLLM, SGLang, llama.cpp, most providers
    {"type": "json_object", "value": schema}                     text-generation-inference, and HF's clients to it
    {"type": "json", "value": schema}                            the same, as `grammar` of its own route
    {"type": "json_schema", "value": {"name", "schema"}}         the same, where the schema has a name
    {"type": "json_object", "schema": schema}                    Cohere, Fireworks
    {"type": "json_schema", "schema": schema}                    Together

What holds no schema (`text`, a bare `json_object`, a regular expression) is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec

from hubgate.upstreams.engines.requests.raw_fields import json_object


class _Named(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()


class _Format(msgspec.Struct):
    type: str | None = None
    value: msgspec.Raw = msgspec.Raw()
    schema: msgspec.Raw = msgspec.Raw()
    json_schema: _Named | None = None


_FORMAT = msgspec.json.Decoder(_Format)
_NAMED = msgspec.json.Decoder(_Named)


def _openai(schema: bytes) -> bytes:
    named = json_object({"name": b'"answer"', "schema": schema})
    return json_object({"type": b'"json_schema"', "json_schema": named})


class Schemas(Enum):
    """How a server wants a schema."""

    OPENAI = (_openai,)
    TGI = (lambda schema: json_object({"type": b'"json_object"', "value": schema}),)
    GRAMMAR = (lambda schema: json_object({"type": b'"json"', "value": schema}),)

    def respelled(self, raw: bytes) -> bytes:
        """A `response_format` or a `grammar` in this spelling."""
        wanted = _read(raw)
        if wanted is None or (self is Schemas.OPENAI and wanted.json_schema is not None):
            return raw
        schema = _schema(wanted)
        write: Callable[[bytes], bytes] = self.value[0]
        return write(schema) if schema else raw


def _read(raw: bytes) -> _Format | None:
    try:
        wanted = _FORMAT.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return wanted if wanted.type in {"json_schema", "json_object", "json"} else None


def _schema(wanted: _Format) -> bytes:
    """The schema, as it was written; nothing if there is none."""
    named = wanted.json_schema
    value = bytes(wanted.value)
    if wanted.type == "json_schema" and value[:1] == b"{":
        named = _NAMED.decode(value)
    found = (bytes(named.schema) if named else value) or bytes(wanted.schema)
    return found if found[:1] == b"{" else b""


def schema_in(raw: bytes) -> bytes:
    """The schema in a `response_format` or a `grammar`, as it was written; nothing if there is none."""
    wanted = _read(raw)
    return _schema(wanted) if wanted else b""
