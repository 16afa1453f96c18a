"""The whole configuration as one wish: brought about step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.configuration.plan import Planning, Step, Wanted, WantedConnection, WantedEndpoint
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access


class Config:
    """Plans are carried out one after the other."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._planning = Planning(gateway, access)
        self._applying = asyncio.Lock()

    async def apply(
        self, wanted: Wanted, *, prune: bool = False, dry_run: bool = False, spared_key: str = ""
    ) -> Sequence[Step]:
        """Bring about what is wanted. A second time it does nothing.

        Args:
            wanted: what is wanted.
            prune: whether what is not wanted is removed, in the parts that are given.
            dry_run: whether the plan is only told.
            spared_key: the id of the key that asks, which is not revoked.

        Returns:
            What was changed, or would be. An endpoint that fails its test is told with the failure; the others go on.

        Raises:
            InvalidRequest: it does not fit together; says all that is wrong. Nothing was changed.
        """
        async with self._applying:
            steps = self._planning.plan(wanted, prune=prune, spared_key=spared_key)
            if not dry_run:
                for step in steps:
                    try:
                        await self._do(step, wanted)
                    except HubgateError as error:
                        step.failure = error
                await self._set_fallbacks(wanted, steps)
            return steps

    async def _do(self, step: Step, wanted: Wanted) -> None:
        match step.kind:
            case "connection":
                await self._do_connection(step, (wanted.connections or {}).get(step.name))
            case "endpoint":
                await self._do_endpoint(step, (wanted.endpoints or {}).get(step.name))
            case "key":
                await self._do_key(step, (wanted.keys or {}).get(step.name))

    async def _do_connection(self, step: Step, wish: WantedConnection | None) -> None:
        if wish is None:
            await self._gateway.connections.remove(step.name)
        elif step.action == "add" and wish.token is not None:
            await self._gateway.connections.add(step.name, wish.token, wish.hosts or DEFAULT_HOSTS)
        else:
            await self._gateway.connections.replace(step.name, wish.token, wish.hosts)

    async def _do_endpoint(self, step: Step, wish: WantedEndpoint | None) -> None:
        if wish is None:
            await self._gateway.registry.remove(step.name)
            return
        draft = wish.endpoint
        if step.action == "change":
            await self._gateway.registry.edit(draft, wish.token, keep_token=wish.keep_token)
        elif draft.enabled:
            await self._gateway.registry.register(self._without_missing_fallback(draft), wish.token)
        else:
            await self._gateway.registry.register_disabled(self._without_missing_fallback(draft), wish.token)

    async def _do_key(self, step: Step, rights: Mapping[str, Any] | None) -> None:
        if rights is None:
            await self._access.revoke(step.name)
        elif step.action == "add":
            _, step.key = await self._access.create(step.name, **rights)
        else:
            await self._access.change(step.name, **rights)

    def _without_missing_fallback(self, draft: Endpoint) -> Endpoint:
        """Its fallback may be registered only after it: it is named when all are there."""
        if draft.fallback is None:
            return draft
        there = {endpoint.name for endpoint in self._gateway.registry.endpoints()}
        return draft if draft.fallback in there else replace(draft, fallback=None)

    async def _set_fallbacks(self, wanted: Wanted, steps: Iterable[Step]) -> None:
        for step in steps:
            if (step.action, step.kind, step.failure) == ("add", "endpoint", None):
                fallback = (wanted.endpoints or {})[step.name].endpoint.fallback
                try:
                    added = self._gateway.registry.find(step.name)
                    if added.fallback != fallback:
                        await self._gateway.registry.edit(replace(added, fallback=fallback))
                except HubgateError as error:
                    step.failure = error
