"""The JSON objects of generated text, in OpenAI's format and text-generation-inference's (TGI).

Those called `Read…` have only the fields that hubgate reads from replies, all optional, as servers differ. The others
are what hubgate writes, complete, as clients expect it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hubgate.core.transcoding.logprobs import Logprobs, Token


class Usage(msgspec.Struct):
    """OpenAI's `usage`. Engines omit what they do not count."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    estimated: bool | msgspec.UnsetType = msgspec.UNSET
    """hubgate's own field, set if the counts are estimates."""

    @property
    def total(self) -> int:
        """Tokens of the prompt and the generated text."""
        return self.total_tokens or (self.prompt_tokens or 0) + (self.completion_tokens or 0)


class Details(msgspec.Struct):
    """TGI's `details` of a reply that is not streamed."""

    finish_reason: str = "eos_token"
    generated_tokens: int = 0
    tokens: list[Token] = []
    prefill: list[Token] = []
    seed: int | None = None
    best_of_sequences: list[Any] | None = None
    top_tokens: list[list[Token]] | msgspec.UnsetType = msgspec.UNSET


class StreamDetails(msgspec.Struct):
    """TGI's `details` in the last event of a stream."""

    finish_reason: str = "eos_token"
    generated_tokens: int = 0
    input_length: int = 0
    seed: int | None = None


class WholeText(msgspec.Struct, omit_defaults=True):
    """TGI's reply that is not streamed."""

    generated_text: str
    details: Details | None = None


class Event(msgspec.Struct):
    """TGI's event of a stream, one per token."""

    index: int
    token: Token
    generated_text: str | None = None
    details: StreamDetails | None = None
    top_tokens: list[Token] | msgspec.UnsetType = msgspec.UNSET


class ReadDetails(msgspec.Struct):
    """TGI's `details`, of either kind."""

    finish_reason: str | None = None
    generated_tokens: int = 0
    input_length: int | None = None

    @property
    def usage(self) -> Usage:
        prompt = self.input_length or 0
        return Usage(prompt, self.generated_tokens, prompt + self.generated_tokens)

    @property
    def openai_finish_reason(self) -> str:
        return "length" if self.finish_reason == "length" else "stop"


class ReadTgi(msgspec.Struct):
    """TGI's reply or event."""

    generated_text: str | None = None
    token: Token | None = None
    details: ReadDetails | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class ReadChoice(msgspec.Struct):
    """A choice of a completion, a chat, or a chunk of either."""

    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    """vLLM's field: the stop sequence that ended the text."""
    logprobs: Logprobs | None = None

    @property
    def content(self) -> str:
        message = self.message or self.delta
        return (message.content if message else self.text) or ""

    @property
    def tgi_finish_reason(self) -> str:
        if self.finish_reason == "length":
            return "length"
        return "stop_sequence" if isinstance(self.stop_reason, str) else "eos_token"


class ReadOpenAI(msgspec.Struct):
    """A completion, a chat, or a chunk of either."""

    choices: list[ReadChoice] = []
    usage: Usage | None = None

    @property
    def first(self) -> ReadChoice:
        """The choice with index 0; an empty one if it is missing."""
        return next((choice for choice in self.choices if choice.index == 0), ReadChoice())


class ReadUsage(msgspec.Struct):
    """A chunk that is passed on unchanged."""

    choices: list[msgspec.Raw] = []
    usage: Usage | None = None


class ReadChoices(msgspec.Struct):
    """A completion that is merged with others into one reply."""

    choices: list[dict[str, msgspec.Raw]] = []
    usage: Usage | None = None


class Choice(msgspec.Struct, kw_only=True):
    """A choice of OpenAI's `text_completion`."""

    index: int = 0
    text: str
    logprobs: Logprobs | None = None
    finish_reason: str | None


class Completion(msgspec.Struct, tag_field="object", tag="text_completion"):
    """OpenAI's `text_completion`: a reply, or a chunk of a stream."""

    id: str
    model: str
    created: int
    choices: list[Choice]
    usage: Usage | None = None


END_TOKEN = Token(special=True)
"""TGI's end-of-sequence token: clients do not add a special token to the text."""

USAGE_DECODER = msgspec.json.Decoder(ReadUsage)
CHOICES_DECODER = msgspec.json.Decoder(ReadChoices)
FIELDS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
OPENAI_DECODER = msgspec.json.Decoder(ReadOpenAI)
TGI_DECODER = msgspec.json.Decoder(ReadTgi)
