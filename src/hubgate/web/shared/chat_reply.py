"""What faces read from the reply to a chat, which has OpenAI's format, and from its chunks."""

from __future__ import annotations

from typing import Any

import msgspec

from hubgate.core.transcoding import decode_reply
from hubgate.core.transcoding.objects import Usage

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

    @property
    def thinking(self) -> str:
        return self.reasoning or self.reasoning_content or ""


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


class ChatUsage(Usage):
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class ChatReply(msgspec.Struct):
    """A whole reply, or a chunk."""

    choices: list[Choice] = []
    usage: ChatUsage | None = None


CHAT_REPLY = msgspec.json.Decoder(ChatReply)
