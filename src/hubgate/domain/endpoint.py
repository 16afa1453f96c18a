"""An endpoint: a model registered once, under one name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

from hubgate.domain.calls import InputType
from hubgate.domain.chunking import ChunkFit, ChunkingSettings
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.secret import Secret

DEFAULT_REQUESTS_PER_MINUTE = 3000
MAX_DIMENSIONS = 65_536
"""No model has as many: a bound against typing errors."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9_\-.]*[a-z0-9])?")


def check_name(name: str) -> None:
    """Elasticsearch's rule for the id of an endpoint.

    Raises:
        InvalidEndpoint: the name breaks it.
    """
    if not _NAME.fullmatch(name):
        raise InvalidEndpoint(
            f"Invalid inference_id; '{name[:200]}' can contain lowercase alphanumeric (a-z and 0-9), hyphens, "
            "underscores or dots; must start and end with alphanumeric"
        )


class Task(StrEnum):
    """What an endpoint does, in Elasticsearch's words."""

    TEXT_EMBEDDING = "text_embedding"
    SPARSE_EMBEDDING = "sparse_embedding"
    RERANK = "rerank"
    COMPLETION = "completion"
    CHAT_COMPLETION = "chat_completion"

    @classmethod
    def _missing_(cls, value: object) -> Task | None:
        """Hugging Face's words are read, too."""
        return _TASK_AT_HUGGING_FACE.get(value) if isinstance(value, str) else None

    @property
    def pipeline_tag(self) -> str:
        """Hugging Face's word for it."""
        return next(word for word, task in _TASK_AT_HUGGING_FACE.items() if task is self)


_TASK_AT_HUGGING_FACE = {
    "feature-extraction": Task.TEXT_EMBEDDING,
    "sentence-similarity": Task.TEXT_EMBEDDING,
    "sentence-embeddings": Task.TEXT_EMBEDDING,
    "sparse-embedding": Task.SPARSE_EMBEDDING,
    "fill-mask": Task.SPARSE_EMBEDDING,
    "text-ranking": Task.RERANK,
    "sentence-ranking": Task.RERANK,
    "text-generation": Task.COMPLETION,
    "text2text-generation": Task.COMPLETION,
    "conversational": Task.CHAT_COMPLETION,
}
"""The first word of each task is the one that is shown."""
GENERATION_TASKS = frozenset({Task.COMPLETION, Task.CHAT_COMPLETION})


class Source(StrEnum):
    """Where a model runs."""

    ROUTER = "router"
    """Hosted: Hugging Face's Inference Providers, once called the Hosted Inference API."""

    DEDICATED = "dedicated"
    """An Inference Endpoint, or any such server, by its URL."""
    LOCAL = "local"
    """On this machine."""
    FAKE = "fake"
    """Deterministic vectors without a model or a network, for demonstrations and tests."""


class Engine(StrEnum):
    """The server behind a URL."""

    TEI = "tei"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    TGI = "tgi"
    TRANSFORMERS = "transformers"
    """`transformers serve`."""
    INFINITY = "infinity"
    TOOLKIT = "toolkit"
    """Hugging Face's default toolkit, and custom handlers inside it."""
    OPENAI = "openai"
    """Any other server with OpenAI's routes."""
    PROVIDER = "provider"
    """One of Hugging Face's Inference Providers."""
    OPENVINO = "openvino"
    """The gate's own runtime."""
    FAKE = "fake"


class Precision(StrEnum):
    """What a local model computes in."""

    F32 = "f32"
    """The reference."""
    BF16 = "bf16"
    """Up to four times as fast, on processors that have it."""
    AUTO = "auto"
    """bf16 where the processor has it and the model's vectors stay the same for any search."""


