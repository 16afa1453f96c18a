"""The `response` object of OpenAI's Responses API."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.web.shared.chat_reply import ChatUsage

_PREFIX = "resp_"
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""By OpenAI's finish reason of a chat."""


_REPEATED: Mapping[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "user": None,
}
"""The fields of a request that its response repeats. Clients require numbers; an engine may have other defaults."""
_FIXED: Mapping[str, object] = {
    "object": "response",
    "background": False,
    "previous_response_id": None,
    "service_tier": "default",
    "store": False,
    "truncation": "disabled",
    **_REPEATED,
}


def _rest(fields: Mapping[str, object]) -> bytes:
    return b"," + msgspec.json.encode(fields)[1:]


_DEFAULT_REST = _rest(_FIXED)


def rest_of_response(request: Mapping[str, bytes]) -> bytes:
    """The JSON of a response after its `Response`: the fields that only its request decides.

    A stream repeats them three times, so those beyond a megabyte in total have their default instead.
    """
    if _REPEATED.keys().isdisjoint(request):
        return _DEFAULT_REST
    repeated: dict[str, msgspec.Raw] = {}
    size = 0
    for name, raw in request.items():
        if name in _REPEATED and size + len(raw) <= LARGE_BYTES:
            size += len(raw)
            repeated[name] = msgspec.Raw(raw)
    return _rest({**_FIXED, **repeated})


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int
    cache_write_tokens: int = 0


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int


class Usage(msgspec.Struct, gc=False):
    input_tokens: int
    input_tokens_details: _InputDetails
    output_tokens: int
    output_tokens_details: _OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: ChatUsage) -> Usage:
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        return cls(
            usage.prompt_tokens or 0,
            _InputDetails((prompt and prompt.cached_tokens) or 0),
            usage.completion_tokens or 0,
            _OutputDetails((completion and completion.reasoning_tokens) or 0),
            usage.total,
        )


class Response(msgspec.Struct, gc=False):
    """The part of a response that changes while it is written."""

    id: str
    created_at: int
    model: str
    output: list[dict[str, Any]]
    status: str = "in_progress"
    error: dict[str, str] | None = None
    incomplete_details: dict[str, str] | None = None
    usage: Usage | None = None

    @property
    def bare_id(self) -> str:
        """Without its prefix. The ids of its items contain it."""
        return self.id[len(_PREFIX) :]

    def end(self, finish_reason: str | None, usage: ChatUsage | None) -> None:
        if reason := _INCOMPLETE.get(finish_reason or ""):
            self.status, self.incomplete_details = "incomplete", {"reason": reason}
        else:
            self.status = "completed"
        self.usage = Usage.of(usage) if usage else None

    def fail(self, message: str, usage: ChatUsage | None) -> None:
        self.status, self.error = "failed", {"code": "server_error", "message": message}
        self.usage = Usage.of(usage) if usage else None

    def encode(self, rest: bytes) -> bytes:
        """As JSON, with the `rest_of_response`."""
        return msgspec.json.encode(self)[:-1] + rest


def new_response(model: str) -> Response:
    """A response without items.

    Its id is new, not the request's: a client may send one request id twice. Nobody can use it, as nothing is stored.
    """
    new_id = _PREFIX + random.getrandbits(128).to_bytes(16).hex()
    return Response(new_id, int(time.time()), model, [])
