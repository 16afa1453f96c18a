"""What is read from the reply to a chat, and from its chunks."""

from __future__ import annotations

from typing import Any

import msgspec

from hubgate.core.transcoding import decode_reply

_STRING = msgspec.json.Decoder(str)


class Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    """A string of JSON; some servers send the JSON itself."""

    @property
    def arguments_text(self) -> str:
        """The arguments as JSON.

        Raises:
            UpstreamUnreadable: they are not a valid string.
        """
        raw = bytes(self.arguments)
        if raw in {b"", b"null"}:
            return ""
        return decode_reply(raw, _STRING) if raw.startswith(b'"') else raw.decode()


class ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Message(msgspec.Struct):
    """A message, or the delta of a chunk."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    """Another name of `reasoning`."""
    tool_calls: list[ToolCall] | None = None


class Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def as_responses(self) -> dict[str, object]:
        """The usage of a response."""
        prompt, completion = self.prompt_tokens or 0, self.completion_tokens or 0
        cached = self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens
        reasoning = self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": reasoning or 0},
            "total_tokens": self.total_tokens or prompt + completion,
        }


class ChatReply(msgspec.Struct):
    """A whole reply, or a chunk."""

    choices: list[Choice] = []
    usage: ChatUsage | None = None


CHAT_REPLY = msgspec.json.Decoder(ChatReply)
