"""The `response` object of OpenAI's Responses API."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from hubgate.web.shared.chat_reply import ChatUsage

_PREFIX = "resp_"
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""By OpenAI's finish reason of a chat."""


class Repeated(msgspec.Struct, kw_only=True, gc=False):
    """The fields of a request that its response repeats. Clients require numbers; an engine may have other defaults."""

    instructions: object = None
    max_output_tokens: object = None
    max_tool_calls: object = None
    metadata: object = msgspec.Raw(b"{}")
    parallel_tool_calls: object = True
    prompt_cache_key: object = None
    reasoning: object = msgspec.Raw(b'{"effort":null,"summary":null}')
    safety_identifier: object = None
    temperature: object = msgspec.Raw(b"1.0")
    text: object = msgspec.Raw(b'{"format":{"type":"text"}}')
    tool_choice: object = "auto"
    tools: object = msgspec.Raw(b"[]")
    top_logprobs: object = 0
    top_p: object = msgspec.Raw(b"1.0")
    user: object = None


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


class Response(Repeated, kw_only=True, gc=False):
    """A response. Its fields change while it is written."""

    id: str
    object: str = "response"
    created_at: int
    status: str = "in_progress"
    background: bool = False
    error: dict[str, str] | None = None
    incomplete_details: dict[str, str] | None = None
    model: str
    output: list[dict[str, Any]]
    previous_response_id: None = None
    service_tier: str = "default"
    store: bool = False
    truncation: str = "disabled"
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


def new_response(model: str, repeated: Mapping[str, Any]) -> Response:
    """A response without items.

    Its id is new, not the request's: a client may send one request id twice. Nobody can use it, as nothing is stored.
    """
    new_id = _PREFIX + random.getrandbits(128).to_bytes(16).hex()
    return Response(id=new_id, created_at=int(time.time()), model=model, output=[], **repeated)
