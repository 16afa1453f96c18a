"""What faces read from the reply to a chat, which has OpenAI's format, and from its chunks."""

from __future__ import annotations

from typing import Any

import msgspec

from hubgate.core.transcoding import decode_reply
from hubgate.core.transcoding.objects import Usage
from hubgate.core.transcoding.text_runs import ChunkReader, TextField

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


class Message(msgspec.Struct, gc=False):
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


class Logprobs(msgspec.Struct, gc=False):
    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct, gc=False):
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


class ChatReply(msgspec.Struct, gc=False):
    """A whole reply, or a chunk."""

    choices: list[Choice] = []
    usage: ChatUsage | None = None


CHAT_REPLY = msgspec.json.Decoder(ChatReply)


def chunk_reader() -> ChunkReader[ChatReply]:
    """For the chunks of one stream."""
    return ChunkReader(CHAT_REPLY, _only_text)


def _only_text(chunk: ChatReply) -> tuple[TextField, str] | None:
    """The text of a chunk that has nothing else."""
    if len(chunk.choices) != 1 or chunk.usage is not None:
        return None
    choice = chunk.choices[0]
    delta = choice.delta
    if delta is None or choice.index or choice.message or choice.finish_reason or choice.logprobs:
        return None
    content, thinking = delta.content, delta.reasoning or delta.reasoning_content
    if delta.refusal or delta.tool_calls or bool(content) == bool(thinking):
        return None
    return ("content", content) if content else ("reasoning", thinking or "")
