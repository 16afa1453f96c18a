"""Calls (requests to a model) and results (its replies).

Vectors and generated text stay bytes, as the upstream sent them: see `Vectors` and `WireFormat`.

They are made for each request, so they are `msgspec.Struct`s, which take a tenth of the time of frozen dataclasses. A
changed copy is made by `msgspec.structs.replace`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from hubgate.domain.endpoint import InputType, Task

BULK_TURN_INTERVAL = 8
"""In every queue, at least one call in this many is a bulk call, if any bulk call waits."""


class WireFormat(StrEnum):
    """The JSON format of generated text. A face that needs the other format converts it once."""

    OPENAI = "openai"
    """`text_completion` and `chat.completion` objects, and their chunks."""
    TGI = "tgi"
    """text-generation-inference's `{"generated_text", "details"}`, and its events with one token each."""
    RESPONSES = "responses"
    """OpenAI's `response` objects, and their events: only of a `Chat` that allows it."""


class Encoding(StrEnum):
    """How the bytes of a vector are encoded."""

    JSON = "json"
    """A JSON array of numbers."""
    F32 = "f32"
    """Little-endian IEEE 754 single precision, four bytes per number."""


class Origin(msgspec.Struct):
    """Which endpoint answers a call: the called one, or its fallback."""

    endpoint: str = ""
    model: str | None = None
    """With its revision, if it is known."""


class Context(msgspec.Struct, frozen=True):
    """Who made a call, and its deadline."""

    request_id: str = "-"
    caller: str = "-"
    """The id of the gateway key, never the key. Queues are fair between callers."""
    bulk: bool = False
    """Bulk calls wait behind interactive ones."""
    deadline: float | None = None
    """Seconds on the gateway's monotonic clock."""
    hold: float | None = None
    """How many seconds a server that is scaled to zero may hold the request while it starts."""
    origin: Origin | None = None
    """Changed if another endpoint answers."""
    refused: bool = False
    """Whether the server was overloaded, or said so, when the same was sent before."""
    waits: bool = True
    """Whether it waits for a server that is overloaded, or says so. Otherwise its sender sends it again, in parts."""


NO_CONTEXT = Context()


class Embed(msgspec.Struct, frozen=True, kw_only=True):
    """Embed texts. `None` means the model's default."""

    texts: Sequence[str]
    input_type: InputType | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: bool | None = None
    truncate_left: bool | None = None
    cached: bool = True
    encoding: Encoding | None = None
    """Which encoding the caller will need. It may get another one; the cache keeps what is asked for again in this one."""
    context: Context = NO_CONTEXT

    @property
    def options(self) -> tuple[object, ...]:
        """What determines a vector besides its text. Only calls with equal options may share a request or a vector."""
        return (
            self.input_type,
            self.prompt_name,
            self.dimensions,
            self.normalize,
            self.truncate,
            self.truncate_left,
        )


class Quota(msgspec.Struct, frozen=True):
    """The upstream's remaining rate limit: `remaining` requests within the next `seconds`."""

    remaining: int
    seconds: float


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per text, in the order of the texts.

    `tokens` is how many tokens the model read, an estimate unless `exact`. `truncated` is how many texts were
    truncated, `None` if unknown. `text_tokens` and `text_truncated` are the same for each text, if known.
    `waited` is the time in the gateway's queue, in seconds.
    """

    items: Sequence[bytes]
    encoding: Encoding
    tokens: int | None = None
    exact: bool = False
    truncated: int | None = None
    warnings: tuple[str, ...] = ()
    text_tokens: Sequence[int] | None = None
    text_truncated: Sequence[bool] | None = None
    text_unread: Sequence[int | None] | None = None
    """How many tokens of each text the model did not read. Only set on request."""
    waited: float = 0.0
    quota: Quota | None = None
    dimensions: int | None = None
    """Set only once every vector was checked to have this length and to be finite."""


class CachedVector(msgspec.Struct, frozen=True, gc=False):
    """The cache entry of one text; fields as in `Vectors`."""

    vector: bytes
    tokens: int | None = None
    exact: bool = False
    truncated: bool | None = None
    encoding: Encoding = Encoding.F32
    """In memory a vector keeps its encoding; on disk it is f32."""


class FreshVectors(msgspec.Struct, eq=False):
    """What a model returned for texts that were not cached. Cache entries are made of it only where they are needed."""

    keys: Collection[bytes]
    """Of the texts in the cache: distinct, and in their order."""
    texts: Sequence[str]
    vectors: Vectors
    entries: Mapping[bytes, CachedVector] | None = None
    """By key, once they were needed: see `cache_entries`."""


class Tokenize(msgspec.Struct, frozen=True, kw_only=True):
    """Split texts into the model's tokens."""

    texts: Sequence[str]
    add_special_tokens: bool = True
    context: Context = NO_CONTEXT


