"""The verbs of the gate, the same for every face, the console and the command line."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hubgate.domain.calls import Vectors
from hubgate.domain.endpoint import Source, Task
from hubgate.domain.errors import (
    EndpointChanged,
    EndpointExists,
    EndpointNotFound,
    HubgateError,
    WrongTask,
)
from hubgate.service.proving import PROBE, prove, what_changed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from hubgate.domain.calls import Call, Embed, Result
    from hubgate.domain.endpoint import Endpoint
    from hubgate.domain.ports import Sources, Store, Upstream
    from hubgate.domain.secret import Secret
    from hubgate.service.pipeline import Pipeline, Pipelines

    _Store = Callable[[Endpoint, Secret | None], Awaitable[None]]

_READY_NOTE = "ready endpoint"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    """An endpoint that can be called."""

    endpoint: Endpoint
    token: Secret | None
    upstream: Upstream
    pipeline: Pipeline
    changed: EndpointChanged | None = None
    """Why it is not to be called, until an operator accepts what runs there now."""
    calls: int = 0
    """Being answered."""
    retired: bool = False

    async def close(self) -> None:
        """Send away who waits, let what is in flight end, and free the model."""
        await self.pipeline.close()
        await self.upstream.close()


class Gateway:
    """Registered endpoints, and calls to them. One instance a process, used on one event loop."""

    def __init__(self, store: Store, sources: Sources, pipelines: Pipelines) -> None:
        self._store = store
        self._sources = sources
        self._pipelines = pipelines
        self._live: dict[str, _Live] = {}
        self._changes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._warming: dict[str, asyncio.Task[None]] = {}
        self._failing: dict[str, str] = {}
        self._closing: set[asyncio.Future[None]] = set()

    async def load(self, ready_endpoint: Endpoint | None = None) -> None:
        """Open every stored endpoint, and start to load the local models in the background.

        Args:
            ready_endpoint: registered once in the life of this gate, unless there are endpoints already.
        """
        for endpoint, token in await self._store.endpoints():
            self._go_live(endpoint, token, self._sources.open(endpoint, token))
            if endpoint.source is Source.LOCAL:
                self._warming[endpoint.name] = asyncio.create_task(self._warm_up(endpoint.name))
        if ready_endpoint and not self._live and await self._store.note(_READY_NOTE) is None:
            self._warming[ready_endpoint.name] = asyncio.create_task(self._make_ready(ready_endpoint))

    async def settled(self) -> None:
        """Wait until every local model answers or has failed."""
        await asyncio.gather(*self._warming.values(), return_exceptions=True)

    async def close(self) -> None:
        """Free every upstream. Calls in flight end with an error."""
        for task in self._warming.values():
            task.cancel()
        await asyncio.gather(*self._warming.values(), return_exceptions=True)
        await asyncio.gather(*(live.close() for live in self._live.values()), *self._closing)
        await self._sources.close()

    def find(self, name: str) -> Endpoint:
        """The endpoint of this name.

        Raises:
            EndpointNotFound: there is none.
        """
        return self._find(name).endpoint

    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, by name."""
        return [self._live[name].endpoint for name in sorted(self._live)]

    def pipelines(self) -> Mapping[str, Pipeline]:
        """The pipeline of each endpoint, by name."""
        return {name: live.pipeline for name, live in self._live.items()}

    def token_hint(self, name: str) -> str | None:
        """The last characters of the endpoint's token, or `None` if it has none."""
        token = self._live[name].token if name in self._live else None
        return token.hint if token else None

    def unready(self) -> dict[str, str]:
        """The local endpoints that do not answer, and why, by name."""
        waiting = {name: "The model is loading." for name, task in self._warming.items() if not task.done()}
        return waiting | self._failing

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
            proven, upstream = await prove(self._sources, draft, token, within)
            await _to_its_end(self._replace(proven, token, upstream, self._store.add_endpoint))
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
        old = self._find(changed.name)
        if changed == old.endpoint and token in (None, old.token):
            return old.endpoint
        return await self._renew(changed, token, within)

    async def remove(self, name: str) -> None:
        """Forget an endpoint.

        Raises:
            EndpointNotFound: there is none.
        """
        async with self._change_of(name):
            self.find(name)
            await _to_its_end(self._forget(name))
        _log.info("removed endpoint %s", name)

    async def check(self, name: str, *, within: float | None = None) -> Endpoint:
        """Look whether the registered model still answers; what runs there now.

        Raises:
            EndpointNotFound: no endpoint has this name.
            EndpointChanged: it is another model; calls are refused from now on, until it is accepted.
            HubgateError: it does not answer.
        """
        live = self._find(name)
        proven, upstream = await prove(self._sources, live.endpoint, live.token, within)
        await upstream.close()
        live.changed = what_changed(live.endpoint.facts, proven.facts)
        if live.changed is not None:
            raise live.changed
        return proven

    async def accept(self, name: str, *, within: float | None = None) -> Endpoint:
        """Take what runs there now for the registered model: its vectors do not match those from before.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: it does not answer.
        """
        return await self._renew(replace(self.find(name), dimensions=None), None, within)

    async def rotate_secret(self) -> int:
        """Seal every stored token under a new secret key; how many were sealed.

        Raises:
            StoreFailed: the key cannot be changed here; says how it can.
        """
        return await self._store.rotate_secret()

    async def infer(self, name: str, call: Call) -> Result:
        """Answer a call.

        Raises:
            HubgateError: it cannot be answered.
        """
        live = self._find(name)
        if live.changed is not None:
            raise live.changed
        live.calls += 1
        try:
            return await live.pipeline.answer(call)
        except EndpointChanged as error:
            live.changed = error
            raise
        finally:
            live.calls -= 1
            if live.retired and not live.calls:
                self._close_soon(live)

    async def embed(self, name: str, call: Embed) -> Vectors:
        """`infer` for embeddings.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: it cannot be answered.
        """
        task = self._find(name).endpoint.task
        if task is not Task.TEXT_EMBEDDING:
            raise WrongTask(name, asked=Task.TEXT_EMBEDDING, actual=task)
        result = await self.infer(name, call)
        assert isinstance(result, Vectors)  # noqa: S101 - an Embed is answered with Vectors
        return result

    def _find(self, name: str) -> _Live:
        live = self._live.get(name)
        if live is None:
            raise EndpointNotFound(name)
        return live

    async def _renew(self, changed: Endpoint, token: Secret | None, within: float | None) -> Endpoint:
        async with self._change_of(changed.name):
            token = token or self._find(changed.name).token
            proven, upstream = await prove(self._sources, changed, token, within)
            await _to_its_end(self._replace(proven, token, upstream, self._store.save_endpoint))
        _log.info("renewed endpoint %s", proven.name)
        return proven

    async def _replace(
        self, endpoint: Endpoint, token: Secret | None, upstream: Upstream, store: _Store
    ) -> None:
        try:
            await store(endpoint, token)
        except HubgateError:
            await upstream.close()
            raise
        self._retire(endpoint.name)
        self._go_live(endpoint, token, upstream)

    async def _forget(self, name: str) -> None:
        await self._store.remove_endpoint(name)
        self._retire(name)

    def _go_live(self, endpoint: Endpoint, token: Secret | None, upstream: Upstream) -> None:
        pipeline = self._pipelines.build(endpoint, token, upstream)
        self._live[endpoint.name] = _Live(endpoint, token, upstream, pipeline)

    def _retire(self, name: str) -> None:
        """Take an endpoint out of service; who is being answered, or waits, still is."""
        self._failing.pop(name, None)
        live = self._live.pop(name, None)
        if live is None:
            return
        if task := self._warming.pop(name, None):
            task.cancel()
        live.retired = True
        if not live.calls:
            self._close_soon(live)

    def _close_soon(self, live: _Live) -> None:
        task = asyncio.ensure_future(live.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _warm_up(self, name: str) -> None:
        try:
            await self._live[name].upstream(PROBE)
        except HubgateError as error:
            self._fail(name, error)

    async def _make_ready(self, draft: Endpoint) -> None:
        try:
            await self.register(draft, None)
            await self._store.set_note(_READY_NOTE, draft.name)
        except HubgateError as error:
            self._fail(draft.name, error)

    def _fail(self, name: str, error: HubgateError) -> None:
        self._failing[name] = str(error)
        _log.error("endpoint %s does not answer: %s", name, error)

    def _change_of(self, name: str) -> asyncio.Lock:
        """Changes of one endpoint happen one after the other."""
        return self._changes.setdefault(name, asyncio.Lock())


async def _to_its_end(change: Coroutine[None, None, None]) -> None:
    """Finish a change even if the one who asked for it has left: memory and store stay of one mind."""
    await asyncio.shield(asyncio.ensure_future(change))
