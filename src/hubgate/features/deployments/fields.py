"""The settings of an Inference Endpoint to create or to change, one row each.

The JSON of `/api`, the options of `hubgate deploy plan`, `create` and `edit`, and the console's form all come from these
two tables. What is sent to Hugging Face, with hardware and image resolved, are `WantedDeployment` and `DeploymentChanges`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hubgate.domain.endpoint import Engine, Task
from hubgate.domain.errors import InvalidRequest

MAX_REPLICAS = 100
MAX_ZERO_AFTER = 10_080
"""Minutes: a week."""


class Access(StrEnum):
    """Who may call an Inference Endpoint."""

    PRIVATE = "private"
    """Tokens of its own namespace."""
    AUTHENTICATED = "authenticated"
    """Every token of Hugging Face."""
    PUBLIC = "public"
    """Everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas run."""

    min_replicas: int = 0
    """0 allows scale to zero."""
    max_replicas: int = 1
    zero_after: int | None = 15
    """Minutes without a request until it scales to zero; `None`: never."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or not 1 <= self.max_replicas <= MAX_REPLICAS:
            raise InvalidRequest(
                f"[min] must be at least 0, and [max] from 1 to {MAX_REPLICAS} and not below [min]; "
                f"they are {self.min_replicas} and {self.max_replicas}."
            )
        if self.zero_after is not None and not 1 <= self.zero_after <= MAX_ZERO_AFTER:
            raise InvalidRequest(f"[zero_after] must be from 1 to {MAX_ZERO_AFTER} minutes.")
        if self.min_replicas == 0 and self.zero_after is None:
            raise InvalidRequest(
                "[min] 0 requires [zero_after]: the minutes without a request until it scales to zero."
            )


@dataclass(frozen=True, slots=True)
class Setting:
    """How the command line and the console hold a field."""

    help: str | None = None
    """Of the option; `None` if commands declare it themselves, or there is none."""
    _: KW_ONLY
    option: str = ""
    """The parameter of the command, if it has another name."""
    metavar: str | None = None
    least: int | None = None
    most: int | None = None
    in_console: bool = False
    """Whether the console's form has it."""


_CONSOLE = Setting(in_console=True)
_Revision = Annotated[str | None, Setting("The model's revision.", in_console=True)]
_ARGUMENTS = Setting("An argument of the container; can be repeated.", option="arg")
_ENVIRONMENT = Setting("An environment variable of the container, NAME=VALUE; can be repeated.", option="env")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentForm:
    """What an operator asks for. What is not given is chosen."""

    model: Annotated[str, _CONSOLE]
    """The repository, as org/name."""
    name: Annotated[str | None, _CONSOLE] = None
    """Of the Inference Endpoint; by default like the model's."""
    connection: Annotated[str | None, _CONSOLE] = None
    namespace: Annotated[str | None, _CONSOLE] = None
    vendor: Annotated[str | None, Setting("The cloud, such as aws.")] = None
    region: Annotated[str | None, Setting("The region, such as us-east-1.")] = None
    instance: Annotated[
        str | None,
        Setting(
            "The hardware, such as intel-spr/x2; by default the cheapest that fits.", metavar="TYPE/SIZE"
        ),
    ] = None
    engine: Annotated[
        Engine | None,
        Setting("The engine: tei, vllm, sglang, llamacpp or toolkit.", in_console=True),
    ] = None
    image: Annotated[str | None, Setting("The URL of a container image, instead of hubgate's choice.")] = None
    port: Annotated[int | None, Setting("The port that the image listens on.", least=1, most=65_535)] = None
    registry_username: Annotated[str | None, Setting("User name for the image's private registry.")] = None
    registry_password: Annotated[
        str | None,
        Setting("Environment variable that holds the registry's password.", option="registry_password_env"),
    ] = field(default=None, repr=False)
    type: Annotated[
        Access, Setting("Who may call it: private, authenticated or public.", in_console=True)
    ] = Access.PRIVATE
    task: Annotated[Task | None, Setting("The task to register it for.", in_console=True)] = None
    revision: _Revision = None
    min_replicas: Annotated[
        int, Setting("Minimum number of replicas (0).", option="min", least=0, in_console=True)
    ] = 0
    max_replicas: Annotated[
        int, Setting("Maximum number of replicas (1).", option="max", least=1, in_console=True)
    ] = 1
    zero_after: Annotated[
        int | None,
        Setting(
            "Minutes without a request until it scales to zero (15); 0: never.", least=0, in_console=True
        ),
    ] = 15
    arguments: Annotated[tuple[str, ...], _ARGUMENTS] = ()
    environment: Annotated[dict[str, str], _ENVIRONMENT] = field(default_factory=dict)
    secrets: Annotated[
        dict[str, str],
        Setting(
            "An environment variable to pass to the container as a secret; can be repeated.",
            option="secret_env",
        ),
    ] = field(default_factory=dict, repr=False)
    """Environment variables that nobody can read again."""
    register_as: Annotated[
        str | None,
        Setting("The endpoint's name in hubgate; by default the same.", option="register", in_console=True),
    ] = None
    delete_on_failure: Annotated[bool, _CONSOLE] = False
    """Delete it if it cannot be registered within 30 minutes."""

    def __post_init__(self) -> None:
        _ = self.scaling  # refuses replicas that cannot be

    @property
    def scaling(self) -> Scaling:
        return Scaling(
            min_replicas=self.min_replicas, max_replicas=self.max_replicas, zero_after=self.zero_after
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedDeploymentForm(DeploymentForm):
    confirm: str = ""
    """That of the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentEditForm:
    """What an operator changes; `None` keeps what is there."""

    instance: Annotated[str | None, Setting("Other hardware in the same region.", metavar="TYPE/SIZE")] = None
    min_replicas: Annotated[int | None, Setting("Minimum number of replicas.", option="min", least=0)] = None
    max_replicas: Annotated[int | None, Setting("Maximum number of replicas.", option="max", least=1)] = None
    zero_after: Annotated[
        int | None, Setting("Minutes without a request until it scales to zero.", least=1)
    ] = None
    revision: _Revision = None
    arguments: Annotated[tuple[str, ...] | None, _ARGUMENTS] = None
    environment: Annotated[dict[str, str] | None, _ENVIRONMENT] = None


@dataclass(frozen=True, slots=True)
class Field:
    """A row of one of the tables."""

    name: str
    base_type: Any
    """`int`, `str`, an enumeration, …: of a value that is not `None`."""
    default: Any
    setting: Setting

    @property
    def option(self) -> str:
        return self.setting.option or self.name

    @property
    def is_repeated(self) -> bool:
        return get_origin(self.base_type) in {tuple, dict}


def _fields(table: type) -> Sequence[Field]:
    hints = get_type_hints(table, include_extras=True)
    found = []
    for one in fields(table):
        kind, setting = get_args(hints[one.name])
        base = get_args(kind)[0] if isinstance(kind, UnionType) else kind
        found.append(Field(one.name, base, one.default, setting))
    return found


CREATED = _fields(DeploymentForm)
EDITED = _fields(DeploymentEditForm)
"""In the order in which JSON and the command line hold them."""
