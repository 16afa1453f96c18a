"""What it takes to create an Inference Endpoint at Hugging Face: hardware, image, scaling, price, and the plan of it.

What Hugging Face reports about one that exists is a `hubgate.domain.hub.Deployment`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hubgate.domain.endpoint import Engine, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.hub import DeploymentState
from hubgate.domain.secret import Secret
from hubgate.features.deployments.fields import Access, Scaling

TAG = "hubgate"
"""On every Inference Endpoint that hubgate creates. It also has `hubgate-ID`, with the id of its plan."""
HOURS_PER_MONTH = 730
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


class HardwareStatus(StrEnum):
    """Under Hugging Face's names."""

    AVAILABLE = "available"
    LOW_AVAILABILITY = "low_availability"
    NOT_AVAILABLE = "not_available"
    RESERVED = "reserved"
    DEPRECATED = "deprecated"
    UNKNOWN = "unknown"
    """A word that hubgate does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """An instance that Inference Endpoints can run on, its price, and the namespace's quota of it."""

    id: str
    vendor: str
    region: str
    accelerator: str
    """`cpu`, `gpu` or `neuron`."""
    instance_type: str
    instance_size: str
    price_per_hour: float
    """US dollars per replica."""
    status: HardwareStatus = HardwareStatus.AVAILABLE
    architecture: str = ""
    """For people, such as `Nvidia L4`."""
    accelerators: int = 1
    """Per replica."""
    cpus: int | None = None
    memory_gb: float | None = None
    gpu_memory_gb: float | None = None
    """Of all accelerators of a replica together; `None` without GPUs."""
    max_accelerators: int | None = None
    """The namespace's quota of this type."""
    used_accelerators: int = 0

    @property
    def instance(self) -> str:
        """As the command line names it: `nvidia-l4/x1`."""
        return f"{self.instance_type}/{self.instance_size}"

    @property
    def replicas_left(self) -> int | None:
        """How many replicas the quota still allows; `None` if it is unknown."""
        if self.max_accelerators is None:
            return None
        return max(0, self.max_accelerators - self.used_accelerators) // max(1, self.accelerators)


class Misfit(StrEnum):
    """Why a model cannot run on some hardware."""

    NOT_AVAILABLE = "not_available"
    NO_IMAGE = "no_image"
    """The engine has no image for this accelerator."""
    MEMORY = "memory"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether a model fits on some hardware."""

    hardware: Hardware
    misfit: Misfit | None = None
    reason: str = ""
    """The misfit in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The container of an Inference Endpoint: one variant of the API's union `model.image`."""

    variant: str
    """`tei`, `vLLM`, `sGLang`, `llamacpp`, `tgi`, `hfServe`, `huggingface`, `custom`, …"""
    url: str | None = None
    """`None` for an image that Hugging Face manages."""
    port: int | None = None
    health_route: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """The variant's own settings, such as `maxBatchTokens`."""
    username: str | None = None
    """For a private registry; only for the variant `custom`."""
    password: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedDeployment:
    """An Inference Endpoint to create."""

    namespace: str
    name: str
    repository: str
    hardware: Hardware
    image: Image
    scaling: Scaling = field(default_factory=Scaling)
    access: Access = Access.PRIVATE
    framework: str = "pytorch"
    revision: str | None = None
    task: str | None = None
    """Hugging Face's name for it."""
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    """Environment variables that Hugging Face does not show again."""
    tags: tuple[str, ...] = (TAG,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentChanges:
    """Changes of an Inference Endpoint; `None` keeps what is there."""

    hardware: Hardware | None = None
    scaling: Scaling | None = None
    revision: str | None = None
    arguments: tuple[str, ...] | None = None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What replicas cost, in US dollars an hour."""

    replica: float
    """One."""
    at_least: float
    """The min replicas."""
    at_most: float
    """The max replicas."""

    @property
    def per_day(self) -> float:
        """At most."""
        return self.at_most * 24

    @property
    def per_month(self) -> float:
        """At most, for 730 hours."""
        return self.at_most * HOURS_PER_MONTH


def price_of(hardware: Hardware, scaling: Scaling) -> Price:
    """The price of these replicas on this hardware."""
    one = hardware.price_per_hour
    return Price(replica=one, at_least=one * scaling.min_replicas, at_most=one * scaling.max_replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A way to run a model that Hugging Face has tested, from the Inference Catalog."""

    id: str
    repository: str
    engine: Engine | None
    """`None` if hubgate does not know it."""
    accelerator: str
    gguf_file: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a model could run on at Inference Endpoints."""

    namespace: str
    name: str
    """That the Inference Endpoint would have."""
    engine: Engine
    why: str
    """Why this engine."""
    fits: tuple[Fit, ...]
    """All hardware that was considered, cheapest first."""
    recipes: tuple[Recipe, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What creating an Inference Endpoint would do. Making a plan costs nothing."""

    id: str
    wanted: WantedDeployment
    body: Mapping[str, Any]
    """The exact request, with its secrets masked."""
    price: Price
    engine: Engine
    why: str
    """Why this engine."""
    needed_gb: float | None
    """The memory that the model needs, estimated; `None` if its size is unknown."""
    fits: tuple[Fit, ...]
    """All hardware that was considered, cheapest first."""
    recipes: tuple[Recipe, ...] = ()
    warnings: tuple[str, ...] = ()
    confirm: str = ""
    """Send it to create what was planned, within ten minutes."""
    expires_at: float = 0.0
    """Seconds since the epoch."""


class Stage(StrEnum):
    """How far an Inference Endpoint is on its way from a plan to a registered endpoint."""

    PLANNED = "planned"
    """The request to create it was sent or is about to be; its outcome is not known yet."""
    CREATED = "created"
    INITIALIZING = "initializing"
    RUNNING = "running"
    """It is being registered."""
    REGISTERED = "registered"
    FAILED = "failed"
    """It exists, and may cost, but could not be registered."""
    UNKNOWN = "unknown"
    """The reply to its creation was lost, and Hugging Face has not shown it since."""

    @property
    def is_final(self) -> bool:
        return self in {Stage.REGISTERED, Stage.FAILED, Stage.UNKNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedDeployment:
    """An Inference Endpoint that hubgate created, as it is stored. Without a secret."""

    id: str
    """Of its plan. `tag` is on the Inference Endpoint."""
    namespace: str
    name: str
    connection: str
    """The token that manages and calls it."""
    repository: str
    hardware: str
    """The id of its hardware."""
    price: Price
    """When it was planned."""
    started_at: float
    """When its creation was requested, or it was last resumed, in seconds since the epoch."""
    task: Task
    engine: Engine
    register_as: str
    """The name to register it under."""
    stage: Stage = Stage.PLANNED
    message: str = ""
    """What went wrong, or what to know."""
    delete_on_failure: bool = False
    url: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return tag_of(self.id)


def tag_of(plan_id: str) -> str:
    """The tag by which a lost creation is found again."""
    return f"{TAG}-{plan_id}"


BILLED = frozenset(
    {
        DeploymentState.INITIALIZING,
        DeploymentState.RUNNING,
        DeploymentState.UPDATING,
        DeploymentState.UPDATE_FAILED,
    }
)
"""The states in which replicas cost money. Hugging Face bills initializing and running; an update keeps replicas running."""


def check_deployment_name(name: str) -> None:
    """Apply the rule for names of Inference Endpoints. Hugging Face does not publish its own; this is narrower.

    Raises:
        InvalidRequest: the name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"[{name[:200]}] cannot be the name of an Inference Endpoint.",
            remedy="Use 1 to 32 lower-case letters, digits and hyphens; start and end with a letter or digit.",
        )
