"""Calls (what an application asks of a model) and results (what comes back).

Vectors and generated text stay bytes, as the upstream sent them: see `Vectors` and `WireFormat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

BULK_TURN_INTERVAL = 8
"""Wherever calls wait, at the latest every so many turns a bulk call has one."""


class InputType(StrEnum):
    """What a text is for; asymmetric models embed documents and queries differently."""

    INGEST = "ingest"
    SEARCH = "search"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"

    @classmethod
    def parse(cls, word: str) -> InputType:
        """Read a word of any face: Elasticsearch's own, or `document` and `query`.

        Raises:
            ValueError: not one of them.
        """
        folded = word.lower()
        return cls({"document": "ingest", "query": "search"}.get(folded, folded))


class WireFormat(StrEnum):
    """How generated text is written down; a face that wants the other wire_format respells it once."""

    OPENAI = "openai"
    """`text_completion` and `chat.completion` objects, and their chunks."""
    TGI = "tgi"
    """text-generation-inference's `{"generated_text", "details"}`, and its events of one token each."""


class Encoding(StrEnum):
    """How each vector is held."""

    JSON = "json"
    """The bytes of a JSON array of numbers."""
    F32 = "f32"
    """Little-endian IEEE 754 single precision, four bytes a number."""


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, and until when."""

    request_id: str = "-"
    caller: str = "-"
    """The gateway key's id: the queue is fair between callers. Never the key."""
    bulk: bool = False
    """Bulk callers wait behind interactive ones."""
    deadline: float | None = None
    """On the gate's monotonic clock, in seconds."""
    hold: float | None = None
    """Seconds that a sleeping server may hold the request while it wakes."""


NO_CONTEXT = Context()


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Turn texts into vectors. An option left `None` is the model's own default."""

    texts: Sequence[str]
    input_type: InputType | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: bool | None = None
    truncate_left: bool | None = None
    cached: bool = True
    """Whether vectors remembered from earlier calls will do."""
    context: Context = NO_CONTEXT

    @property
    def options(self) -> tuple[object, ...]:
        """All that shapes a vector beside its text: only calls of equal options may share a request or a vector."""
        return (
            self.input_type,
            self.prompt_name,
            self.dimensions,
            self.normalize,
            self.truncate,
            self.truncate_left,
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """What an upstream says it still takes: at most so many requests within the next so many seconds."""

    remaining: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """One vector a text, in the order of the texts.

    `items` hold the bytes of each vector in `encoding`; `tokens` is the number of tokens the model read, exact
    only if `exact`; `truncated` is how many texts were cut, `None` where the engine does not tell.
    `text_tokens` and `text_truncated` say the same of each text, where it is known; `waited` is how many seconds
    the call stood in the gate's own queue.
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
    """How many tokens of each text the model did not read; only where it was asked for."""
    waited: float = 0.0
    quota: Quota | None = None
    """What the upstream said of its own limit with this reply."""
    dimensions: int | None = None
    """How many numbers each vector has; set only by who has seen that it is true of all, and all are finite."""


@dataclass(frozen=True, slots=True)
class CachedVector:
    """What is remembered of one text: its vector, and what `Vectors` says of each text."""

    vector: bytes
    tokens: int | None = None
    exact: bool = False
    truncated: bool | None = None
    encoding: Encoding = Encoding.F32
    """In memory a vector stays as it came; on disk it is f32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """Cut texts into the model's tokens."""

    texts: Sequence[str]
    add_special_tokens: bool = True
    context: Context = NO_CONTEXT


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `start` and `stop` are code point offsets, `None` for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of each text."""

    items: Sequence[Sequence[Token]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseEmbed:
    """Turn texts into weights of words."""

    texts: Sequence[str]
    truncate: bool | None = None
    context: Context = NO_CONTEXT

    @property
    def options(self) -> tuple[object, ...]:
        """Only calls of equal options may share a request."""
        return (self.truncate,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseVectors:
    """One JSON object a text, `{"token": weight, …}` with the highest weight first, in the order of the texts."""

    items: Sequence[bytes]
    tokens: int | None = None
    exact: bool = False
    waited: float = 0.0
    quota: Quota | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerank:
    """Say of each text how well it answers the query."""

    query: str
    texts: Sequence[str]
    truncate: bool | None = None
    raw_scores: bool | None = None
    """Scores as the model gives them, before they are squeezed between 0 and 1."""
    context: Context = NO_CONTEXT

    @property
    def options(self) -> tuple[object, ...]:
        """Only calls of equal options may share a request."""
        return (self.query, self.truncate, self.raw_scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One score a text, in the order of the texts; the higher, the better."""

    items: Sequence[float]
    tokens: int | None = None
    exact: bool = False
    warnings: tuple[str, ...] = ()
    waited: float = 0.0
    quota: Quota | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Go on with a conversation.

    `fields` is the body of OpenAI's `/v1/chat/completions`, each value as raw JSON, without `model`, `stream` and
    `stream_options`. What the gate does not know goes to the engine as it is.
    """

    fields: Mapping[str, bytes]
    context: Context = NO_CONTEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Go on with a text.

    `fields` are the parameters, each value as raw JSON: by the names of OpenAI's `/v1/completions` where it has one
    (`max_tokens`, `stop`, `logprobs`, …), else by text-generation-inference's (`do_sample`, `typical_p`, …).
    `full_text` asks for the prompt before the text.
    """

    prompt: str
    fields: Mapping[str, bytes]
    full_text: bool = False
    context: Context = NO_CONTEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Text that a model made: one JSON object, as the engine sent it, in its wire_format."""

    body: bytes
    wire_format: WireFormat
    prompt_tokens: int | None = None
    tokens: int | None = None
    """Of the prompt and of the text together."""
    waited: float = 0.0
    quota: Quota | None = None


Call: TypeAlias = Embed | SparseEmbed | Rerank | Tokenize
"""About texts, with one item of the result for each text, in their order."""
Result: TypeAlias = Vectors | SparseVectors | Scores | Tokens
GenerationCall: TypeAlias = Chat | Complete
"""To a model that writes; its result is `Generated`, or a stream of it."""
