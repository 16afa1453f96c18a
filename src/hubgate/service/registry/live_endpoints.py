"""Open endpoints: those that take calls, and those that were replaced and still finish theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn, cast

from hubgate.domain.calls import Call, Generated, GenerationCall, Result
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Source, Target
from hubgate.domain.errors import (
    Cause,
    EndpointChanged,
    EndpointDisabled,
    EndpointNotFound,
    IsAlias,
    UpstreamUnreadable,
)
from hubgate.domain.ports import Events, Model, Sources, TextGenerator, Upstream
from hubgate.service.inference.pipeline import Pipeline, Pipelines
from hubgate.service.registry.probe import open_model
from hubgate.service.registry.replicas import open_replicas
from hubgate.service.registry.startup import StartupTasks
from hubgate.service.registry.validation import changed_error


class LiveEndpoint:
    """An open endpoint. As a context manager, it stays open during a call.

    Raises:
        EndpointDisabled, EndpointChanged: see `LiveEndpoints.admit`.
    """

    def __init__(self, endpoints: LiveEndpoints, target: Target, model: Model, pipeline: Pipeline) -> None:
        self._endpoints = endpoints
        self.target = target
        """Another one with the same endpoint may take its place."""
        self.endpoint = target.endpoint
        self.model_version = target.endpoint.model_version
        self.model = model
        self.pipeline = pipeline
        self.calls = 0
        """Calls in flight."""
        self.retired = False
        """Whether it only finishes its calls."""

    @property
    def changed(self) -> str | None:
        return self.target.changed

    def __enter__(self) -> None:
        if self.target.changed is not None or not self.endpoint.enabled:
            self._endpoints.admit(self)
        self.calls += 1

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if isinstance(error, EndpointChanged):
                self._endpoints.mark_changed(self, error.message)
                raise changed_error(self.endpoint.name, error.message) from None
            if isinstance(error, UpstreamUnreadable) and error.cause is Cause.DIMENSIONS_CHANGED:
                self._endpoints.on_suspect(self)
        finally:
            self.leave()

    def leave(self) -> None:
        """End a call."""
        self.calls -= 1
        if self.retired:
            self._endpoints.close_if_idle(self)

    async def close(self) -> None:
        """Reject queued calls, wait for those in flight, and free the model."""
        await self.pipeline.close()
        await self.model.close()


class LiveEndpoints:
    """The open endpoints by name. Used on one event loop."""

    def __init__(self, sources: Sources, pipelines: Pipelines, startup: StartupTasks) -> None:
        self.on_changed: Callable[[LiveEndpoint], None] = lambda _: None
        """Called when calls to an endpoint are refused from now on, or again allowed: see `Target.changed`."""
        self.on_suspect: Callable[[LiveEndpoint], None] = lambda _: None
        """Called after a vector of another size, which may be due to its text or to another model."""
        self._sources = sources
        self._pipelines = pipelines
        self._startup = startup
        self._live: dict[str, LiveEndpoint] = {}
        self._retired: set[LiveEndpoint] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self.aliases: Mapping[str, str] = {}
        """The endpoint of each alias."""

    def __contains__(self, name: str) -> bool:
        return name in self._live

    def __iter__(self) -> Iterator[LiveEndpoint]:
        return iter([self._live[name] for name in sorted(self._live)])

    def find(self, name: str) -> LiveEndpoint:
        """Raises: EndpointNotFound, or IsAlias if it is the name of an alias."""
        live = self._live.get(name)
        if live is None:
            raise IsAlias(name, self.aliases[name]) if name in self.aliases else EndpointNotFound(name)
        return live

    def resolve(self, name: str) -> LiveEndpoint:
        """The endpoint of this name, or the one that this alias leads to. Raises: EndpointNotFound."""
        live = self._live.get(name)
        return self.find(self.aliases.get(name, name)) if live is None else live

    def names(self) -> Sequence[str]:
        return list(self._live)

    def pipelines(self) -> Mapping[str, Pipeline]:
        """The pipeline of each endpoint, by name."""
        return {name: self._live[name].pipeline for name in sorted(self._live)}

    def open_model(self, target: Target) -> Model:
        """Open the model of an endpoint whose facts are known. Does no I/O."""
        endpoint = target.endpoint
        if not endpoint.enabled:
            return DisabledModel(endpoint.name)
        if endpoint.facts.replicas:
            return open_replicas(self._sources, target)
        model = open_model(self._sources, target)
        if endpoint.source is Source.LOCAL:
            on_reply = self._startup.mark_ready
        elif needs_startup_check(endpoint):
            on_reply = self._startup.mark_running
        else:
            return model
        return ObservedModel(model, partial(on_reply, endpoint.name))

    def open(self, target: Target, model: Model) -> LiveEndpoint:
        """Build the pipeline of an endpoint. It takes no calls before `put`."""
        return LiveEndpoint(self, target, model, self._pipelines.build(target, model))

    def put(self, live: LiveEndpoint) -> None:
        """Send calls to an endpoint. An endpoint of the same name finishes its calls and is closed."""
        self._retire(live.endpoint.name)
        self._live[live.endpoint.name] = live
        self._pipelines.limits.use(live.target)

    def retire(self, name: str) -> None:
        """Take an endpoint out of service. Its calls, also queued ones, are finished."""
        self._retire(name)
        self._pipelines.limits.drop(name)

    def with_limit(self, target: Target) -> Target:
        """The target with the identity of its rate limit, which is that of the endpoint in service, if there is one."""
        live = self._live.get(target.endpoint.name)
        return replace(target, limit=self._pipelines.limits.identify(target, live.target if live else None))

    def _retire(self, name: str) -> None:
        live = self._live.pop(name, None)
        if live is not None:
            live.retired = True
            self._retired.add(live)
            self.close_if_idle(live)

    def mark_changed(self, live: LiveEndpoint, changed: str | None) -> None:
        """Refuse calls because another model is running, or allow them again."""
        if live.changed != changed:
            live.target = replace(live.target, changed=changed)
            self.on_changed(live)

    def admit(self, live: LiveEndpoint) -> None:
        """Check that an endpoint takes calls.

        Raises:
            EndpointDisabled: its operator disabled it.
            EndpointChanged: another model is running there, and nobody has accepted it.
        """
        if live.changed is not None:
            raise changed_error(live.endpoint.name, live.changed)
        if not live.endpoint.enabled:
            raise EndpointDisabled(live.endpoint.name)

    async def close(self) -> None:
        """Free every model. Calls in flight end with an error."""
        retired, self._retired = self._retired, set()
        await asyncio.gather(*(live.close() for live in (*self, *retired)), *self._closing)

    def close_if_idle(self, live: LiveEndpoint) -> None:
        """Free the model of a retired endpoint after its last call."""
        if not live.calls and live in self._retired:
            self._retired.remove(live)
            task = asyncio.create_task(live.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def needs_startup_check(endpoint: Endpoint) -> bool:
    """Whether vectors or scores would be wrong if another model was deployed while the gateway was down.

    Replicas are proven before their first reply is used.
    """
    return (
        endpoint.source is Source.DEDICATED
        and endpoint.task not in GENERATION_TASKS
        and not endpoint.facts.replicas
    )


class DisabledModel:
    """The model of a disabled endpoint. Nothing is opened; `LiveEndpoints.admit` refuses calls before they come here."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, call: Call) -> NoReturn:  # noqa: ARG002 - the port's signature
        raise EndpointDisabled(self._name)

    async def close(self) -> None:
        """Nothing to free."""


