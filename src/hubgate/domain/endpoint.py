"""An endpoint: a model registered once, under one name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from hubgate.domain.chunking import ChunkFit, ChunkingSettings
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.secret import Secret

DEFAULT_REQUESTS_PER_MINUTE = 3000
MAX_DIMENSIONS = 65_536
"""Far more than any model has; catches typing errors."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9_\-.]*[a-z0-9])?")


def check_name(name: str) -> None:
    """Apply Elasticsearch's rule for inference ids.

    Raises:
        InvalidEndpoint: the name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise InvalidEndpoint(
            f"Invalid inference_id; '{name[:200]}' can contain lowercase alphanumeric (a-z and 0-9), hyphens, "
            "underscores or dots; must start and end with alphanumeric"
        )


class Task(StrEnum):
    """What an endpoint does, under Elasticsearch's names. `Task(…)` also accepts Hugging Face's names."""

    TEXT_EMBEDDING = "text_embedding"
    SPARSE_EMBEDDING = "sparse_embedding"
    RERANK = "rerank"
    COMPLETION = "completion"
    CHAT_COMPLETION = "chat_completion"

    @classmethod
    def _missing_(cls, value: object) -> Task | None:
        return _TASK_OF_PIPELINE_TAG.get(value) if isinstance(value, str) else None

    @property
    def pipeline_tag(self) -> str:
        """Hugging Face's name for the task."""
        return next(tag for tag, task in _TASK_OF_PIPELINE_TAG.items() if task is self)


