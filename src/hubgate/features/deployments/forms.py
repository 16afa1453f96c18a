"""The JSON of Inference Endpoints that hubgate creates and changes."""

from __future__ import annotations

import msgspec

from hubgate.domain.endpoint import Engine, Task
from hubgate.domain.secret import Secret
from hubgate.features.deployments.model import Access, Scaling
from hubgate.features.deployments.planner import DeploymentRequest


class DeploymentForm(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    """The repository, as org/name."""
    name: str | None = None
    """Of the Inference Endpoint; by default like the model's."""
    connection: str | None = None
    """The stored token to use; not needed if there is only one."""
    namespace: str | None = None
    """Whose it will be: by default the token's owner."""
    vendor: str | None = None
    region: str | None = None
    instance: str | None = None
    """TYPE/SIZE, such as `intel-spr/x2`; by default the cheapest that the model fits on."""
    engine: Engine | None = None
    image: str | None = None
    """The URL of a container image, instead of hubgate's choice."""
    port: int | None = None
    registry_username: str | None = None
    registry_password: str | None = None
    type: Access = Access.PRIVATE
    """Who may call it."""
    task: Task | None = None
    revision: str | None = None
    min_replicas: int = 0
    max_replicas: int = 1
    zero_after: int | None = 15
    """Minutes without a request until it scales to zero; null: never."""
    arguments: list[str] = []
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}
    """Environment variables that nobody can read again."""
    register_as: str | None = None
    """The name of the endpoint to register; by default `name`."""
    delete_on_failure: bool = False
    """Delete it if it cannot be registered within 30 minutes."""

    def request(self) -> DeploymentRequest:
        return DeploymentRequest(
            repository=self.model,
            name=self.name,
            connection=self.connection,
            namespace=self.namespace,
            vendor=self.vendor,
            region=self.region,
            instance=self.instance,
            engine=self.engine,
            image=self.image,
            port=self.port,
            registry_username=self.registry_username,
            registry_password=None if self.registry_password is None else Secret(self.registry_password),
            access=self.type,
            task=self.task,
            revision=self.revision,
            scaling=Scaling(
                min_replicas=self.min_replicas, max_replicas=self.max_replicas, zero_after=self.zero_after
            ),
            arguments=tuple(self.arguments),
            environment=self.environment,
            secrets={name: Secret(text) for name, text in self.secrets.items()},
            register_as=self.register_as,
            delete_on_failure=self.delete_on_failure,
        )


class ConfirmedDeploymentForm(DeploymentForm, forbid_unknown_fields=True):
    confirm: str = ""
    """That of the plan."""


class DeploymentEditForm(msgspec.Struct, forbid_unknown_fields=True):
    instance: str | None = None
    """TYPE/SIZE, in the same region."""
    min_replicas: int | None = None
    max_replicas: int | None = None
    zero_after: int | None = None
    """Minutes."""
    revision: str | None = None
    arguments: list[str] | None = None
    environment: dict[str, str] | None = None