class _Wrapper:
    """A model of either kind: passes calls on."""

    model: Model

    async def __call__(self, call: Call) -> Result:
        return await cast("Upstream", self.model)(call)

    async def generate(self, call: GenerationCall) -> Generated:
        return await cast("TextGenerator", self.model).generate(call)

    async def stream(self, call: GenerationCall) -> Events:
        return await cast("TextGenerator", self.model).stream(call)


@dataclass(eq=False)
class SharedModel(_Wrapper):
    """A loaded model used under old and new settings at the same time. The last user to close it frees it."""

    model: Model
    users: int = 1

    def share(self) -> SharedModel:
        self.users += 1
        return self

    async def close(self) -> None:
        self.users -= 1
        if not self.users:
            await self.model.close()


@dataclass(eq=False)
class ObservedModel(_Wrapper):
    """A model that reports each reply, which shows that its server is running."""

    model: Model
    on_reply: Callable[[], None]

    async def __call__(self, call: Call) -> Result:
        result = await super().__call__(call)
        self.on_reply()
        return result

    async def generate(self, call: GenerationCall) -> Generated:
        generated = await super().generate(call)
        self.on_reply()
        return generated

    async def stream(self, call: GenerationCall) -> Events:
        events = await super().stream(call)
        self.on_reply()
        return events

    async def close(self) -> None:
        await self.model.close()