_TASK_OF_PIPELINE_TAG = {
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
"""The first entry of each task is the one that is displayed."""
GENERATION_TASKS = frozenset({Task.COMPLETION, Task.CHAT_COMPLETION})


class InputType(StrEnum):
    """What a text is used for. Asymmetric models embed documents and queries differently."""

    INGEST = "ingest"
    SEARCH = "search"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"

    @classmethod
    def parse(cls, word: str) -> InputType:
        """Parse Elasticsearch's names, and `document` and `query`.

        Raises:
            ValueError: the name is unknown.
        """
        folded = word.lower()
        return cls({"document": "ingest", "query": "search"}.get(folded, folded))


class OutputDtype(StrEnum):
    """The type of the numbers of a vector in a response. Inside hubgate, vectors are always single precision."""

    FLOAT = "float"
    INT8 = "int8"
    """A signed byte per dimension."""
    UINT8 = "uint8"
    """`int8` plus 128."""
    BINARY = "binary"
    """`ubinary` minus 128, as signed bytes."""
    UBINARY = "ubinary"
    """A bit per dimension, eight to a byte."""


class Source(StrEnum):
    """Where a model runs."""

    ROUTER = "router"
    """Hugging Face's Inference Providers."""
    DEDICATED = "dedicated"
    """An Inference Endpoint, or any other inference server, by its URL."""
    LOCAL = "local"
    """On this machine."""
    FAKE = "fake"
    """Deterministic vectors without a model or a network, for demos and tests."""


class Engine(StrEnum):
    """The inference server that runs a model."""

    TEI = "tei"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    TGI = "tgi"
    TRANSFORMERS = "transformers"
    """`transformers serve`."""
    INFINITY = "infinity"
    TOOLKIT = "toolkit"
    """Hugging Face's inference toolkit, including custom handlers."""
    OPENAI = "openai"
    """Any other OpenAI-compatible server."""
    PROVIDER = "provider"
    """One of Hugging Face's Inference Providers."""
    OPENVINO = "openvino"
    """hubgate's own runtime."""
    FAKE = "fake"


class Precision(StrEnum):
    """The number format a local model computes in."""

    F32 = "f32"
    BF16 = "bf16"
    """Up to four times faster on processors that support it."""
    INT8 = "int8"
    """8-bit weights of the linear layers, and 8-bit inputs where the processor multiplies them. For embedding models and
    rerankers."""
    AUTO = "auto"
    """bf16 if the processor supports it and search results stay the same, else f32."""


class Similarity(StrEnum):
    """How a search index should compare the vectors."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot_product"
    L2_NORM = "l2_norm"


class PrefixSource(StrEnum):
    """Where the prefix of an input type is known from."""

    OPERATOR = "operator"
    """The endpoint's `prefixes` or `prompt_names`."""
    MODEL = "model"
    """The prompts in the model's own files."""
    TABLE = "table"
    """hubgate's table, by the model's name."""
    SERVER = "server"
    """The model's server adds a prompt itself, so hubgate adds nothing."""
    NONE = "none"
    """No prefix is known for the model."""


class TokenCounts(StrEnum):
    """Where the token count of a call comes from."""

    ENGINE = "engine"
    """The model's server. If several calls shared a request, its total is divided and marked as estimated."""
    TOKENIZER = "tokenizer"
    """The model's own tokenizer, run by hubgate if the server returns no exact number."""
    ESTIMATED = "estimated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was learned about a model at registration; `None` means unknown."""

    engine: Engine | None = None
    engine_version: str | None = None
    model: str | None = None
    revision: str | None = None
    """A commit on the Hub, or a digest of local weights."""
    dimensions: int | None = None
    max_input_tokens: int | None = None
    token_counts: TokenCounts | None = None
    max_batch_texts: int | None = None
    """The server's limit on texts per request."""
    max_concurrent_requests: int | None = None
    """The server's limit on requests in flight, as it reports it; TEI's is on texts."""
    auto_truncate: bool | None = None
    pooling: str | None = None
    precision: str | None = None
    precision_self_test: float | None = None
    """With `int8`: the lowest cosine of its vectors to those of f32, or a reranker's largest difference of scores."""
    route: str | None = None
    """The path of the task below the server's URL, if it is not the engine's usual one."""
    prefixes: dict[InputType, str] = field(default_factory=dict)
    """The prefix that the model requires for each input type."""
    prefix_source: PrefixSource | None = None
    """Where `prefixes` are from; `None` if nothing was looked for."""
    prompts: dict[str, str] | None = None
    """The prompts in the model's files, by name; `None` if the files could not be read."""
    default_prompt: str | None = None
    """The name of the prompt that sentence-transformers adds if none is requested."""
    original: str | None = None
    """The repository of which the model is a quantized copy, by its card."""
    shorter_dimensions: tuple[int, ...] | None = None
    """To which its vectors may be truncated (Matryoshka), by its card."""
    fingerprint: str | None = None
    """The vector of a fixed text, f32 in base64, to notice that another model is running."""
    chats: bool | None = None
    """Whether it has a chat template."""
    completes: bool | None = None
    """Whether it completes plain texts."""
    provider: str | None = None
    """The Inference Provider that serves it."""
    provider_model: str | None = None
    """The provider's own name for the model."""
    chunk_fit: ChunkFit | None = None
    """`None` if the model's token limit is unknown."""
    scores: tuple[float, ...] = ()
    """A reranker's scores of known pairs, to notice that another model is running."""
    replicas: tuple[Facts, ...] = ()
    """Of each replica after the first."""
    rerank_template: str | None = None
    """The prompt that hubgate writes for a reranker: see `core.rerank_templates`. `None` if it sends texts unchanged."""
    raw_scores: bool | None = None
    """Whether the server returns scores that are not between 0 and 1; `None` if this was not measured."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The settings of a registered model and the facts learned about it, without its token: see `Target`."""

    name: str
    task: Task
    source: Source
    model: str | None = None
    """A Hub repository; for local models also a folder; for dedicated endpoints also the server's own name."""
    hub_model: str | None = None
    """The model's Hub repository, if a dedicated endpoint's server has another name for it."""
    url: str | None = None
    urls: tuple[str, ...] = ()
    """If several servers run the model, the URLs of all; `url` is the first."""
    engine: Engine | None = None
    """`None` detects it."""
    similarity: Similarity | None = None
    dimensions: int | None = None
    """What the operator expects; the measured value is in `facts`."""
    min_dimensions: int | None = None
    """The fewest to which calls may shorten the vectors; `None` leaves that to what hubgate knows of the model."""
    max_input_tokens: int | None = None
    provider: str | None = None
    """For router endpoints: `auto`, a provider's name, or a policy (`fastest`, `cheapest`, `preferred`). A dedicated
    endpoint with a provider has the hosted model as its last replica."""
    bill_to: str | None = None
    """The organization that pays for a router endpoint."""
    namespace: str | None = None
    """The Hugging Face user or organization that owns a dedicated endpoint."""
    connection: str | None = None
    """The name of a stored token, instead of a token of its own."""
    proxy: str | None = None
    """The URL of an HTTP proxy in front of the server."""
    ca_bundle: str | None = None
    """A file of CA certificates that replaces the system's."""
    timeout: float | None = None
    """Seconds per request; `None` means hubgate's default."""
    fallback: str | None = None
    """The endpoint that handles calls when this one fails."""
    enabled: bool = True
    requests_per_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    max_batch_texts: int | None = None
    """How many texts a request may carry at most, below the server's own limit."""
    burst: int = 1
    """How many requests may be sent at once after a pause. Elasticsearch's limiter allows one."""
    prefixes: dict[InputType, str] | None = None
    """Replaces the prefixes in `facts`."""
    prompt_names: dict[InputType, str] | None = None
    """Which of the model's own prompts to use, for input types whose prompt is not chosen by its name."""
    cached: bool = True
    top_n: int | None = None
    """For rerankers: how many results to return by default; `None` returns all."""
    return_documents: bool | None = None
    """For rerankers: whether to return the texts by default."""
    instruction: str | None = None
    """For rerankers that follow instructions: what makes a text relevant."""
    precision: Precision = Precision.F32
    """For local models. The one in use is in `facts`."""
    chunking: ChunkingSettings | None = None
    """How to split long texts; `None` makes chunks that fit the model's token limit."""
    facts: Facts = field(default_factory=Facts)

    @property
    def public_model(self) -> str | None:
        """The model's name as callers may see it: never the folder of a local model."""
        return self.facts.model or (None if self.source is Source.LOCAL else self.model)

    @property
    def repository(self) -> str | None:
        """The model's name on the Hub as far as it is known; for a local model perhaps a folder."""
        return self.hub_model or self.model or self.facts.model

    @property
    def model_version(self) -> str | None:
        """The model's public name and, after an @, its revision, as far as they are known."""
        model, revision = self.public_model, self.facts.revision
        return f"{model}@{revision}" if model and revision else model

    @property
    def replicas(self) -> tuple[Endpoint, ...]:
        """The servers of the model, each as an endpoint of its own with the facts known about it."""
        if not self.is_replicated:
            return (self,)
        plain = replace(self, urls=(), provider=None)
        found = [replace(plain, url=url) for url in self.urls or (self.url,)]
        if self._has_hosted_replica:
            found.append(
                replace(
                    plain, source=Source.ROUTER, url=None, engine=None, namespace=None, provider=self.provider
                )
            )
        known = (replace(self.facts, replicas=()), *self.facts.replicas)
        unknown = (Facts(),) * (len(found) - len(known))
        return tuple(replace(one, facts=facts) for one, facts in zip(found, (*known, *unknown), strict=False))

    @property
    def is_replicated(self) -> bool:
        """Whether several servers run the model."""
        return self.source is Source.DEDICATED and (bool(self.urls) or self._has_hosted_replica)

    @property
    def _has_hosted_replica(self) -> bool:
        return self.provider is not None and self.model is not None

    @property
    def token_limit(self) -> int | None:
        """How many tokens of a text the model reads, including special tokens."""
        return self.max_input_tokens or self.facts.max_input_tokens

    @property
    def effective_prefixes(self) -> Mapping[InputType, str]:
        """What hubgate adds before the texts of each input type."""
        return self.facts.prefixes if self.prefixes is None else self.prefixes

    @property
    def default_prefix(self) -> str:
        """What hubgate adds before texts without an input type: the model's default prompt, as sentence-transformers."""
        if self.prefixes is not None or self.facts.prefix_source is not PrefixSource.MODEL:
            return ""
        return (self.facts.prompts or {}).get(self.facts.default_prompt or "", "")

    @property
    def prefix_sources(self) -> Mapping[InputType, PrefixSource]:
        """Where the prefix of each input type is known from; empty if that is not known."""
        source = self.facts.prefix_source if self.prefixes is None else PrefixSource.OPERATOR
        if source is None:
            return {}
        chosen = self.prompt_names or {} if source is not PrefixSource.SERVER else {}
        return {kind: PrefixSource.OPERATOR if kind in chosen else source for kind in InputType}

    @property
    def is_rate_limited(self) -> bool:
        """Whether calls wait for the rate limit. Models that run inside the gateway have one only if it is set."""
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
        for field_ in fields(self):
            value = getattr(self, field_.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and not 0 < value < math.inf:  # YAML allows .nan and .inf
                number = "number" if "float" in str(field_.type) else "integer"
                raise InvalidEndpoint(f"Invalid value [{value}]. [{field_.name}] must be a positive {number}")
        if self.dimensions is not None and self.dimensions > MAX_DIMENSIONS:
            raise InvalidEndpoint(
                f"Invalid value [{self.dimensions}]. [dimensions] must be at most {MAX_DIMENSIONS}"
            )
        if self.source is Source.DEDICATED and not self.url:
            raise InvalidEndpoint(
                "A dedicated endpoint requires a URL.", remedy="Copy it from the endpoint's page."
            )
        if self.urls:
            self._check_urls()
        if self.source is Source.ROUTER and not self.model:
            raise InvalidEndpoint("A hosted endpoint requires a model: its name on the Hub, as org/name.")
        if self.fallback == self.name:
            raise InvalidEndpoint("An endpoint cannot fall back to itself.")
        if self.source is Source.LOCAL and not self.model:
            raise InvalidEndpoint("A local endpoint requires a model: a folder, or a repository on the Hub.")

    def _check_urls(self) -> None:
        if self.source is not Source.DEDICATED:
            raise InvalidEndpoint("Only a dedicated endpoint has [urls].")
        if len({url.rstrip("/") for url in self.urls}) < len(self.urls):
            raise InvalidEndpoint("[urls] lists a URL twice.", remedy="Each replica needs a URL of its own.")
        if self.urls[0] != self.url or len(self.urls) < 2:
            raise InvalidEndpoint("[url] is not the first of [urls].", remedy="Send only one of the two.")


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint with the access tokens for it: its own, or those of its connection."""

    endpoint: Endpoint
    token: Secret | None = None
    version: int = field(default=1, compare=False)
    """Of the stored endpoint that this one is based on. Each change adds one."""
    changed: str | None = field(default=None, compare=False)
    """Why calls are refused: another model is running. `None` again once an operator accepts it."""
    limit: str | None = field(default=None, compare=False)
    """The identity of its rate limit, kept when the numbers or the token change; `None` until then."""

    @property
    def first_token(self) -> Secret | None:
        """The first of several tokens, for requests to Hugging Face itself."""
        return next(iter(self.token.each()), None) if self.token else None
