"""Calls (what an application asks of a model) and results (what comes back).

Vectors stay bytes, as the upstream sent them: see `Vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence


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


Call: TypeAlias = Embed | Tokenize
Result: TypeAlias = Vectors | Tokens
