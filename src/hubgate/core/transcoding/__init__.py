"""Converting generated text between two wire formats. Text that already has the right format is not changed.

OpenAI's are `text_completion` objects and their chunks (those of chats are only read). text-generation-inference's
(TGI) are `{"generated_text", "details"}` and one event a token. Neither format has everything that the other has: a
token's id and logprob are 0 if OpenAI's does not contain them, and a text without `details` ended by `stop`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from hubgate.core.transcoding.logprobs import TOKENS, Logprobs
from hubgate.core.transcoding.objects import (
    CHOICES_DECODER,
    FIELDS_DECODER,
    OPENAI_DECODER,
    TGI_DECODER,
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
    """The metadata of OpenAI's objects."""

    id: str
    model: str
    created: int
    """Seconds since the epoch."""


class Piece(NamedTuple):
    """The contents of one payload of a stream."""

    text: str = ""
    reason: str | None = None
    """OpenAI's finish reason."""
    usage: Usage | None = None


def decode_reply(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode an object of a server.

    Raises:
        UpstreamUnreadable: it does not match.
    """
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamUnreadable(
            f"The server sent text in an unknown format: {error}.",
            remedy="Check the endpoint's URL and engine.",
        ) from error


def decode_replies(bodies: Sequence[bytes], decoder: msgspec.json.Decoder[T]) -> Iterable[T]:
    """Decode several objects, all at once if all match: see `decode_reply`."""
    try:
        decoded = decoder.decode_lines(b"\n".join(bodies))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decoded = []
    return decoded if len(decoded) == len(bodies) else (decode_reply(body, decoder) for body in bodies)


def text_of(generated: Generated) -> str:
    """The text of the first choice."""
    if generated.wire_format is WireFormat.TGI:
        return decode_reply(generated.body, TGI_DECODER).generated_text or ""
    return decode_reply(generated.body, OPENAI_DECODER).first.content


def read_piece(payload: bytes, wire_format: WireFormat) -> Piece:
    if wire_format is WireFormat.OPENAI:
        chunk = decode_reply(payload, OPENAI_DECODER)
        choice = chunk.first
        return Piece(choice.content, choice.finish_reason, chunk.usage)
    event = decode_reply(payload, TGI_DECODER)
    token, details = event.token, event.details
    text = "" if token is None or token.special else token.text
    ended = details is not None or event.generated_text is not None
    reason = (details or ReadDetails()).openai_finish_reason if ended else None
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
        label: for a new object.
        usage: used if the server returned none.
        with_logprobs: whether to include them.
        before: the prompt, if it precedes the text.
    """
    if generated.wire_format is WireFormat.OPENAI:
        return generated.body
    reply = decode_reply(generated.body, TGI_DECODER)
    choice = Choice(
        text=reply.generated_text or "",
        logprobs=decode_reply(generated.body, TOKENS).logprobs(len(before)) if with_logprobs else None,
        finish_reason=(reply.details or ReadDetails()).openai_finish_reason,
    )
    prompt, total = generated.prompt_tokens, generated.tokens
    if prompt is not None and total is not None:
        usage = Usage(prompt, total - prompt, total)
    return msgspec.json.encode(Completion(*label, [choice], usage))


def merge_completions(bodies: Sequence[bytes]) -> bytes:
    """Merge several `text_completion` objects: choices are renumbered, usage is summed."""
    if len(bodies) == 1:
        return bodies[0]
    replies = [decode_reply(body, CHOICES_DECODER) for body in bodies]
    whole: dict[str, Any] = decode_reply(bodies[0], FIELDS_DECODER)
    choices = [choice for reply in replies for choice in reply.choices]
    whole["choices"] = [{**choice, "index": index} for index, choice in enumerate(choices)]
    usages = [reply.usage or Usage() for reply in replies]
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    whole["usage"] = {name: sum(getattr(usage, name) or 0 for usage in usages) for name in counted}
    if any(usage.estimated is True for usage in usages):
        whole["usage"]["estimated"] = True
    return msgspec.json.encode(whole)


def to_tgi(generated: Generated, *, details: bool) -> bytes:
    """A whole text as `{"generated_text"}`, with or without `details`."""
    if generated.wire_format is WireFormat.TGI:
        return generated.body
    reply = decode_reply(generated.body, OPENAI_DECODER)
    choice = reply.first
    if not details:
        return msgspec.json.encode(WholeText(choice.content))
    count = reply.usage.completion_tokens if reply.usage else None
    logprobs = choice.logprobs or Logprobs()
    tokens = logprobs.as_tokens()
    rendered = Details(
        choice.tgi_finish_reason,
        len(tokens) if count is None else count,
        tokens,
        top_tokens=logprobs.as_top_tokens(),
    )
    return msgspec.json.encode(WholeText(choice.content, rendered))
