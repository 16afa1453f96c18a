"""The model inside a look-alike, its requests and its replies."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that a look-alike serves."""

    name: str = "look/alike"
    models: tuple[str, ...] = ()
    """All names in its list of models, of a server with several."""
    kind: str = "embedding"
    """`embedding`, `tokens` (one vector per token), `sparse`, `reranker`, `classifier`, `similarity`, `llm`, `base` (a
    model without a chat template), `text2text`, `summarization` or `translation`."""
    dimensions: int = 8
    max_tokens: int = 512
    max_batch: int = 32
    max_body: int = 2_000_000
    auto_truncate: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    """What TEI's `--default-prompt` adds to every text."""
    key: str | None = None
    """The token that requests need."""
    prefix: str = "/v1"
    """Of infinity's routes."""
    keep_alive: bool = True
    """Whether it keeps a connection after a reply."""
    seed: str = ""
    """Another model: it returns other vectors for the same texts."""
    prompt: str | None = None
    """Of a reranker that is a language model: its name in `ranker.PROMPTS`."""
    writes_prompt: bool = False
    """Whether the server was started with the template of that prompt."""
    raw_scores: bool = False
    """Whether a reranker's own configuration asks for raw scores, as ms-marco's does."""
    base64: bool = True
    """Whether an OpenAI route can send base64; SGLang before 2026-07 could not."""
    responses: bool = True
    """Whether vLLM and SGLang serve OpenAI's Responses API; before 2025-08 they did not."""

    @property
    def generates(self) -> bool:
        """Whether it generates text."""
        return self.kind in {"llm", "base", "text2text", "summarization", "translation"}

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        return self.kind == "llm"


@dataclass(frozen=True, kw_only=True)
class ReceivedRequest:
    """A request to a look-alike. Header names are in lower case, `at` is `time.monotonic`."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        """The decoded body; `None` if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def field(self, name: str) -> Any:
        """A field of the body, `None` if there is none."""
        return self.json.get(name) if isinstance(self.json, dict) else None

    @property
    def texts(self) -> list[str]:
        """The texts to embed, under whichever name the body has them."""
        for name in ("inputs", "input", "content", "texts", "documents"):
            value = self.field(name)
            if value is not None and not isinstance(value, dict):
                return [value] if isinstance(value, str) else list(value)
        return []

    @property
    def token(self) -> str | None:
        """The bearer token."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class Answer:
    """A reply. A body of bytes or text is sent unchanged, any other as JSON."""

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    events: tuple[bytes, ...] = ()
    """Sent as an event stream instead of the body."""

    @property
    def raw(self) -> bytes:
        """The bytes of the body. NaN is written as NaN, as Python servers do."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return "text/plain" if isinstance(self.body, bytes | str) else "application/json"


class Embedder:
    """Computes the vectors of a look-alike; faults replace it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """One vector per text, truncated to the model's limit."""
        return [
            list(vector_of(self.model.seed + self._truncated(text), self.model.dimensions)) for text in texts
        ]

    def token_vectors(self, texts: list[str]) -> list[list[list[float]]]:
        """One vector per token."""
        return [[list(vector_of(word, self.model.dimensions)) for word in _words(text)] for text in texts]

    def _truncated(self, text: str) -> str:
        words = text.split()
        return (
            " ".join(words[: self.model.max_tokens - 2]) if len(words) > self.model.max_tokens - 2 else text
        )


def _words(text: str) -> list[str]:
    return ["[CLS]", *text.split(), "[SEP]"]


def token_count(text: str) -> int:
    """One token per word, and two special ones."""
    return len(_words(text))


@functools.lru_cache(maxsize=10_000)
def vector_of(text: str, dimensions: int) -> tuple[float, ...]:
    """The vector of a text, the same in every look-alike: a unit vector, exact in single precision."""
    digest = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    numbers = [n - 32767.5 for n in struct.unpack(f"<{dimensions}H", digest)]
    length = math.hypot(*numbers)
    return struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(n / length for n in numbers)))


def packed(vector: list[float]) -> str:
    """A vector as OpenAI's base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
