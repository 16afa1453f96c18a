"""The limit on what the Inference Endpoints of a namespace may cost an hour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubgate.core.deployments.prices import cost_at_most, hardware_of
from hubgate.domain.deployment_ports import InferenceEndpoints
from hubgate.domain.errors import Cause, NotPermitted
from hubgate.domain.secret import Secret


class Budget:
    """Refuses what could cost more than the limit.

    Args:
        api: of Inference Endpoints.
        limit: US dollars an hour for all Inference Endpoints of a namespace at their max replicas; `None`: none.
    """

    def __init__(self, api: InferenceEndpoints, limit: float | None) -> None:
        self._api = api
        self._limit = limit
        self._spending = asyncio.Lock()

    @asynccontextmanager
    async def spending(
        self, namespace: str, name: str, token: Secret, after: float | None
    ) -> AsyncIterator[None]:
        """Check what an act would make an Inference Endpoint cost at most, and keep other acts out until it is done.

        Raises:
            NotPermitted: all of the namespace together could cost more than the limit, or a price is unknown.
        """
        async with self._spending:
            if self._limit is not None:
                await self._check(namespace, name, token, after, self._limit)
            yield

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
