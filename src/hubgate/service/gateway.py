"""The verbs of the gate, the same for every face, the console and the command line."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hubgate.domain.endpoint import WRITING_TASKS, Source
from hubgate.domain.errors import EndpointExists, EndpointNotFound, HubgateError, InvalidEndpoint
from hubgate.service.asking import Asking, check_fallback
from hubgate.service.live import Live, LiveEndpoints
from hubgate.service.proving import ask_once, open_model, prove, refusal, what_changed
from hubgate.service.starting import Starting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from hubgate.domain.endpoint import Endpoint
    from hubgate.domain.ports import Counters, Model, Sources, Store
    from hubgate.domain.secret import Secret
    from hubgate.service.pipeline import Pipeline, Pipelines

    _Store = Callable[[Endpoint, Secret | None], Awaitable[None]]

_READY_NOTE = "ready endpoint"

_log = logging.getLogger(__name__)


class Gateway(Asking):
    """Registered endpoints: to the verbs that ask a model, those that register, change and remove it.

    One instance a process, used on one event loop.
    """

    def __init__(
        self, store: Store, sources: Sources, pipelines: Pipelines, counters: Counters | None = None
    ) -> None:
        super().__init__(LiveEndpoints())
        self._store = store
        self._sources = sources
        self._pipelines = pipelines
        self._counters = counters
        self._starting = Starting()
        self._changes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Open every stored endpoint. One that cannot be opened is left out, so that the others serve."""
        for endpoint, token in await self._store.endpoints():
            try:
                self._live.put(self._open(endpoint, token, open_model(self._sources, endpoint, token)))
            except HubgateError as error:
                _log.error("endpoint %s is left out: %s", endpoint.name, error)

    async def start(self, ready_endpoint: Endpoint | None = None) -> None:
        """Begin, in the background, to load the local models and to look whether the dedicated ones are the same.

        Args:
            ready_endpoint: registered once in the life of this gate, unless there are endpoints already.
        """
        endpoints = self.endpoints()
        for endpoint in filter(lambda endpoint: endpoint.enabled, endpoints):
            if endpoint.source is Source.LOCAL:
                self._starting.load(endpoint.name, partial(self._load, endpoint.name))
            elif endpoint.source is Source.DEDICATED and endpoint.task not in WRITING_TASKS:
                self._starting.look(endpoint.name, partial(self.check, endpoint.name))
        if ready_endpoint and await self._store.note(_READY_NOTE) is None:
            if endpoints:
                await self._store.set_note(_READY_NOTE, "not needed")
            else:
                self._starting.load(ready_endpoint.name, partial(self._make_ready, ready_endpoint))

    async def settled(self) -> None:
        """Wait until every local model answers or has failed."""
        await self._starting.settled()

    async def close(self) -> None:
        """Free every upstream. Calls in flight end with an error."""
        await self._starting.close()
        await self._live.close()
        await self._sources.close()

    def find(self, name: str) -> Endpoint:
        """The endpoint of this name.

        Raises:
            EndpointNotFound: there is none.
        """
        return self._live.find(name).endpoint

    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, by name."""
        return [live.endpoint for live in self._live]

    def pipelines(self) -> Mapping[str, Pipeline]:
        """The pipeline of each endpoint, by name."""
        return {live.endpoint.name: live.pipeline for live in self._live}

    def token_hint(self, name: str) -> str | None:
        """The last characters of the endpoint's token, or `None` if it has none.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        token = self._live.find(name).token
        return token.hint if token else None

    def token(self, name: str) -> Secret | None:
        """The endpoint's token, to ask the Hub with.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        return self._live.find(name).token

    def unready(self) -> dict[str, str]:
        """The local endpoints that do not answer, and why, by name."""
        return self._starting.unready()

    async def register(
        self, draft: Endpoint, token: Secret | None, *, within: float | None = None
    ) -> Endpoint:
        """Prove that an endpoint works, learn what it is, then store it. Nothing is stored if it fails.

        Args:
            draft: what the operator says of it; its facts are replaced by what is learned.
            token: the upstream's access token.
            within: seconds for the whole of it.

        Raises:
            EndpointExists: the name is taken.
            HubgateError: it does not work; says why and what to do.
        """
        async with self._change_of(draft.name):
            if draft.name in self._live:
                raise EndpointExists(draft.name)
            proven, model = await prove(self._sources, draft, token, within, counters=self._counters)
            await _to_its_end(self._put(proven, token, model, self._store.add_endpoint))
        _log.info("registered endpoint %s (%s)", proven.name, proven.source)
        return proven

    async def update(
        self, changed: Endpoint, token: Secret | None = None, *, within: float | None = None
    ) -> Endpoint:
        """Put an endpoint's new settings to the proof and in force; without a token the old one stays.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: it does not work any more; the old settings stay in force.
        """
        old = self._live.find(changed.name)
        if changed == old.endpoint and token in (None, old.token):
            return old.endpoint
        return await self._renew(changed, token, within)

    async def remove(self, name: str) -> None:
        """Forget an endpoint.

        Raises:
            EndpointNotFound: there is none.
        """
        async with self._change_of(name):
            self._live.find(name)
            await _to_its_end(self._forget(name))
        _log.info("removed endpoint %s", name)

    async def check(self, name: str, *, within: float | None = None) -> Endpoint:
        """Look whether the registered model still answers; what runs there now.

        Raises:
            EndpointNotFound: no endpoint has this name.
            EndpointChanged: it is another model; calls are refused from now on, until it is accepted.
            HubgateError: it does not answer.
        """
        live = self._live.find(name)
        proven, model = await prove(self._sources, live.endpoint, live.token, within, any_dimensions=True)
        await model.close()
        if proven.task not in WRITING_TASKS:
            live.changed = what_changed(live.endpoint.facts, proven.facts)
        if live.changed is not None:
            raise refusal(name, live.changed)
        self._starting.ready(name)
        return proven

    async def accept(self, name: str, *, within: float | None = None) -> Endpoint:
        """Take what runs there now for the registered model: its vectors do not match those from before.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: it does not answer.
        """
        return await self._renew(self.find(name), None, within, any_dimensions=True)

    async def rotate_secret(self) -> int:
        """Seal every stored token under a new secret key; how many were sealed.

        Raises:
            StoreFailed: the key cannot be changed here; says how it can.
        """
        return await self._store.rotate_secret()

    async def _renew(
        self, changed: Endpoint, token: Secret | None, within: float | None, *, any_dimensions: bool = False
    ) -> Endpoint:
        async with self._change_of(changed.name):
            token = token or self._live.find(changed.name).token
            proven, model = await prove(
                self._sources,
                changed,
                token,
                within,
                any_dimensions=any_dimensions,
                counters=self._counters,
            )
            await _to_its_end(self._put(proven, token, model, self._store.save_endpoint))
        _log.info("renewed endpoint %s", proven.name)
        return proven

    def _open(self, endpoint: Endpoint, token: Secret | None, model: Model) -> Live:
        return Live(endpoint, token, model, self._pipelines.build(endpoint, token, model))

    async def _put(self, endpoint: Endpoint, token: Secret | None, model: Model, store: _Store) -> None:
        """Store an endpoint, then let calls go to it."""
        try:
            self._check_fallback(endpoint)
            live = self._open(endpoint, token, model)
            await store(endpoint, token)
        except BaseException:
            await model.close()
            raise
        if endpoint.name in self._live:
            self._starting.stop(endpoint.name)
        self._live.put(live)

    async def _forget(self, name: str) -> None:
        await self._store.remove_endpoint(name)
        self._starting.stop(name)
        self._live.retire(name)

    def _check_fallback(self, endpoint: Endpoint) -> None:
        """Raises InvalidEndpoint if the endpoint names one to stand in for it that cannot."""
        if endpoint.fallback is None:
            return
        try:
            other = self.find(endpoint.fallback)
        except EndpointNotFound as error:
            raise InvalidEndpoint(
                f"No endpoint is named [{endpoint.fallback}], which is to stand in for [{endpoint.name}].",
                remedy="Register it first, or leave [fallback] out.",
            ) from error
        check_fallback(endpoint, other)

    async def _load(self, name: str) -> None:
        live = self._live.find(name)
        await ask_once(live.endpoint, live.model)

    def _change_of(self, name: str) -> asyncio.Lock:
        """Changes of one endpoint happen one after the other."""
        return self._changes.setdefault(name, asyncio.Lock())

    async def _make_ready(self, draft: Endpoint) -> None:
        try:
            await self.register(draft, None)
            await self._store.set_note(_READY_NOTE, draft.name)
        except HubgateError as error:
            _log.error("endpoint %s could not be registered: %s", draft.name, error)


async def _to_its_end(change: Coroutine[None, None, None]) -> None:
    """Finish a change even if the one who asked for it has left: memory and store stay of one mind."""
    task = asyncio.ensure_future(change)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})  # the next change of this endpoint begins after this one
        raise
