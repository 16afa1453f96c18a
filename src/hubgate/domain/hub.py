"""What Hugging Face tells of models, of the owner of a token, and of Inference Endpoints.

`None` is not known: the Hub did not say, and nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hubgate.domain.endpoint import Engine, Task

MAX_MODELS = 100
"""Of one search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSearch:
    """What is looked for on the Hub; trending models come first."""

    text: str = ""
    task: Task | None = None
    served: bool | None = None
    """`True`: only models that one of the Inference Providers serves now; `False`: only the others."""
    limit: int = 20
    """At most `MAX_MODELS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMapping:
    """One of the Inference Providers that has a model."""

    provider: str
    task: str
    """In Hugging Face's words."""
    status: str
    """`live`, `staging` or `error`."""
    provider_model: str
    """The provider's own name of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model of the Hub."""

    name: str
    """Its repository, as org/name."""
    tasks: tuple[Task, ...] = ()
    """Which of the gate's tasks it does, by its tags; those of the Hub are in `pipeline_tag`."""
    pipeline_tag: str | None = None
    served_by: tuple[ProviderMapping, ...] = ()
    """In the order that the owner of the token prefers."""
    gated: bool = False
    """Whether its owner must let a reader in first."""
    private: bool = False
    downloads: int | None = None
    """In the last 30 days."""
    likes: int | None = None
    trending: float | None = None
    """The Hub's score; higher is more talked about at the moment."""
    parameters: int | None = None
    dimensions: int | None = None
    """Numbers of one of its vectors; only of embedding models."""
    max_input_tokens: int | None = None
    library: str | None = None
    license: str | None = None
    revision: str | None = None
    """The newest commit."""
    updated_at: str | None = None
    """The time of it, in ISO 8601."""

    @property
    def served(self) -> bool:
        """Whether one of the Inference Providers serves it now."""
        return any(serving.status == "live" for serving in self.served_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubUser:
    """The owner of a token, and what the token may do."""

    name: str
    kind: str = "user"
    """`user`, `org` or `app`."""
    organisations: tuple[str, ...] = ()
    """Together with the name: the namespaces that Inference Endpoints may belong to."""
    token_name: str | None = None
    role: str | None = None
    """`read`, `write` or `fineGrained`."""
    scopes: tuple[str, ...] = ()
    """Of a fine-grained token, for whatever they are given."""
    calls_providers: bool | None = None
    """Whether it may call Inference Providers, the router's source of models."""
    calls_endpoints: bool | None = None
    """Whether it may call Inference Endpoints."""


class DeploymentState(StrEnum):
    """How an Inference Endpoint is, in Hugging Face's words."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    UPDATING = "updating"
    UPDATE_FAILED = "updateFailed"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"
    SCALED_TO_ZERO = "scaledToZero"
    UNKNOWN = "unknown"
    """A word that is new to the gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One of Hugging Face's Inference Endpoints."""

    name: str
    namespace: str
    state: DeploymentState
    said: str = ""
    """Hugging Face's own words on its state."""
    url: str | None = None
    """`None` while it is paused, or was never ready."""
    repository: str | None = None
    revision: str | None = None
    task: str | None = None
    """In Hugging Face's words."""
    engine: Engine | None = None
    """By its image; `None` for one that is not known."""
    image: str | None = None
    access: str | None = None
    """`public`, `authenticated` or `private`."""
    hardware: str | None = None
    region: str | None = None
    min_replicas: int | None = None
    """With 0 it sleeps when it is not used."""
    price_per_hour: float | None = None
    """US dollars for one replica."""

    @property
    def paused(self) -> bool:
        """It does not wake by itself: somebody has to resume it."""
        return self.state is DeploymentState.PAUSED

    @property
    def asleep(self) -> bool:
        """The next call wakes it."""
        return self.state is DeploymentState.SCALED_TO_ZERO

    @property
    def running(self) -> bool:
        """It answers now."""
        return self.state in {DeploymentState.RUNNING, DeploymentState.UPDATING}
