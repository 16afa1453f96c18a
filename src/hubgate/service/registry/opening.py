"""An endpoint is opened: proved if need be, stored, and let into service. What stands behind the verbs that change one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeAlias, cast
from weakref import WeakValueDictionary

from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Source, Target
from hubgate.domain.errors import EndpointNotFound, InvalidEndpoint
from hubgate.domain.ports import Counters, Model, Sources, Store, Upstream
from hubgate.domain.records import Connection
from hubgate.domain.secret import Secret
from hubgate.service.calls import Asking, check_fallback
from hubgate.service.inference.pipeline import Pipeline, Pipelines
from hubgate.service.registry.live_endpoints import Live, LiveEndpoints
from hubgate.service.registry.model_proxies import Noticed, SwitchedOff
from hubgate.service.registry.probe import open_model
from hubgate.service.registry.startup import Starting
from hubgate.service.registry.token_guard import TokenGuard
from hubgate.service.registry.validation import prove
from hubgate.service.usage import Usage

_Store: TypeAlias = Callable[[Target], Awaitable[None]]

UNSENDABLE = "This is not a token: it is empty, or has spaces or characters that no HTTP header can carry."
COPY_IT = (
    "Copy it from the settings of your Hugging Face account, or from your server. Write several one per line."
)


class Opening(Asking):
    """What is stored and what is served are of one mind."""

    def __init__(
        self,
        store: Store,
        sources: Sources,
        pipelines: Pipelines,
        counters: Counters | None = None,
    ) -> None:
        super().__init__(LiveEndpoints())
        self._store = store
        self._sources = sources
        self._pipelines = pipelines
        self._counters = counters
        self._connections: dict[str, Connection] = {}
        self._connecting = asyncio.Lock()
        """Held while a connection changes, or an endpoint that may name one is stored."""
        self.usage = Usage(store.usage, self.pipelines)
        self.audit = store.audit
        self._token_guard = TokenGuard(sources, store.audit)
        self._starting = Starting()
        self._changes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def pipelines(self) -> Mapping[str, Pipeline]:
        """The pipeline of each endpoint, by name."""
        return {live.endpoint.name: live.pipeline for live in self._live}

    async def _prove(
        self, draft: Target, within: float | None, *, any_dimensions: bool = False
    ) -> tuple[Target, Model]:
        proven, model = await prove(
            self._sources, draft, within, any_dimensions=any_dimensions, counters=self._counters
        )
        if proven.endpoint.enabled:
            return proven, model
        await model.close()
        return proven, SwitchedOff(proven.endpoint.name)

    async def _resolve(self, endpoint: Endpoint, token: Secret | None) -> Target:
        """The endpoint with its own token, or its connection's.

        Raises:
            InvalidEndpoint: the token cannot be sent, or there is no such connection, or its token may not be sent to
                this endpoint.
        """
        if token is not None and not token.is_sendable:
            raise InvalidEndpoint(UNSENDABLE, remedy=COPY_IT)
        if endpoint.connection is None:
            return Target(endpoint, token)
        if token is not None:
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] is given a token and a connection.",
                remedy="Leave one of them out.",
            )
        if endpoint.connection not in self._connections:
            raise InvalidEndpoint(
                f"No connection is named [{endpoint.connection[:200]}].",
                remedy="GET /api/connections lists them.",
            )
        connection = self._connections[endpoint.connection]
        await self._token_guard.check_connection(connection, endpoint)
        return Target(endpoint, connection.token)

    async def _own_token(self, old: Live, changed: Endpoint) -> Secret | None:
        """The token of its own that an endpoint has, if it may be sent where its changed settings lead.

        Raises:
            InvalidEndpoint: it may not.
        """
        if old.endpoint.connection or old.target.token is None:
            return None
        await self._token_guard.check_own(old.endpoint, changed)
        return old.target.token

    def _model(self, target: Target) -> Model:
        endpoint = target.endpoint
        if not endpoint.enabled:
            return SwitchedOff(endpoint.name)
        model = open_model(self._sources, target)
        if endpoint.source is Source.LOCAL:
            notice = self._starting.ready
        elif to_be_looked_at(endpoint):
            notice = self._starting.answered
        else:
            return model
        return Noticed(cast("Upstream", model), partial(notice, endpoint.name))

    def _open(self, target: Target, model: Model, refused: str | None = None) -> Live:
        return Live(target, model, self._pipelines.build(target, model), refused)

    async def _put(
        self,
        target: Target,
        model: Model,
        store: _Store,
        refused: str | None = None,
        *,
        proved: bool = True,
    ) -> None:
        """Store an endpoint, then let calls go to it, unless they are `refused` for a reason.

        Until it is `proved`, a look at it that is due stays due, and its loading goes on. While it was, its connection
        may have been removed, or given another token; neither happens while it is stored.
        """
        endpoint = target.endpoint
        try:
            async with self._connecting:
                self._check_fallback(endpoint)
                if endpoint.connection:
                    await self._resolve(endpoint, None)
                live = self._open(target, model, refused)
                await store(Target(endpoint) if endpoint.connection else target)
        except BaseException:
            await model.close()
            raise
        if endpoint.name in self._live:
            self._starting.stop(endpoint.name, proved=proved, serves=endpoint.enabled)
        self._live.put(live)
        self._reopen(live)

    def _reopen(self, live: Live) -> None:
        """Let an endpoint use the token that its connection has now."""
        connection = self._connections.get(live.endpoint.connection or "")
        if connection and connection.token != live.target.token:
            target = Target(live.endpoint, connection.token)
            self._live.put(self._open(target, self._model(target), live.changed))

    def _check_fallback(self, endpoint: Endpoint) -> None:
        """Raises InvalidEndpoint if the endpoint names one to stand in for it that cannot."""
        if endpoint.fallback is None:
            return
        try:
            other = self._live.find(endpoint.fallback).endpoint
        except EndpointNotFound as error:
            raise InvalidEndpoint(
                f"No endpoint is named [{endpoint.fallback}], which is to stand in for [{endpoint.name}].",
                remedy="Register it first, or leave [fallback] out.",
            ) from error
        if endpoint.enabled and other.enabled:  # what is known of one that is switched off may be nothing
            check_fallback(endpoint, other)

    def _change_of(self, name: str) -> asyncio.Lock:
        return self._changes.setdefault(name, asyncio.Lock())


def to_be_looked_at(endpoint: Endpoint) -> bool:
    """Whether another model may have taken its place while the gate was away, and it would be felt."""
    return endpoint.source is Source.DEDICATED and endpoint.task not in GENERATION_TASKS
