"""Endpoints as they are stored, and put into service as they are stored."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from hubgate.domain.endpoint import Endpoint, Source, Target
from hubgate.domain.endpoint_fields import IDENTITY
from hubgate.domain.errors import EndpointNotFound, HubgateError, InvalidEndpoint
from hubgate.domain.ports import Model, Store
from hubgate.service.registry.connections import Connections
from hubgate.service.registry.live_endpoints import DisabledModel, LiveEndpoint, LiveEndpoints, SharedModel
from hubgate.service.registry.startup import StartupTasks
from hubgate.service.registry.validation import check_fallback
from hubgate.service.shielded import shielded

_Save: TypeAlias = Callable[[Target], Awaitable[int]]

_log = logging.getLogger(__name__)


class StoredEndpoints:
    """Keeps the store and the live endpoints in agreement."""

    def __init__(
        self, store: Store, live: LiveEndpoints, connections: Connections, startup: StartupTasks
    ) -> None:
        self._store = store
        self._live = live
        self._connections = connections
        self._startup = startup

    async def load(self) -> None:
        """Open every stored endpoint. One that cannot be opened is disabled until the next start."""
        stored = await self._store.endpoints()
        await self._connections.load([target.endpoint for target in stored])
        for own in stored:
            endpoint = own.endpoint
            try:
                target = await self._resolve(own)
                live = self._live.open(target, self._live.open_model(target))
            except HubgateError as error:
                _log.error("endpoint %s is disabled: %s", endpoint.name, error)
                disabled = replace(own, endpoint=replace(endpoint, enabled=False))  # only in memory
                live = self._live.open(disabled, DisabledModel(endpoint.name))
            self._live.put(live)

    async def add(self, target: Target, model: Model, changed: str | None = None) -> None:
        """Store a new endpoint, then send calls to it.

        Raises:
            EndpointExists: another gateway has stored one of this name.
            InvalidEndpoint: its fallback or its connection is invalid.
        """
        await shielded(self._put(target, model, self._store.add_endpoint, changed))

    async def save(
        self, target: Target, model: Model, changed: str | None = None, *, validated: bool = True
    ) -> None:
        """Store the new settings of an endpoint, then send calls to it under these.

        Raises:
            EndpointConflict: another gateway has stored other settings since the version of the target.
            InvalidEndpoint: its fallback or its connection is invalid.
        """
        await shielded(self._put(target, model, self._store.save_endpoint, changed, validated=validated))

    async def remove(self, name: str) -> None:
        await shielded(self._remove(name))

    async def reload(self, name: str) -> None:
        """Serve an endpoint as another gateway stored it.

        Raises:
            EndpointNotFound: it was removed there.
            HubgateError: it cannot be opened here.
        """
        old = self._live.find(name)
        try:
            stored = await self._store.endpoint(name)
        except EndpointNotFound:
            self._startup.stop(name)
            self._live.retire(name)
            raise
        target = await self._resolve(stored)
        same = target.token == old.target.token and not changes_model(old.endpoint, target.endpoint)
        model = self.reuse_model(old, target) if same else self._live.open_model(target)
        self._startup.stop(name, validated=not same, enabled=target.endpoint.enabled)
        self._live.put(self._live.open(target, model, old.changed if same else None))

    def reuse_model(self, old: LiveEndpoint, target: Target) -> Model:
        """The model for settings that do not change it. A local model stays loaded."""
        new = target.endpoint
        if not (new.source is Source.LOCAL and new.enabled and old.endpoint.enabled):
            return self._live.open_model(target)
        if not isinstance(old.model, SharedModel):
            old.model = SharedModel(old.model)
        return old.model.share()

    async def _resolve(self, own: Target) -> Target:
        target = await self._connections.resolve(own.endpoint, own.token)
        return replace(target, version=own.version)

    async def _put(
        self,
        target: Target,
        model: Model,
        save: _Save,
        changed: str | None,
        *,
        validated: bool = True,
    ) -> None:
        """Store an endpoint, then send calls to it.

        Its connection may have been removed or given another token during the validation, but cannot while the lock
        is held.
        """
        endpoint = target.endpoint
        try:
            async with self._connections.lock:
                self._check_fallback(endpoint)
                if endpoint.connection:
                    await self._connections.resolve(endpoint, None)
                live = self._live.open(target, model, changed)
                version = await save(replace(target, token=None) if endpoint.connection else target)
        except BaseException:
            await model.close()
            raise
        if endpoint.name in self._live:
            self._startup.stop(endpoint.name, validated=validated, enabled=endpoint.enabled)
        live.target = replace(target, version=version)
        self._live.put(live)
        self._connections.refresh(live)

    async def _remove(self, name: str) -> None:
        await self._store.remove_endpoint(name)
        self._startup.stop(name)
        self._live.retire(name)

    def _check_fallback(self, endpoint: Endpoint) -> None:
        if endpoint.fallback is None:
            return
        try:
            fallback = self._live.find(endpoint.fallback).endpoint
        except EndpointNotFound as error:
            raise InvalidEndpoint(
                f"The fallback [{endpoint.fallback}] of endpoint [{endpoint.name}] does not exist.",
                remedy="Register it first, or omit [fallback].",
            ) from error
        if endpoint.enabled and fallback.enabled:  # a disabled endpoint may have no facts yet
            check_fallback(endpoint, fallback)


def changes_model(old: Endpoint, new: Endpoint) -> bool:
    """Whether a setting differs that may change the model or how it is reached."""
    return any(getattr(old, name) != getattr(new, name) for name in IDENTITY)
