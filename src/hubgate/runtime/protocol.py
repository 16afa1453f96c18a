"""The protocol between hubgate and a worker process: msgpack messages, each preceded by its length in four bytes."""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO, Protocol, TypeAlias

import msgspec

from hubgate.domain.calls import Token
from hubgate.domain.errors import Cause, HubgateError, InvalidRequest, RuntimeFailed


class EmbedTexts(msgspec.Struct, tag="embed", array_like=True, frozen=True):
    """Embed texts. The reply has the same `call` number. `caller` and `bulk` decide the order of calls: see `order`."""

    call: int
    texts: list[str]
    normalize: bool | None
    truncate: bool
    truncate_left: bool
    prompt_name: str | None
    caller: str = "-"
    bulk: bool = False


class TokenizeTexts(msgspec.Struct, tag="tokenize", array_like=True, frozen=True):
    """Tokenize texts."""

    call: int
    texts: list[str]
    special: bool
    caller: str = "-"
    bulk: bool = False


class RankTexts(msgspec.Struct, tag="rank", array_like=True, frozen=True):
    """Score how relevant each text is to the query, between 0 and 1 unless `raw`."""

    call: int
    query: str
    texts: list[str]
    truncate: bool
    raw: bool | None
    caller: str = "-"
    bulk: bool = False
    instruction: str | None = None


class SamplingOptions(msgspec.Struct, array_like=True, frozen=True):
    """How a call wants its text generated; `None` leaves it to the model's own configuration."""

    max_tokens: int | None = None
    sample: bool | None = None
    """Whether to draw tokens at random, instead of taking the most likely one."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] = []


class GenerateText(msgspec.Struct, tag="generate", array_like=True, frozen=True):
    """Continue a prompt, or with `messages` a conversation. The replies are `TextPiece`s."""

    call: int
    prompt: str
    messages: list[dict[str, Any]] | None = None
    template_options: dict[str, Any] = {}
    """Further variables for the chat template."""
    options: SamplingOptions = SamplingOptions()
    caller: str = "-"
    bulk: bool = False


class CancelCall(msgspec.Struct, tag="forget", array_like=True, frozen=True):
    """Drop a call whose caller has disconnected."""

    call: int


class Ready(msgspec.Struct, tag="ready", array_like=True, frozen=True):
    """The model is loaded. `width` is the length of its vectors; 1 for a reranker, 0 for a model that generates text."""

    width: int
    precision: str
    max_tokens: int
    self_test: float | None = None
    """As in `domain.endpoint.Facts.precision_self_test`."""
    truncate_left: bool = False
    """Whether texts lose their beginning if a call does not say which side."""


class Embedded(msgspec.Struct, tag="embedded", array_like=True, frozen=True):
    """The vectors of a call, concatenated in the order of its texts, little-endian f32.

    `tokens` and `truncated` have one item for each text.
    """

    call: int
    vectors: bytes
    tokens: list[int]
    truncated: list[bool]


class Ranked(msgspec.Struct, tag="ranked", array_like=True, frozen=True):
    """The scores of a call, in the order of its texts; `tokens` and `truncated` as in `Embedded`."""

    call: int
    scores: list[float]
    tokens: list[int]
    truncated: list[bool]


class Tokenized(msgspec.Struct, tag="tokenized", array_like=True, frozen=True):
    """The tokens of each text of a call."""

    call: int
    items: list[list[Token]]


class TextPiece(msgspec.Struct, tag="piece", array_like=True, frozen=True):
    """Some more of a generated text. The last piece has OpenAI's `finish_reason`."""

    call: int
    text: str
    prompt_tokens: int
    tokens: int
    """Generated so far, with the one that ends the text."""
    finish_reason: str | None = None
    stop: str | None = None
    """The stop sequence that was found."""


class Failed(msgspec.Struct, tag="failed", array_like=True, frozen=True):
    """A call failed; with `call=None`, the model cannot be loaded."""

    call: int | None
    kind: str
    message: str
    remedy: str
    cause: Cause

    @classmethod
    def of(cls, call: int | None, error: HubgateError) -> Failed:
        return cls(call, type(error).__name__, error.message, error.remedy, error.cause)

    def error(self) -> HubgateError:
        kinds = {kind.__name__: kind for kind in (InvalidRequest, RuntimeFailed)}
        return kinds[self.kind](self.message, remedy=self.remedy, cause=self.cause)


TextRequest: TypeAlias = EmbedTexts | RankTexts | TokenizeTexts
"""Answered with one reply."""
Request: TypeAlias = TextRequest | GenerateText | CancelCall
CallReply: TypeAlias = Embedded | Ranked | Tokenized
Reply: TypeAlias = Ready | CallReply | TextPiece | Failed

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_encoder = msgspec.msgpack.Encoder()


class Replies(Protocol):
    """Where a worker process writes its replies, one frame at a time."""

    def write(self, frame: bytes, /) -> object: ...

    def flush(self) -> None: ...


def encode_frame(message: Request | Reply) -> bytes:
    """Encode a message with its length.

    Raises:
        InvalidRequest: a text has a lone surrogate, which cannot be encoded as UTF-8, or a message a huge number.
    """
    try:
        body = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "A text has half of a surrogate pair.", remedy="Send texts that are valid Unicode."
        ) from error
    except OverflowError as error:
        raise InvalidRequest(
            "A message has a whole number of more than 64 bits.", remedy="Send it as text."
        ) from error
    return len(body).to_bytes(4, "little") + body


def read_request(pipe: BinaryIO) -> Request | None:
    """Wait for the next request; `None` if hubgate has closed the pipe."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    body = pipe.read(int.from_bytes(head, "little"))
    return _requests.decode(body) if len(body) == int.from_bytes(head, "little") else None


async def read_frame(pipe: asyncio.StreamReader) -> bytes:
    """Wait for the next reply, for `decode_reply`.

    Raises:
        asyncio.IncompleteReadError: the worker process has ended.
    """
    length = int.from_bytes(await pipe.readexactly(4), "little")
    return await pipe.readexactly(length)


def decode_reply(body: bytes) -> Reply:
    """Decode the body of a frame.

    Raises:
        msgspec.DecodeError: it is invalid.
    """
    return _replies.decode(body)
