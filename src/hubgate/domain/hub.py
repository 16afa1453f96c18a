"""What Hugging Face's APIs return about models, token owners and Inference Endpoints. `None` means unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hubgate.domain.endpoint import Engine, Task

MAX_MODELS = 100
"""Per search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSearch:
    """A search on the Hub, sorted by trending."""

    text: str = ""
    task: Task | None = None
    served: bool | None = None
    """Whether an Inference Provider must be serving the model now (`True`) or must not (`False`)."""
    limit: int = 20
    """At most `MAX_MODELS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMapping:
    """An Inference Provider that offers a model."""

    provider: str
    task: str
    """Hugging Face's name for the task."""
    status: str
    """`live`, `staging` or `error`."""
    provider_model: str
    """The provider's own name for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrompts:
    """What a model's files say about the texts that it reads, for sentence-transformers."""

    texts: dict[str, str] = field(default_factory=dict)
    """By name. An empty one stands for no prompt."""
    default: str | None = None
    """The name of the prompt that sentence-transformers adds if none is requested."""
    pooling: str | None = None
    """`mean`, `cls`, `lasttoken`, …; `None` if unknown."""
    suffix: str = ""
    """What the model expects after each text. Not of sentence-transformers itself, and of few models."""
    pools_prompt: bool = True
    """Whether the tokens of the prompt are pooled too."""
    original: str | None = None
    """The repository of which the model is a quantized copy, by its card."""
    tuned_from: str | None = None
    """The repository of which the model is a fine-tune, by its card."""
    shorter_dimensions: tuple[int, ...] = ()
    """To which its vectors may be truncated (Matryoshka), by its card."""


class LicenseLimit(StrEnum):
    """What to check before a model is used."""

    NON_COMMERCIAL = "non_commercial"
    """The license does not allow commercial use."""
    OWN_TERMS = "own_terms"
    """The license has conditions that have to be read: copyleft, use restrictions, or the owner's own terms."""
    UNKNOWN = "unknown"
    """The card names no license."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkScore:
    """How a model scores in MTEB, by its own card."""

    task: str
    """MTEB's name for the type of task, such as `Retrieval`."""
    score: float
    """The mean of the main metric over the datasets."""
    datasets: int
    """How many the card lists. Means over different datasets cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model on the Hub."""

    name: str
    """The repository, as org/name."""
    tasks: tuple[Task, ...] = ()
    """The tasks that hubgate supports, derived from the model's tags."""
    pipeline_tag: str | None = None
    served_by: tuple[ProviderMapping, ...] = ()
    """In the token owner's order of preference."""
    gated: bool = False
    """Whether its owner must grant access."""
    private: bool = False
    downloads: int | None = None
    """In the last 30 days."""
    likes: int | None = None
    trending: float | None = None
    """The Hub's trending score."""
    parameters: int | None = None
    dimensions: int | None = None
    """For embedding models."""
    max_input_tokens: int | None = None
    library: str | None = None
    model_type: str | None = None
    """The architecture, as in the model's `config.json`; only of a single model."""
    license: str | None = None
    """By the Hub's name for it."""
    license_name: str | None = None
    """The owner's name for it, if the Hub has none."""
    license_limit: LicenseLimit | None = None
    """`None` if the license is permissive."""
    languages: tuple[str, ...] = ()
    """As the card names them; only of a single model."""
    scores: tuple[BenchmarkScore, ...] = ()
    """Only of a single model."""
    revision: str | None = None
    """The latest commit."""
    updated_at: str | None = None
    """When it was made, in ISO 8601."""
    quantized_from: str | None = None
    """The repository of the original, if this is a quantized copy."""
    tuned_from: str | None = None
    """The repository of the original, if this is a fine-tune."""
    shorter_dimensions: tuple[int, ...] = ()
    """To which the vectors may be truncated, if it was trained with `MatryoshkaLoss`; only of a single model."""
    prompts: ModelPrompts | None = None
    """`None` if they were not read, or could not be."""

    @property
    def served(self) -> bool:
        """Whether an Inference Provider is serving it now."""
        return any(serving.status == "live" for serving in self.served_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubUser:
    """The owner of a token, and the token's permissions."""

    name: str
    kind: str = "user"
    """`user`, `org` or `app`."""
    organisations: tuple[str, ...] = ()
    """Namespaces that Inference Endpoints may belong to, besides `name`."""
    token_name: str | None = None
    role: str | None = None
    """`read`, `write` or `fineGrained`."""
    scopes: tuple[str, ...] = ()
    """The permissions of a fine-grained token, on any resource."""
    calls_providers: bool | None = None
    """Whether it may call Inference Providers."""
    calls_endpoints: bool | None = None
    """Whether it may call Inference Endpoints."""
    manages_endpoints: bool | None = None
    """Whether it may create, change and delete Inference Endpoints."""


class DeploymentState(StrEnum):
    """The state of an Inference Endpoint, under Hugging Face's names."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    UPDATING = "updating"
    UPDATE_FAILED = "updateFailed"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"
    SCALED_TO_ZERO = "scaledToZero"
    UNKNOWN = "unknown"
    """A state that hubgate does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One of Hugging Face's Inference Endpoints."""

    name: str
    namespace: str
    state: DeploymentState
    status_message: str = ""
    """Hugging Face's description of the state."""
    url: str | None = None
    """`None` while it is paused or was never ready."""
    repository: str | None = None
    revision: str | None = None
    task: str | None = None
    """Hugging Face's name for the task."""
    engine: Engine | None = None
    """Derived from the image; `None` if the image is unknown."""
    image: str | None = None
    access: str | None = None
    """`public`, `authenticated` or `private`."""
    hardware: str | None = None
    region: str | None = None
    min_replicas: int | None = None
    """0 allows scale to zero."""
    max_replicas: int | None = None
    zero_after: int | None = None
    """Minutes without a request until it scales to zero."""
    ready_replicas: int | None = None
    target_replicas: int | None = None
    accelerator: str | None = None
    tags: tuple[str, ...] = ()
    price_per_hour: float | None = None
    """US dollars per replica."""

    @property
    def paused(self) -> bool:
        """Whether somebody has to resume it before it can be called."""
        return self.state is DeploymentState.PAUSED

    @property
    def asleep(self) -> bool:
        """Whether it is scaled to zero, and starts at the next call."""
        return self.state is DeploymentState.SCALED_TO_ZERO

    @property
    def running(self) -> bool:
        """Whether it answers calls now."""
        return self.state in {DeploymentState.RUNNING, DeploymentState.UPDATING}
