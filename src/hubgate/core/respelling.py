"""Generated text in the two spellings, each turned into the other. What is spelled as it is wanted stays as it came.

OpenAI's is `text_completion` objects and their chunks (those of chats are only read), text-generation-inference's (TGI)
is `{"generated_text", "details"}` and one event a token. Neither says all that the other does: a token's id and
logprob are 0 where OpenAI's spelling does not tell them, and a text without `details` ended by `stop`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from hubgate.core.respelling_objects import (
    CHOICES,
    FIELDS,
    LAST_TOKEN,
    OPENAI,
    TGI,
    USAGE,
    Choice,
    Completion,
    Details,
    Event,
    ReadChoice,
    ReadDetails,
    ReadOpenAI,
    StreamDetails,
    Token,
    Usage,
    WholeText,
)
from hubgate.domain.calls import Spelling
from hubgate.domain.errors import UpstreamUnreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Generated

T = TypeVar("T")


class Label(NamedTuple):
    """What OpenAI's objects say of themselves."""

    id: str
    model: str
    created: int
    """Seconds since the epoch."""


class Piece(NamedTuple):
    """What one payload of a stream says."""

    text: str = ""
    reason: str | None = None
    """Why it ended, in OpenAI's words."""
    usage: Usage | None = None


class Speller(Protocol):
    """Turns the payloads of one stream into those that are wanted."""

    usage: Usage | None
    """As told, once it is."""
    pieces: int
    """Payloads so far: about as many as tokens."""

    def respell(self, payload: bytes) -> Sequence[bytes]:
        """What stands for one payload.

        Raises:
            UpstreamUnreadable: it is not spelled as it should be.
        """
        ...

    def end(self) -> Sequence[bytes]:
        """What is still to say when the stream has ended."""
        ...


def decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """An object of a server's.

    Raises:
        UpstreamUnreadable: it is not what it should be.
    """
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamUnreadable(
            f"The server sent text in a form that cannot be read: {error}.",
            remedy="Look whether the endpoint's URL and engine are the right ones.",
        ) from error


def text_of(generated: Generated) -> str:
    """The text alone; of several the first."""
    if generated.spelling is Spelling.TGI:
        return decoded(generated.body, TGI).generated_text or ""
    return _first(decoded(generated.body, OPENAI)).said


def piece_of(payload: bytes, spelling: Spelling) -> Piece:
    """What a payload of a stream says."""
    if spelling is Spelling.OPENAI:
        chunk = decoded(payload, OPENAI)
        choice = _first(chunk)
        return Piece(choice.said, choice.finish_reason, chunk.usage)
    event = decoded(payload, TGI)
    token, details = event.token, event.details
    text = "" if token is None or token.special else token.text
    ended = details is not None or event.generated_text is not None
    return Piece(text, _reason_at_openai(details) if ended else None, _usage_of(details))


def whole_as_openai(generated: Generated, label: Label) -> bytes:
    """A whole text as `text_completion`."""
    if generated.spelling is Spelling.OPENAI:
        return generated.body
    told = decoded(generated.body, TGI)
    choice = Choice(text=told.generated_text or "", finish_reason=_reason_at_openai(told.details))
    prompt, total = generated.prompt_tokens, generated.tokens
    usage = None if prompt is None or total is None else Usage(prompt, total - prompt, total)
    return msgspec.json.encode(Completion(*label, [choice], usage))


def merged(bodies: Sequence[bytes]) -> bytes:
    """Several `text_completion` objects as one: its choices are numbered through, its usage is their sum."""
    if len(bodies) == 1:
        return bodies[0]
    read = [decoded(body, CHOICES) for body in bodies]
    whole: dict[str, Any] = decoded(bodies[0], FIELDS)
    choices = [choice for one in read for choice in one.choices]
    whole["choices"] = [{**choice, "index": index} for index, choice in enumerate(choices)]
    usages = [one.usage or Usage() for one in read]
    whole["usage"] = {
        name: sum(getattr(one, name) or 0 for one in usages) for name in Usage.__struct_fields__
    }
    return msgspec.json.encode(whole)


def whole_as_tgi(generated: Generated, *, details: bool) -> bytes:
    """A whole text as `{"generated_text"}`, with `details` where they are asked for."""
    if generated.spelling is Spelling.TGI:
        return generated.body
    reply = decoded(generated.body, OPENAI)
    choice = _first(reply)
    if not details:
        return msgspec.json.encode(WholeText(choice.said))
    written = reply.usage.completion_tokens if reply.usage else None
    tokens = choice.tokens()
    told = Details(choice.reason_at_tgi, len(tokens) if written is None else written, tokens)
    return msgspec.json.encode(WholeText(choice.said, told))


