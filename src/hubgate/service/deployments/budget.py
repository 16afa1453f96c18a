"""The limit on what the Inference Endpoints of a namespace may cost an hour."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from hubgate.core.deployments.prices import cost_at_most, hardware_of
from hubgate.domain.deployment_ports import Leases
from hubgate.domain.errors import Cause, InUse, NotPermitted, StoreFailed
from hubgate.domain.secret import Secret
from hubgate.upstreams.hub.deployments import Deployments

_LEASE_SECONDS = 60.0
"""Longer than the requests take for which it is held. A process that dies meanwhile keeps others waiting for so long."""
_PATIENCE_SECONDS = 75.0
_PAUSE_SECONDS = 0.2


class Budget:
    """Refuses what could cost more than the limit.

    Args:
        api: of Inference Endpoints.
        limit: US dollars an hour for all Inference Endpoints of a namespace at their max replicas; `None`: none.
        leases: keep the gateways of a database from spending at the same time.
    """

    def __init__(self, api: Deployments, limit: float | None, leases: Leases) -> None:
        self._api = api
        self._limit = limit
        self._leases = leases
        self._spending = asyncio.Lock()

    @asynccontextmanager
    async def spending(
        self, namespace: str, name: str, token: Secret, after: float | None
    ) -> AsyncIterator[None]:
        """Check what an act would make an Inference Endpoint cost at most, and keep other acts out until it is done.

        Acts at other gateways, too: what one has sent, the next one sees in Hugging Face's list.

        Raises:
            NotPermitted: all of the namespace together could cost more than the limit, or a price is unknown.
            InUse: another gateway does not finish its own act.
            StoreFailed: the database cannot be used.
        """
        if self._limit is None:
            yield
            return
        async with self._spending, self._leased(namespace) as renew:
            await self._check(namespace, name, token, after, self._limit)
            await renew()
            yield

    @asynccontextmanager
    async def _leased(self, namespace: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Have the lease of a namespace. What is yielded renews it."""
        name, patience = f"spending {namespace}", _PATIENCE_SECONDS

        async def renew() -> None:
            if await self._leases.acquire(name, _LEASE_SECONDS) is None:
                raise InUse(
                    f"Another gateway is changing Inference Endpoints of [{namespace}].",
                    remedy="Nothing was changed. Try again in a minute.",
                )

        while patience > 0 and await self._leases.acquire(name, _LEASE_SECONDS) is None:
            await asyncio.sleep(_PAUSE_SECONDS)
            patience -= _PAUSE_SECONDS
        await renew()
        try:
            yield renew
        finally:
            with contextlib.suppress(StoreFailed):  # then it lapses
                await self._leases.release(name)

    async def _check(
        self, namespace: str, name: str, token: Secret, after: float | None, limit: float
    ) -> None:
        hardware = await self._api.hardware(namespace, token)
        costs = {
            one.name: cost_at_most(one, hardware_of(one, hardware))
            for one in await self._api.list(namespace, token)
        } | {name: after}
        unknown = sorted(other for other, cost in costs.items() if cost is None)
        if unknown:
            raise NotPermitted(
                f"What the Inference Endpoints of [{namespace}] may cost cannot be computed: Hugging Face lists no "
                f"price for {', '.join(unknown)}.",
                remedy="Pause or delete these, or unset HUBGATE_MAX_DOLLARS_PER_HOUR.",
                cause=Cause.OVER_BUDGET,
            )
        total = sum(cost or 0.0 for cost in costs.values())
        if total > limit + 1e-9:
            raise NotPermitted(
                f"The Inference Endpoints of [{namespace}] could cost ${total:g} an hour with [{name}], at their max "
                f"replicas. The limit is ${limit:g}.",
                remedy="Pause or shrink others, or raise HUBGATE_MAX_DOLLARS_PER_HOUR.",
                cause=Cause.OVER_BUDGET,
            )
