"""The verbs of the gate, the same for every face, the console and the command line."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hubgate.domain.calls import Vectors
from hubgate.domain.endpoint import Source, Task
from hubgate.domain.errors import EndpointChanged, EndpointExists, HubgateError, WrongTask
from hubgate.service.live import Live, LiveEndpoints
from hubgate.service.proving import PROBE, prove, refusal, what_changed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from hubgate.domain.calls import Call, Embed, Result
    from hubgate.domain.endpoint import Endpoint
    from hubgate.domain.ports import Counters, Sources, Store, Upstream
    from hubgate.domain.secret import Secret
    from hubgate.service.pipeline import Pipeline, Pipelines

    _Store = Callable[[Endpoint, Secret | None], Awaitable[None]]

_READY_NOTE = "ready endpoint"

_log = logging.getLogger(__name__)


class Gateway:
    """Registered endpoints, and calls to them. One instance a process, used on one event loop."""

    def __init__(
        self, store: Store, sources: Sources, pipelines: Pipelines, counters: Counters | None = None
    ) -> None:
        self._store = store
        self._sources = sources
        self._pipelines = pipelines
        self._counters = counters
        self._live = LiveEndpoints()
        self._changes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._unready: dict[str, str] = {}

    async def load(self) -> None:
        """Open every stored endpoint. One that cannot be opened is left out, so that the others serve."""
        for endpoint, token in await self._store.endpoints():
            try:
                self._live.put(self._open(endpoint, token, self._sources.open(endpoint, token)))
            except HubgateError as error:
                _log.error("endpoint %s is left out: %s", endpoint.name, error)

    async def start(self, ready_endpoint: Endpoint | None = None) -> None:
        """Begin, in the background, to load the local models and to look whether the dedicated ones are the same.

        Args:
            ready_endpoint: registered once in the life of this gate, unless there are endpoints already.
        """
        endpoints = self.endpoints()
        for endpoint in endpoints:
            if endpoint.source is Source.LOCAL:
                self._begin_to_load(endpoint.name, self._warm_up(endpoint.name))
            elif endpoint.source is Source.DEDICATED:
                self._starting[endpoint.name] = asyncio.create_task(self._look_again(endpoint.name))
        if ready_endpoint and await self._store.note(_READY_NOTE) is None:
            if endpoints:
                await self._store.set_note(_READY_NOTE, "not needed")
            else:
                self._begin_to_load(ready_endpoint.name, self._make_ready(ready_endpoint))

    async def settled(self) -> None:
        """Wait until every local model answers or has failed."""
        loading = [task for name, task in self._starting.items() if name in self._unready]
        await asyncio.gather(*loading, return_exceptions=True)

    async def close(self) -> None:
        """Free every upstream. Calls in flight end with an error."""
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
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

    def unready(self) -> dict[str, str]:
        """The local endpoints that do not answer, and why, by name."""
        return dict(self._unready)

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
            proven, upstream = await prove(self._sources, draft, token, within, counters=self._counters)
            await _to_its_end(self._put(proven, token, upstream, self._store.add_endpoint))
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
        proven, upstream = await prove(self._sources, live.endpoint, live.token, within, any_dimensions=True)
        await upstream.close()
        live.changed = what_changed(live.endpoint.facts, proven.facts)
        if live.changed is not None:
            raise refusal(name, live.changed)
        self._unready.pop(name, None)
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

    async def infer(self, name: str, call: Call) -> Result:
        """Answer a call.

        Raises:
            HubgateError: it cannot be answered.
        """
        return await self._live.answer(name, call)

    async def embed(self, name: str, call: Embed) -> Vectors:
        """`infer` for embeddings.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: it cannot be answered.
        """
        task = self.find(name).task
        if task is not Task.TEXT_EMBEDDING:
            raise WrongTask(name, asked=Task.TEXT_EMBEDDING, actual=task)
        result = await self.infer(name, call)
        assert isinstance(result, Vectors)  # noqa: S101 - an Embed is answered with Vectors
        return result

    async def _renew(
        self, changed: Endpoint, token: Secret | None, within: float | None, *, any_dimensions: bool = False
    ) -> Endpoint:
        async with self._change_of(changed.name):
            token = token or self._live.find(changed.name).token
            proven, upstream = await prove(
                self._sources,
                changed,
                token,
                within,
                any_dimensions=any_dimensions,
                counters=self._counters,
            )
            await _to_its_end(self._put(proven, token, upstream, self._store.save_endpoint))
        _log.info("renewed endpoint %s", proven.name)
        return proven

    def _open(self, endpoint: Endpoint, token: Secret | None, upstream: Upstream) -> Live:
        return Live(endpoint, token, upstream, self._pipelines.build(endpoint, token, upstream))

    async def _put(self, endpoint: Endpoint, token: Secret | None, upstream: Upstream, store: _Store) -> None:
        """Store an endpoint, then let calls go to it."""
        try:
            live = self._open(endpoint, token, upstream)
            await store(endpoint, token)
        except BaseException:
            await upstream.close()
            raise
        self._stop_starting(endpoint.name)
        self._live.put(live)

    async def _forget(self, name: str) -> None:
        await self._store.remove_endpoint(name)
        self._stop_starting(name)
        self._live.retire(name)

    def _change_of(self, name: str) -> asyncio.Lock:
        """Changes of one endpoint happen one after the other."""
        return self._changes.setdefault(name, asyncio.Lock())

    def _begin_to_load(self, name: str, job: Coroutine[None, None, None]) -> None:
        self._unready[name] = "The model is loading."
        self._starting[name] = asyncio.create_task(job)

    def _stop_starting(self, name: str) -> None:
        """What was found out of an endpoint at the start is of no use for the one that takes its place."""
        self._unready.pop(name, None)
        if name in self._live and (task := self._starting.pop(name, None)):
            task.cancel()

    async def _warm_up(self, name: str) -> None:
        try:
            await self._live.find(name).upstream(PROBE)
        except HubgateError as error:
            self._unready[name] = str(error)
            _log.error("endpoint %s does not answer: %s", name, error)
        else:
            self._unready.pop(name, None)

    async def _look_again(self, name: str) -> None:
        """A model that cannot be asked is no reason for anything: it may sleep, or be paused."""
        try:
            await self.check(name)
        except EndpointChanged as error:
            _log.error("endpoint %s is not served: %s", name, error)
        except HubgateError as error:
            _log.warning("endpoint %s could not be checked: %s", name, error)
        else:
            _log.info("endpoint %s is as it was registered", name)

    async def _make_ready(self, draft: Endpoint) -> None:
        try:
            await self.register(draft, None)
            await self._store.set_note(_READY_NOTE, draft.name)
        except HubgateError as error:
            _log.error("endpoint %s could not be registered: %s", draft.name, error)
        finally:
            self._unready.pop(draft.name, None)


async def _to_its_end(change: Coroutine[None, None, None]) -> None:
    """Finish a change even if the one who asked for it has left: memory and store stay of one mind."""
    task = asyncio.ensure_future(change)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})  # the next change of this endpoint begins after this one
        raise