def openai_speller(spelling: Spelling, label: Label, *, with_usage: bool, before: str = "") -> Speller:
    """Spells a stream as OpenAI's chunks.

    Args:
        spelling: the stream's own.
        label: for chunks that are made here.
        with_usage: whether the usage is told, in a last chunk of its own.
        before: what TGI leaves out of a stream: the prompt, where it is to stand before the text.
    """
    if spelling is Spelling.OPENAI:
        return _OpenAIAsItCame(with_usage=with_usage)
    return _TgiAsOpenAI(label, with_usage=with_usage, before=before)


def tgi_speller(spelling: Spelling, *, before: str = "") -> Speller:
    """Spells a stream as TGI's events.

    Args:
        spelling: the stream's own.
        before: what TGI leaves out of all events but the last: the prompt, where it stands before the text.
    """
    return _TgiAsItCame() if spelling is Spelling.TGI else _OpenAIAsTgi(before)


class _OpenAIAsItCame:
    """Bytes as they came, but for the usage: the engine is always asked for it, and not every client is to see it."""

    def __init__(self, *, with_usage: bool) -> None:
        self._with_usage = with_usage
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        self.pieces += 1
        if b'"usage"' in payload:
            chunk = decoded(payload, USAGE)
            self.usage = chunk.usage or self.usage
            if chunk.usage and not chunk.choices and not self._with_usage:
                return ()
        return (payload,)

    def end(self) -> Sequence[bytes]:
        return ()


class _TgiAsOpenAI:
    def __init__(self, label: Label, *, with_usage: bool, before: str) -> None:
        self._label = label
        self._with_usage = with_usage
        self._before = before
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        self.pieces += 1
        piece = piece_of(payload, Spelling.TGI)
        text, self._before = self._before + piece.text, ""
        self.usage = piece.usage or self.usage
        if not text and piece.reason is None:
            return ()
        return (self._chunk([Choice(text=text, finish_reason=piece.reason)]),)

    def end(self) -> Sequence[bytes]:
        return (self._chunk([], self.usage),) if self.usage and self._with_usage else ()

    def _chunk(self, choices: list[Choice], usage: Usage | None = None) -> bytes:
        return msgspec.json.encode(Completion(*self._label, choices, usage))


class _TgiAsItCame:
    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        self.pieces += 1
        if b'"details":{' in payload:
            self.usage = _usage_of(decoded(payload, TGI).details)
        return (payload,)

    def end(self) -> Sequence[bytes]:
        return ()


class _OpenAIAsTgi:
    """One event a chunk. The last has no text of its own, for OpenAI's usage comes after the last text."""

    def __init__(self, before: str) -> None:
        self._before = before
        self._parts: list[str] = []
        self._ended = ReadChoice()
        self.usage: Usage | None = None
        self.pieces = 0

    def respell(self, payload: bytes) -> Sequence[bytes]:
        chunk = decoded(payload, OPENAI)
        choice = _first(chunk)
        self.usage = chunk.usage or self.usage
        if choice.finish_reason:
            self._ended = choice
        said = choice.said
        self._parts.append(said)
        if said and self._before:
            said, self._before = said.removeprefix(self._before), ""
        if not said:
            return ()
        self.pieces += 1
        return (msgspec.json.encode(Event(self.pieces, Token(text=said, logprob=choice.logprob))),)

    def end(self) -> Sequence[bytes]:
        usage = self.usage or Usage()
        written = self.pieces if usage.completion_tokens is None else usage.completion_tokens
        details = StreamDetails(self._ended.reason_at_tgi, written, usage.prompt_tokens or 0)
        return (msgspec.json.encode(Event(self.pieces + 1, LAST_TOKEN, "".join(self._parts), details)),)


def _usage_of(details: ReadDetails | None) -> Usage | None:
    if details is None:
        return None
    prompt = details.input_length or 0
    return Usage(prompt, details.generated_tokens, prompt + details.generated_tokens)


def _reason_at_openai(details: ReadDetails | None) -> str:
    return "length" if details and details.finish_reason == "length" else "stop"


def _first(said: ReadOpenAI) -> ReadChoice:
    return next((choice for choice in said.choices if choice.index == 0), ReadChoice())
