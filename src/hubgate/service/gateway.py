"""The verbs of the gate, the same for every face, the console and the command line."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hubgate.core.chunking import check_separators
from hubgate.core.vectors import dimensions
from hubgate.domain.calls import Embed, InputType, Vectors
from hubgate.domain.endpoint import Source, Task
from hubgate.domain.errors import (
    DeadlineExceeded,
    EndpointExists,
    EndpointNotFound,
    HubgateError,
    InvalidEndpoint,
    WrongTask,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.endpoint import Endpoint
    from hubgate.domain.ports import Answer, Sources, Store, Upstream
    from hubgate.domain.secret import Secret
    from hubgate.service.pipeline import Pipelines

    _Store = Callable[[Endpoint, Secret | None], Awaitable[None]]

PROBE = Embed(texts=("how big",), input_type=InputType.INGEST)
DEFAULT_REGISTRATION_TIMEOUT = 30.0
_READY_NOTE = "ready endpoint"
SERVED_TASKS = frozenset({Task.TEXT_EMBEDDING})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Live:
    """An endpoint that can be called."""

    endpoint: Endpoint
    token: Secret | None
    upstream: Upstream
    answer: Answer


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
        await asyncio.gather(*(self._retire(name) for name in list(self._live)))
        await self._sources.close()

    def find(self, name: str) -> Endpoint:
        """The endpoint of this name.

        Raises:
            EndpointNotFound: there is none.
        """
        live = self._live.get(name)
        if live is None:
            raise EndpointNotFound(name)
        return live.endpoint

    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, by name."""
        return [self._live[name].endpoint for name in sorted(self._live)]

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
        check_separators(draft.chunking)
        async with self._change_of(draft.name):
            if draft.name in self._live:
                raise EndpointExists(draft.name)
            proven, upstream = await self._prove(draft, token, within)
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
        async with self._change_of(changed.name):
            old = self._live.get(changed.name)
            if old is None:
                raise EndpointNotFound(changed.name)
            if changed == old.endpoint and token in (None, old.token):
                return old.endpoint
            token = token or old.token
            proven, upstream = await self._prove(changed, token, within)
            await _to_its_end(self._replace(proven, token, upstream, self._store.save_endpoint))
        _log.info("updated endpoint %s", proven.name)
        return proven

    async def remove(self, name: str) -> None:
        """Forget an endpoint.

        Raises:
            EndpointNotFound: there is none.
        """
        async with self._change_of(name):
            self.find(name)
            await _to_its_end(self._forget(name))
        _log.info("removed endpoint %s", name)

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
        live = self._live.get(name)
        if live is None:
            raise EndpointNotFound(name)
        deadline = call.context.deadline
        if deadline is None:
            return await live.answer(call)
        limit = asyncio.timeout(deadline - time.monotonic())
        try:
            async with limit:
                return await live.answer(call)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                "The model did not answer within the time that the caller gave.",
                remedy="Give a longer timeout, or send fewer texts at once.",
            ) from None

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

    async def _replace(
        self, endpoint: Endpoint, token: Secret | None, upstream: Upstream, store: _Store
    ) -> None:
        try:
            await store(endpoint, token)
        except HubgateError:
            await upstream.close()
            raise
        await self._retire(endpoint.name)
        self._go_live(endpoint, token, upstream)

    async def _forget(self, name: str) -> None:
        await self._store.remove_endpoint(name)
        await self._retire(name)

    def _go_live(self, endpoint: Endpoint, token: Secret | None, upstream: Upstream) -> None:
        answer = self._pipelines.build(endpoint, token, upstream)
        self._live[endpoint.name] = _Live(endpoint, token, upstream, answer)

    async def _retire(self, name: str) -> None:
        live = self._live.pop(name, None)
        self._failing.pop(name, None)
        if task := self._warming.pop(name, None):
            task.cancel()
        if live is not None:
            await live.upstream.close()

    async def _prove(
        self, draft: Endpoint, token: Secret | None, within: float | None
    ) -> tuple[Endpoint, Upstream]:
        if draft.task not in SERVED_TASKS:
            raise InvalidEndpoint(f"This version does not serve task type [{draft.task}] yet.")
        seconds = within or DEFAULT_REGISTRATION_TIMEOUT
        try:
            async with asyncio.timeout(seconds):
                facts = await self._sources.detect(draft, token)
                upstream = self._sources.open(replace(draft, facts=facts), token)
                try:
                    measured = await _measure(upstream)
                    _check_dimensions(draft, measured)
                except BaseException:
                    await upstream.close()
                    raise
        except TimeoutError:
            raise DeadlineExceeded(
                f"The model did not answer within {seconds:g} seconds.",
                remedy="If it is waking or loading, ask again in a minute, or give a longer timeout.",
            ) from None
        return replace(draft, facts=replace(facts, dimensions=measured)), upstream

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


async def _measure(upstream: Upstream) -> int:
    vectors = await upstream(PROBE)
    assert isinstance(vectors, Vectors)  # noqa: S101 - an Embed is answered with Vectors
    return dimensions(vectors.items[0], vectors.encoding)


def _check_dimensions(draft: Endpoint, measured: int) -> None:
    if draft.dimensions is not None and draft.dimensions != measured:
        raise InvalidEndpoint(
            f"The retrieved embeddings size [{measured}] does not match the size specified in the settings "
            f"[{draft.dimensions}].",
            remedy="Leave [dimensions] out, or register the model that you meant.",
        )
