"""The interfaces that creating and running Inference Endpoints needs from the layers below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hubgate.domain.deployments import (
    DeploymentChanges,
    Hardware,
    ManagedDeployment,
    Recipe,
    WantedDeployment,
)
from hubgate.domain.hub import Deployment
from hubgate.domain.secret import Secret


class InferenceEndpoints(Protocol):
    """Hugging Face's API that manages Inference Endpoints. Every method raises `UpstreamError` if a request fails.

    Only `create` cannot be repeated safely: it is sent once, and never again.
    """

    async def hardware(self, namespace: str, token: Secret) -> Sequence[Hardware]:
        """What a namespace may run on, with prices and quota, cheapest first. Not cached."""
        ...

    async def list(self, namespace: str, token: Secret) -> Sequence[Deployment]:
        """Sorted by name. Not cached."""
        ...

    async def show(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Raises: NotFound."""
        ...

    def body(self, wanted: WantedDeployment) -> Mapping[str, Any]:
        """The body that `create` would send, with its secrets masked."""
        ...

    async def create(self, wanted: WantedDeployment, token: Secret) -> tuple[Deployment, Sequence[str]]:
        """Create an Inference Endpoint; returns it, and the fields that Hugging Face ignored.

        Raises:
            OutcomeUnknown: the request may have been carried out, but there was no usable reply.
        """
        ...

    def changes(self, changes: DeploymentChanges) -> Mapping[str, Any]:
        """The body that `edit` would send, with its secrets masked."""
        ...

    async def edit(
        self, namespace: str, name: str, changes: DeploymentChanges, token: Secret
    ) -> tuple[Deployment, Sequence[str]]:
        """Change an Inference Endpoint; returns as `create` does."""
        ...

    async def pause(self, namespace: str, name: str, token: Secret) -> Deployment: ...

    async def resume(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Resume it. One that is running is left as it is."""
        ...

    async def scale_to_zero(self, namespace: str, name: str, token: Secret) -> Deployment: ...

    async def delete(self, namespace: str, name: str, token: Secret) -> None:
        """Delete it for good. One that does not exist is not an error."""
        ...

    async def recipes(self, repository: str, token: Secret | None) -> Sequence[Recipe]:
        """The ways to run a model that Hugging Face has tested. Cached for minutes."""
        ...


class DeploymentStore(Protocol):
    """Stored deployments. All methods raise `StoreFailed`."""

    async def all(self) -> Sequence[ManagedDeployment]:
        """All deployments, oldest first."""
        ...

    async def add(self, deployment: ManagedDeployment) -> None:
        """Raises: InUse: its plan was carried out already."""
        ...

    async def save(self, deployment: ManagedDeployment) -> bool:
        """Replace the stored deployment of this id; returns whether it was still there."""
        ...

    async def remove(self, deployment_id: str) -> None: ...

    def leading(self) -> AbstractAsyncContextManager[None]:
        """Keeps other gateways of the database from following deployments. Raises: InUse: one is doing it."""
        ...


class Leases(Protocol):
    """Which gateway process may do what only one does at a time, by the clock of the database."""

    def now(self) -> float:
        """Seconds since the epoch by the clock of the database, as far as it is known."""
        ...

    async def acquire(self, name: str, seconds: float) -> int | None:
        """Take a lease, or renew it; returns its fence, which grows with each new owner.

        Args:
            name: of the lease; always with about the same seconds.
            seconds: until it lapses, if it is neither renewed nor released.

        Returns:
            `None` if another process has it.

        Raises:
            StoreFailed: the database cannot be used.
        """
        ...

    async def release(self, name: str) -> None:
        """Give a lease back, if it is still held. Raises: StoreFailed: the database cannot be used."""
        ...
