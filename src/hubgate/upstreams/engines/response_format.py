"""`response_format`: the formats in which servers take the schema of a JSON answer.

    {"type": "json_schema", "json_schema": {"name", "schema"}}   OpenAI, vLLM, SGLang, llama.cpp, most providers
    {"type": "json_object", "value": schema}                     text-generation-inference, and HF's clients to it
    {"type": "json", "value": schema}                            the same, as `grammar` of its own route
    {"type": "json_schema", "value": {"name", "schema"}}         the same, where the schema has a name
    {"type": "json_object", "schema": schema}                    Cohere, Fireworks
    {"type": "json_schema", "schema": schema}                    Together

A value without a schema (`text`, a bare `json_object`, a regular expression) is passed on unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec

from hubgate.upstreams.engines.json_fields import json_object


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
    """The format that a server takes."""

    OPENAI = (_openai,)
    TGI = (lambda schema: json_object({"type": b'"json_object"', "value": schema}),)
    GRAMMAR = (lambda schema: json_object({"type": b'"json"', "value": schema}),)

    def convert(self, raw: bytes) -> bytes:
        """A `response_format` or a `grammar` in this format."""
        given = _read(raw)
        if given is None or (self is Schemas.OPENAI and given.json_schema is not None):
            return raw
        schema = _schema(given)
        write: Callable[[bytes], bytes] = self.value[0]
        return write(schema) if schema else raw


def _read(raw: bytes) -> _Format | None:
    try:
        given = _FORMAT.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return given if given.type in {"json_schema", "json_object", "json"} else None


def _schema(given: _Format) -> bytes:
    named = given.json_schema
    value = bytes(given.value)
    if given.type == "json_schema" and value[:1] == b"{":
        named = _NAMED.decode(value)
    found = (bytes(named.schema) if named else value) or bytes(given.schema)
    return found if found[:1] == b"{" else b""


def schema_in(raw: bytes) -> bytes:
    """The schema in a `response_format` or a `grammar`, byte for byte; empty if there is none."""
    given = _read(raw)
    return _schema(given) if given else b""