class Similarity(StrEnum):
    """How an index compares the vectors."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot_product"
    L2_NORM = "l2_norm"


class TokenCounts(StrEnum):
    """Who counts the tokens of a call."""

    ENGINE = "engine"
    """The model's server; its sum for several calls that shared a request is divided, and labelled as estimated."""
    TOKENIZER = "tokenizer"
    """The model's own tokenizer, wherever the server gives no exact number."""
    ESTIMATED = "estimated"
    """Nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was learned of a model when it was registered; `None` is not known."""

    engine: Engine | None = None
    engine_version: str | None = None
    model: str | None = None
    revision: str | None = None
    """A commit of the Hub, or for local weights a digest of them."""
    dimensions: int | None = None
    max_input_tokens: int | None = None
    token_counts: TokenCounts | None = None
    max_batch_texts: int | None = None
    """The server's own client batch limit."""
    auto_truncate: bool | None = None
    pooling: str | None = None
    precision: str | None = None
    route: str | None = None
    """Where the server takes the task, below its URL, if that is not where its engine usually does."""
    prefixes: dict[InputType, str] = field(default_factory=dict)
    """What the model wants before each kind of text; empty if nothing."""
    fingerprint: str | None = None
    """The vector of a fixed text, f32 in base64: a model that answers otherwise is another one."""
    chats: bool | None = None
    """Whether it goes on with conversations: it has a chat template."""
    completes: bool | None = None
    """Whether it goes on with texts."""
    provider: str | None = None
    """Which of the Inference Providers serves it."""
    provider_model: str | None = None
    """The provider's own name of it."""
    chunk_fit: ChunkFit | None = None
    """`None` where the model's token limit is not known."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A registered model, without its token: see `Target`."""

    name: str
    task: Task
    source: Source
    model: str | None = None
    """A Hub repository, or for a local model also a folder."""
    url: str | None = None
    """As the operator gave it."""
    engine: Engine | None = None
    """The operator's choice; `None` lets the gate detect it."""
    similarity: Similarity | None = None
    dimensions: int | None = None
    """What the operator expects; the measured number is in `facts`."""
    max_input_tokens: int | None = None
    provider: str | None = None
    """Of a router endpoint: `auto`, a provider's name, or a policy (`fastest`, `cheapest`, `preferred`)."""
    bill_to: str | None = None
    """The organisation that pays for a router endpoint."""
    namespace: str | None = None
    """The user or organisation that a dedicated endpoint belongs to at Hugging Face."""
    connection: str | None = None
    """The name of a stored token, used instead of one of its own."""
    proxy: str | None = None
    """An HTTP proxy between the gate and the server, by URL."""
    ca_bundle: str | None = None
    """A file of certificates that the server's is checked against, instead of the system's."""
    timeout: float | None = None
    """Seconds that one request may take; `None` is the gate's own."""
    fallback: str | None = None
    """The name of an endpoint that answers when this one cannot."""
    enabled: bool = True
    requests_per_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    burst: int = 1
    """Requests that may leave together after a pause; Elasticsearch's limiter allows one."""
    prefixes: dict[InputType, str] | None = None
    """What the operator wants before each kind of text, instead of what is known of the model."""
    cached: bool = True
    """Whether vectors are remembered."""
    top_n: int | None = None
    """Of an endpoint that ranks: how many ranks an answer holds, where the call does not say; `None` for all."""
    return_documents: bool | None = None
    """Of an endpoint that ranks: whether an answer holds the texts, where the call does not say."""
    precision: Precision = Precision.F32
    """Of a local model, as the operator wants it; what it computes in is in `facts`."""
    chunking: ChunkingSettings | None = None
    """How long texts are cut where a call asks for chunks; `None` cuts so that the model reads all of every chunk."""
    facts: Facts = field(default_factory=Facts)

    @property
    def public_model(self) -> str | None:
        """The model as any caller may see it: of a local one never the folder."""
        return self.facts.model or (None if self.source is Source.LOCAL else self.model)

    @property
    def token_limit(self) -> int | None:
        """How many tokens of a text the model reads, special ones included."""
        return self.max_input_tokens or self.facts.max_input_tokens

    @property
    def rate_limited(self) -> bool:
        """Whether its calls wait for a rate limit: one that runs inside the gateway has none unless it is set."""
        limits = (
            self.requests_per_minute,
            self.tokens_per_minute,
            self.max_concurrent_requests,
            self.burst,
        )
        unset = (DEFAULT_REQUESTS_PER_MINUTE, None, None, 1)
        return self.source in {Source.DEDICATED, Source.ROUTER} or limits != unset

    def __post_init__(self) -> None:
        check_name(self.name)
        for label, value in (
            ("requests_per_minute", self.requests_per_minute),
            ("dimensions", self.dimensions),
            ("max_input_tokens", self.max_input_tokens),
            ("tokens_per_minute", self.tokens_per_minute),
            ("max_concurrent_requests", self.max_concurrent_requests),
            ("burst", self.burst),
            ("timeout", self.timeout),
            ("top_n", self.top_n),
        ):
            if value is not None and not 0 < value < math.inf:  # YAML knows .nan and .inf
                number = "number" if label == "timeout" else "integer"
                raise InvalidEndpoint(f"Invalid value [{value}]. [{label}] must be a positive {number}")
        if self.dimensions is not None and self.dimensions > MAX_DIMENSIONS:
            raise InvalidEndpoint(
                f"Invalid value [{self.dimensions}]. [dimensions] is at most {MAX_DIMENSIONS}"
            )
        if self.source is Source.DEDICATED and not self.url:
            raise InvalidEndpoint(
                "A dedicated endpoint needs its URL.", remedy="Copy it from the endpoint's page."
            )
        if self.source is Source.ROUTER and not self.model:
            raise InvalidEndpoint("A hosted endpoint needs a model: its name on the Hub, as org/name.")
        if self.fallback == self.name:
            raise InvalidEndpoint("An endpoint cannot fall back to itself.")
        if self.source is Source.LOCAL and not self.model:
            raise InvalidEndpoint("A local endpoint needs a model: a folder, or a repository of the Hub.")


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint with the access tokens for it: its own, or those of its connection."""

    endpoint: Endpoint
    token: Secret | None = None

    @property
    def first_token(self) -> Secret | None:
        """The first of several tokens, for requests to Hugging Face itself."""
        return next(iter(self.token.each()), None) if self.token else None
