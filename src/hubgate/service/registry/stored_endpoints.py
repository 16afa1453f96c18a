"""Endpoints as they are stored, and put into service as they are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from hubgate.core.off_loop import shielded
from hubgate.domain.endpoint import Endpoint, Source, Target
from hubgate.domain.endpoint_fields import changes_model
from hubgate.domain.errors import EndpointNotFound, HubgateError, InvalidEndpoint, StoreFailed
from hubgate.domain.ports import Model
from hubgate.service.registry.connections import Connections
from hubgate.service.registry.live_endpoints import DisabledModel, LiveEndpoint, LiveEndpoints, SharedModel
from hubgate.service.registry.startup import StartupTasks
from hubgate.service.registry.validation import check_fallback
from hubgate.store.store import SqlStore

_Prepare: TypeAlias = Callable[[Iterable[Endpoint]], Awaitable[None]]
_Save: TypeAlias = Callable[[Target], Awaitable[int]]

_RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class StoredEndpoints:
    """Keeps the store and the live endpoints in agreement."""

    def __init__(
        self, store: SqlStore, live: LiveEndpoints, connections: Connections, startup: StartupTasks
    ) -> None:
        self._store = store
        self._live = live
        self._connections = connections
        self._startup = startup
        self._storing: set[asyncio.Task[None]] = set()
        live.on_changed = self._store_changed

    async def load(self) -> None:
        """Open every stored endpoint. One that cannot be opened is disabled until the next start."""
        stored = await self._store.endpoints()
        await self._connections.load()
        for own in stored:
            await self._serve(own.endpoint.name, own)

    async def follow(self, names: Iterable[str] | None = None, *, before: _Prepare | None = None) -> None:
        """Serve endpoints as they are stored now, which other gateways may have changed; by default, all.

        `before` is called with those that are new or changed. Raises `StoreFailed` if the database cannot be used.
        """
        async with self._connections.lock:  # no change made here is between the store and the live endpoints
            if names is None:
                stored = {own.endpoint.name: own for own in await self._store.endpoints()}
                found = {name: stored.get(name) for name in {*stored, *self._live.names()}}
            else:
                found = {name: await self._find(name) for name in names}
            if before is not None:
                await before(own.endpoint for own in found.values() if own and self._is_new(own))
            for name, own in found.items():
                await self._serve(name, own)

    async def add(self, target: Target, model: Model) -> None:
        """Store a new endpoint, then send calls to it.

        Raises:
            EndpointExists: another gateway has stored one of this name.
            InvalidEndpoint: its fallback or its connection is invalid.
        """
        await shielded(self._put(target, model, self._store.add_endpoint))

    async def save(self, target: Target, model: Model, *, validated: bool = True) -> None:
        """Store the new settings of an endpoint, then send calls to it under these.

        Raises:
            EndpointConflict: another gateway has stored other settings since the version of the target.
            InvalidEndpoint: its fallback or its connection is invalid.
        """
        await shielded(self._put(target, model, self._store.save_endpoint, validated=validated))

    async def close(self) -> None:
        """Wait a moment for findings that are being stored."""
        if self._storing:
            _, late = await asyncio.wait(self._storing, timeout=1)
            for task in late:
                task.cancel()

    async def remove(self, name: str) -> None:
        await shielded(self._remove(name))

    def reuse_model(self, old: LiveEndpoint, target: Target) -> Model:
        """The model for settings that do not change it. A local model stays loaded."""
        new = target.endpoint
        if not (new.source is Source.LOCAL and new.enabled and old.endpoint.enabled):
            return self._live.open_model(target)
        if not isinstance(old.model, SharedModel):
            old.model = SharedModel(old.model)
        return old.model.share()

    def _is_new(self, own: Target) -> bool:
        name = own.endpoint.name
        return name not in self._live or self._live.find(name).endpoint != own.endpoint

    async def _find(self, name: str) -> Target | None:
        try:
            return await self._store.endpoint(name)
        except EndpointNotFound:
            return None

    async def _serve(self, name: str, own: Target | None) -> None:
        """Send calls to an endpoint as it is stored; `None` if it was removed."""
        if own is None:
            self._retire(name)
            return
        old = self._live.find(name) if name in self._live else None
        try:
            target = await self._connections.resolve(own.endpoint, own.token)
            target = replace(target, version=own.version, changed=own.changed, limit=own.limit)
            if old and (target, target.changed) == (old.target, old.changed):  # as after a change made here
                old.target = target
                return
            live = self._live.open(target, self._open_model(old, target))
        except HubgateError as error:
            _log.error("endpoint %s is disabled: %s", name, error)
            disabled = replace(own, endpoint=replace(own.endpoint, enabled=False))  # only in memory
            live = self._live.open(disabled, DisabledModel(name))
        self._live.put(live)
        if live.changed and old and not old.changed:
            _log.error("endpoint %s takes no calls, as another gateway found: %s", name, live.changed)

    def _open_model(self, old: LiveEndpoint | None, target: Target) -> Model:
        if old is None:
            return self._live.open_model(target)
        same = target.token == old.target.token and not changes_model(old.endpoint, target.endpoint)
        self._startup.stop(old.endpoint.name, validated=not same, enabled=target.endpoint.enabled)
        return self.reuse_model(old, target) if same else self._live.open_model(target)

    def _store_changed(self, live: LiveEndpoint) -> None:
        task = asyncio.create_task(self._keep_storing(live.endpoint.name, live.endpoint, live.changed))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def _keep_storing(self, name: str, endpoint: Endpoint, changed: str | None) -> None:
        """Store a finding until it succeeds, as other gateways and the next start depend on it."""
        while True:
            try:
                await self._store_finding(name, endpoint, changed)
                break
            except StoreFailed as error:
                _log.warning("it is not stored yet that endpoint %s runs another model: %s", name, error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _store_finding(self, name: str, endpoint: Endpoint, changed: str | None) -> None:
        async with self._connections.lock:
            version = await self._store.mark_changed(endpoint, changed)
            if version is not None and name in self._live:
                live = self._live.find(name)
                live.target = replace(live.target, version=version, changed=changed)

    async def _put(self, target: Target, model: Model, save: _Save, *, validated: bool = True) -> None:
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
                target = self._live.with_limit(target)
                live = self._live.open(target, model)
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
        async with self._connections.lock:
            await self._store.remove_endpoint(name)
            self._retire(name)

    def _retire(self, name: str) -> None:
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
