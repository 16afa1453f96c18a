"""The gateway: the objects that every face, the console and the command line work with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from hubgate.core.traffic.permits import sending_under
from hubgate.domain.endpoint import Endpoint, Source
from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Counters, Sources
from hubgate.service.cluster.gates import Gates
from hubgate.service.inference.inference import Inference
from hubgate.service.inference.measures import Measures
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.ports import Ports
from hubgate.service.registry.connections import Connections
from hubgate.service.registry.live_endpoints import LiveEndpoint, LiveEndpoints, needs_startup_check
from hubgate.service.registry.probe import probe_model
from hubgate.service.registry.registry import Registry
from hubgate.service.registry.startup import StartupTasks
from hubgate.service.registry.stored_endpoints import StoredEndpoints
from hubgate.service.registry.token_guard import TokenGuard
from hubgate.service.states import States
from hubgate.store.store import SqlStore

_READY_NOTE = "ready endpoint"
_CHECK_SECONDS = 300.0
"""For a background check: each of its few requests may wait a minute for the rate limit."""
_LOOK_SECONDS = 600.0
"""For which a check counts for all gateways of a database. What it found is stored."""

_log = logging.getLogger(__name__)


class Gateway:
    """Registered endpoints, the calls to them, and what is counted. One per process, used on one event loop."""

    def __init__(
        self,
        store: SqlStore,
        sources: Sources,
        pipelines: Pipelines,
        counters: Counters | None = None,
        gates: Gates | None = None,
    ) -> None:
        self.gates = gates
        """The gateways of the database, if several can share it."""
        self._store = store
        self._sources = sources
        self.startup = StartupTasks()
        self.live = LiveEndpoints(sources, pipelines, self.startup)
        self.live.on_suspect = self._recheck
        token_guard = TokenGuard(sources, store.audit)
        self.connections = Connections(store.connections, self.live, token_guard)
        self.stored = StoredEndpoints(store, self.live, self.connections, self.startup)
        self.registry = Registry(
            sources,
            counters=counters,
            live=self.live,
            stored=self.stored,
            connections=self.connections,
            token_guard=token_guard,
            startup=self.startup,
        )
        self.inference = Inference(self.live)
        self.ports = Ports()
        self.measures = Measures(self.live, self.inference, self.ports)
        self.pipelines = self.live.pipelines
        self.states = States(self)
        self.audit = store.audit
        self.record_cleared_cache = store.record_cleared_cache
        self.applying_configuration = store.applying_configuration
        self.draining = False
        """Whether it is about to stop: it still answers, but load balancers should send calls elsewhere."""

    def visible(self, may_call: Callable[[str], bool]) -> Sequence[Endpoint]:
        """The endpoints that a caller may use, then the aliases, each as its endpoint under the alias's name.

        Args:
            may_call: whether an endpoint or an alias may be called; an alias also may if its endpoint does.
        """
        endpoints = [endpoint for endpoint in self.registry.endpoints() if may_call(endpoint.name)]
        aliases = [
            replace(self.live.find(endpoint).endpoint, name=name)
            for name, endpoint in sorted(self.live.aliases.items())
            if endpoint in self.live and (may_call(name) or may_call(endpoint))
        ]
        return [*endpoints, *aliases]

    async def start(self, ready_endpoint: Endpoint | None = None, *, load_models: bool = True) -> None:
        """Start loading local models and checking dedicated endpoints, in the background.

        Args:
            ready_endpoint: registered at the very first start, unless there are endpoints already.
            load_models: whether to load local models now instead of at their first call.
        """
        endpoints = self.registry.endpoints()
        for endpoint in endpoints:
            if not endpoint.enabled:
                continue
            name = endpoint.name
            if endpoint.source is Source.LOCAL and load_models:
                self.startup.load(name, partial(self._load_model, name))
            elif needs_startup_check(endpoint):
                is_running = partial(self._sources.runs, self.live.find(name).target)
                self.startup.check(name, partial(self._check_at_start, name), is_running)
        if ready_endpoint and await self._store.note(_READY_NOTE) is None:
            if endpoints:
                await self._store.set_note(_READY_NOTE, "not needed")
            else:
                self.startup.load(ready_endpoint.name, partial(self._register_ready, ready_endpoint))

    async def close(self) -> None:
        """Free every upstream. Calls in flight end with an error."""
        await self.startup.close()
        await self.stored.close()
        await self.live.close()
        await self._sources.close()

    async def rotate_secret(self) -> int:
        """Re-encrypt every stored token with a new secret key; returns how many.

        Raises:
            InUse: another gateway of the database does not have the new key.
            StoreFailed: the key cannot be changed here; the error describes how.
        """
        if self.gates is not None:
            await self.gates.check_rotation()
        return await self._store.rotate_secret()

    def _recheck(self, live: LiveEndpoint) -> None:
        """Check in the background whether an endpoint runs another model. A balancer tests its replicas itself."""
        health = live.pipeline.health
        if health is None or health.balancer is None:
            self.startup.recheck(live.endpoint.name, partial(self._check_within_limit, live.endpoint.name))

    async def _check_at_start(self, name: str) -> None:
        """Check an endpoint, unless another gateway just did."""
        if await self._store.may_look(name, _LOOK_SECONDS):
            await self._check_within_limit(name)

    async def _check_within_limit(self, name: str) -> None:
        """Check an endpoint under its server's rate limit, like any other caller."""
        if (health := self.live.find(name).pipeline.health) is None:
            await self.registry.check(name, within=_CHECK_SECONDS)
            return
        permit = await health.limiter.acquire()
        try:
            with sending_under(permit):
                await self.registry.check(name, within=_CHECK_SECONDS)
        finally:
            health.limiter.release(permit)

    async def _load_model(self, name: str) -> None:
        live = self.live.find(name)
        await probe_model(live.endpoint, live.model)

    async def _register_ready(self, draft: Endpoint) -> None:
        try:
            await self.registry.register(draft, None)
            await self._store.set_note(_READY_NOTE, draft.name)
        except HubgateError as error:
            _log.error("endpoint %s could not be registered: %s", draft.name, error)
