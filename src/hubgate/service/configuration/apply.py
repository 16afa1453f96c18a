"""Applying a whole configuration, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.configuration.plan import DesiredConnection, DesiredEndpoint, DesiredState, Planner, Step
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access


class ConfigApplier:
    """Applies one configuration at a time."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._planner = Planner(gateway, access)
        self._applying = asyncio.Lock()

    async def apply(
        self, desired: DesiredState, *, prune: bool = False, dry_run: bool = False, own_key: str = ""
    ) -> Sequence[Step]:
        """Make the changes that lead to the desired state. Idempotent.

        Args:
            desired: the desired state.
            prune: whether to remove what it does not contain, in the parts that it has.
            dry_run: whether to only return the plan.
            own_key: the id of the caller's key, which is not revoked.

        Returns:
            The steps, each with its failure if it failed. A failed step does not stop the others.

        Raises:
            InvalidRequest: it is inconsistent; lists every error. Nothing was changed.
        """
        async with self._applying:
            steps = self._planner.plan(desired, prune=prune, own_key=own_key)
            if not dry_run:
                for step in steps:
                    try:
                        await self._do(step, desired)
                    except HubgateError as error:
                        step.failure = error
                await self._set_fallbacks(desired, steps)
            return steps

    async def _do(self, step: Step, desired: DesiredState) -> None:
        match step.kind:
            case "connection":
                await self._do_connection(step, (desired.connections or {}).get(step.name))
            case "endpoint":
                await self._do_endpoint(step, (desired.endpoints or {}).get(step.name))
            case "key":
                await self._do_key(step, (desired.keys or {}).get(step.name))

    async def _do_connection(self, step: Step, new: DesiredConnection | None) -> None:
        if new is None:
            await self._gateway.connections.remove(step.name)
        elif step.action == "add" and new.token is not None:
            await self._gateway.connections.add(step.name, new.token, new.hosts or DEFAULT_HOSTS)
        else:
            await self._gateway.connections.replace(step.name, new.token, new.hosts)

    async def _do_endpoint(self, step: Step, new: DesiredEndpoint | None) -> None:
        if new is None:
            await self._gateway.registry.remove(step.name)
            return
        draft = new.endpoint
        if step.action == "change":
            await self._gateway.registry.edit(draft, new.token, keep_token=new.keep_token)
        elif draft.enabled:
            await self._gateway.registry.register(self._without_missing_fallback(draft), new.token)
        else:
            await self._gateway.registry.register_disabled(self._without_missing_fallback(draft), new.token)

    async def _do_key(self, step: Step, rights: Mapping[str, Any] | None) -> None:
        if rights is None:
            await self._access.revoke(step.name)
        elif step.action == "add":
            _, step.key = await self._access.create(step.name, **rights)
        else:
            await self._access.change(step.name, **rights)

    def _without_missing_fallback(self, draft: Endpoint) -> Endpoint:
        """A fallback may be registered later, so it is set when all endpoints exist."""
        if draft.fallback is None:
            return draft
        existing = {endpoint.name for endpoint in self._gateway.registry.endpoints()}
        return draft if draft.fallback in existing else replace(draft, fallback=None)

    async def _set_fallbacks(self, desired: DesiredState, steps: Iterable[Step]) -> None:
        for step in steps:
            if (step.action, step.kind, step.failure) == ("add", "endpoint", None):
                fallback = (desired.endpoints or {})[step.name].endpoint.fallback
                try:
                    added = self._gateway.registry.find(step.name)
                    if added.fallback != fallback:
                        await self._gateway.registry.edit(replace(added, fallback=fallback))
                except HubgateError as error:
                    step.failure = error