class Token(msgspec.Struct, frozen=True):
    """One token; `start` and `stop` are code point offsets, `None` for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Tokens(msgspec.Struct, frozen=True):
    """The tokens of each text, in the order of the texts."""

    items: Sequence[Sequence[Token]]


class SparseEmbed(msgspec.Struct, frozen=True, kw_only=True):
    """Compute sparse vectors of texts."""

    texts: Sequence[str]
    truncate: bool | None = None
    context: Context = NO_CONTEXT

    @property
    def options(self) -> tuple[object, ...]:
        """Only calls with equal options may share a request."""
        return (self.truncate,)


class SparseVectors(msgspec.Struct, frozen=True, kw_only=True):
    """One JSON object per text, `{"token": weight, …}` with the highest weight first, in the order of the texts."""

    items: Sequence[bytes]
    tokens: int | None = None
    exact: bool = False
    waited: float = 0.0
    quota: Quota | None = None


class Rerank(msgspec.Struct, frozen=True, kw_only=True):
    """Score how well each text answers the query."""

    query: str
    texts: Sequence[str]
    truncate: bool | None = None
    raw_scores: bool | None = None
    """Return the model's scores without normalizing them to 0–1."""
    instruction: str | None = None
    """What makes a text relevant, for models that follow instructions; `None` means the model's default."""
    context: Context = NO_CONTEXT

    @property
    def options(self) -> tuple[object, ...]:
        """Only calls with equal options may share a request."""
        return (self.query, self.truncate, self.raw_scores, self.instruction)


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One score per text, in the order of the texts; higher is better."""

    items: Sequence[float]
    tokens: int | None = None
    exact: bool = False
    warnings: tuple[str, ...] = ()
    waited: float = 0.0
    quota: Quota | None = None


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """Generate the next message of a conversation.

    `fields` is the body of OpenAI's `/v1/chat/completions`, each value as raw JSON, without `model`, `stream` and
    `stream_options`. Fields unknown to hubgate are passed to the engine unchanged.
    """

    fields: Mapping[str, bytes]
    responses: Mapping[str, bytes] | None = None
    """The same call as fields of OpenAI's `/v1/responses`, for servers with that route. The reply then has its format."""
    context: Context = NO_CONTEXT


class Complete(msgspec.Struct, frozen=True, kw_only=True):
    """Complete a text.

    `fields` are the parameters, each value as raw JSON, under the names of OpenAI's `/v1/completions` (`max_tokens`,
    `stop`, `logprobs`, …), or text-generation-inference's where OpenAI has none (`do_sample`, `typical_p`, …).
    With `full_text` the reply starts with the prompt.
    """

    prompt: str
    fields: Mapping[str, bytes]
    full_text: bool = False
    context: Context = NO_CONTEXT


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """Generated text: the engine's JSON object, in `wire_format`."""

    body: bytes
    wire_format: WireFormat
    prompt_tokens: int | None = None
    tokens: int | None = None
    """Prompt and completion together."""
    waited: float = 0.0
    quota: Quota | None = None


Call: TypeAlias = Embed | SparseEmbed | Rerank | Tokenize
"""A call about texts; its result has one item per text, in their order."""
ItemResult: TypeAlias = SparseVectors | Scores
"""A result that has `items`, `tokens`, `exact`, `waited` and `quota`, and no token counts of each text."""
Result: TypeAlias = Vectors | ItemResult | Tokens
GenerationCall: TypeAlias = Chat | Complete
"""A call that generates text; its result is `Generated`, or a stream."""
TASK_OF_CALL: Mapping[type, Task] = {
    Embed: Task.TEXT_EMBEDDING,
    SparseEmbed: Task.SPARSE_EMBEDDING,
    Rerank: Task.RERANK,
    Complete: Task.COMPLETION,
    Chat: Task.CHAT_COMPLETION,
}
"""Without `Tokenize`, which endpoints of any task may support."""
