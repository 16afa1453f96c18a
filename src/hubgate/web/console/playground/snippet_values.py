"""What all snippets are made of: who is called with what, and values written down in another language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec

from hubgate.domain.calls import Chat, Complete, Embed, InputType, Rerank, SparseEmbed
from hubgate.domain.endpoint import Endpoint

Played: TypeAlias = Embed | SparseEmbed | Rerank | Chat | Complete

KEY = "YOUR_HUBGATE_KEY"
"""Where a key goes."""
_PORTS = {"http": 80, "https": 443}
_ROLES = {InputType.SEARCH: ":query", InputType.INGEST: ":document"}


@dataclass(frozen=True, slots=True)
class Use:
    """One call of one endpoint."""

    gate: str
    """The gate's address as the reader's browser has it, without a slash at its end."""
    endpoint: Endpoint
    call: Played

    @property
    def model(self) -> str:
        """What clients call the model that can say nothing but a name: with the role of the texts, if they have one."""
        call = self.call
        kind = call.input_type if isinstance(call, Embed) else None
        return self.endpoint.name + (_ROLES.get(kind, f":{kind}") if kind else "")

    @property
    def base(self) -> str:
        """The endpoint's own base URL, for Hugging Face's clients."""
        return f"{self.gate}/hf/{self.model}"

    @property
    def gate_with_port(self) -> str:
        """The gate's address for clients that want its port said."""
        parts = urlsplit(self.gate)
        return self.gate if parts.port else f"{self.gate}:{_PORTS[parts.scheme]}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Of a model that writes, decoded, without the messages."""
        fields = self.call.fields if isinstance(self.call, Chat | Complete) else {}
        return {name: msgspec.json.decode(raw) for name, raw in fields.items() if name != "messages"}

    @property
    def messages(self) -> list[Any]:
        """Of a conversation; of a text one message of the user's."""
        if isinstance(self.call, Complete):
            return [{"role": "user", "content": self.call.prompt}]
        messages: list[Any] = (
            msgspec.json.decode(self.call.fields["messages"]) if isinstance(self.call, Chat) else []
        )
        return messages


def text(value: str) -> str:
    """A text as a literal of Python and of JavaScript: both read what JSON writes."""
    return json.dumps(value, ensure_ascii=False)


def json_block(value: object) -> str:
    """A value as JSON on several lines, in the letters of its texts."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def python(value: object, indent: int = 4) -> str:
    """A value as a Python literal; what has several parts has a line for each, the last at `indent`."""
    inner, close = "\n" + " " * (indent + 4), "\n" + " " * indent
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return (
            _flat_dict(value)
            if len(value) < 3
            else _block("{}", [_pair(*pair, indent) for pair in value.items()], inner, close)
        )
    if isinstance(value, list | tuple):
        return _block("[]", [python(part, indent + 4) for part in value], inner, close)
    return repr(value)


def python_call(function: str, arguments: Mapping[str, object], *, before: Sequence[object] = ()) -> str:
    """A call, a line for each argument: those without a name before those with one."""
    given = [python(value) for value in before]
    given += [f"{name}={python(value)}" for name, value in arguments.items()]
    return f"{function}(\n" + "".join(f"    {one},\n" for one in given) + ")"


def _flat_dict(value: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{text(name)}: {python(part)}" for name, part in value.items()) + "}"


def _pair(name: str, value: object, indent: int) -> str:
    return f"{text(name)}: {python(value, indent + 4)}"


def _block(brackets: str, parts: Sequence[str], inner: str, close: str) -> str:
    if not parts:
        return brackets
    return brackets[0] + "".join(f"{inner}{part}," for part in parts) + close + brackets[1]
