"""Generated text in the two spellings, each turned into the other. What is spelled as it is wanted stays as it came.

OpenAI's is `text_completion` objects and their chunks (those of chats are only read), text-generation-inference's (TGI)
is `{"generated_text", "details"}` and one event a token. Neither says all that the other does: a token's id and
logprob are 0 where OpenAI's wire_format does not tell them, and a text without `details` ended by `stop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from hubgate.core.transcoding.logprobs import TOKENS, Logprobs
from hubgate.core.transcoding.objects import (
    CHOICES,
    FIELDS,
    OPENAI,
    TGI,
    Choice,
    Completion,
    Details,
    ReadDetails,
    Usage,
    WholeText,
)
from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.errors import UpstreamUnreadable

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


def decode_reply(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
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
    if generated.wire_format is WireFormat.TGI:
        return decode_reply(generated.body, TGI).generated_text or ""
    return decode_reply(generated.body, OPENAI).first.said


def read_piece(payload: bytes, wire_format: WireFormat) -> Piece:
    """What a payload of a stream says."""
    if wire_format is WireFormat.OPENAI:
        chunk = decode_reply(payload, OPENAI)
        choice = chunk.first
        return Piece(choice.said, choice.finish_reason, chunk.usage)
    event = decode_reply(payload, TGI)
    token, details = event.token, event.details
    text = "" if token is None or token.special else token.text
    ended = details is not None or event.generated_text is not None
    reason = (details or ReadDetails()).reason_at_openai if ended else None
    return Piece(text, reason, details.usage if details else None)


def to_openai(
    generated: Generated,
    label: Label,
    *,
    usage: Usage | None = None,
    with_logprobs: bool = False,
    before: str = "",
) -> bytes:
    """A whole text as `text_completion`.

    Args:
        generated: the text.
        label: for an object that is made here.
        usage: to be told where the server tells none.
        with_logprobs: whether those of its tokens are told.
        before: the prompt, where it stands before the text.
    """
    if generated.wire_format is WireFormat.OPENAI:
        return generated.body
    told = decode_reply(generated.body, TGI)
    choice = Choice(
        text=told.generated_text or "",
        logprobs=decode_reply(generated.body, TOKENS).logprobs(len(before)) if with_logprobs else None,
        finish_reason=(told.details or ReadDetails()).reason_at_openai,
    )
    prompt, total = generated.prompt_tokens, generated.tokens
    if prompt is not None and total is not None:
        usage = Usage(prompt, total - prompt, total)
    return msgspec.json.encode(Completion(*label, [choice], usage))


def merge_completions(bodies: Sequence[bytes]) -> bytes:
    """Several `text_completion` objects as one: its choices are numbered through, its usage is their sum."""
    if len(bodies) == 1:
        return bodies[0]
    read = [decode_reply(body, CHOICES) for body in bodies]
    whole: dict[str, Any] = decode_reply(bodies[0], FIELDS)
    choices = [choice for one in read for choice in one.choices]
    whole["choices"] = [{**choice, "index": index} for index, choice in enumerate(choices)]
    usages = [one.usage or Usage() for one in read]
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    whole["usage"] = {name: sum(getattr(one, name) or 0 for one in usages) for name in counted}
    if any(one.estimated is True for one in usages):
        whole["usage"]["estimated"] = True
    return msgspec.json.encode(whole)


def to_tgi(generated: Generated, *, details: bool) -> bytes:
    """A whole text as `{"generated_text"}`, with `details` where they are asked for."""
    if generated.wire_format is WireFormat.TGI:
        return generated.body
    reply = decode_reply(generated.body, OPENAI)
    choice = reply.first
    if not details:
        return msgspec.json.encode(WholeText(choice.said))
    written = reply.usage.completion_tokens if reply.usage else None
    told = choice.logprobs or Logprobs()
    tokens = told.told()
    said = Details(
        choice.reason_at_tgi,
        len(tokens) if written is None else written,
        tokens,
        top_tokens=told.told_top(),
    )
    return msgspec.json.encode(WholeText(choice.said, said))
