"""The interfaces that creating and running Inference Endpoints needs from the layers below."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hubgate.domain.deployments import ManagedDeployment


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
