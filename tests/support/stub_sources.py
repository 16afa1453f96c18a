"""Stub model sources: a test sets what models are detected, what they reply or raise, and when."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from running_gateway import copy_migrated

from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.errors import UpstreamUnreachable
from hubgate.domain.hub import ModelPrompts
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError
    from hubgate.domain.ports import TextGenerator
    from hubgate.domain.secret import Secret
    from hubgate.settings import Settings


def dedicated(name: str = "e5", **fields: object) -> Endpoint:
    endpoint = Endpoint(
        name=name, task=Task.TEXT_EMBEDDING, source=Source.DEDICATED, url="http://127.0.0.1:1/"
    )
    return replace(endpoint, **fields)  # type: ignore[arg-type]


def local(name: str = "minilm") -> Endpoint:
    return Endpoint(name=name, task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model")


async def until(condition: Callable[[], bool]) -> None:
    """Run the event loop until the condition is true."""
    async with asyncio.timeout(240):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


@dataclass(eq=False)
class StubUpstream:
    """An upstream that the stub sources opened."""

    sources: StubSources
    endpoint: Endpoint
    token: Secret | None
    calls: list[Call] = field(default_factory=list)
    closed: int = 0
    cancelled: int = 0

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        self.sources.asked.set()
        try:
            await self.sources.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.sources.failure:
            raise self.sources.failure
        assert isinstance(call, Embed)
        vector = self.sources.vector
        return Vectors(
            items=[struct.pack(f"<{len(vector)}f", *vector)] * len(call.texts),
            encoding=Encoding.F32,
            tokens=3 * len(call.texts),
            exact=True,
        )

    async def close(self) -> None:
        self.closed += 1


@dataclass
class StubSources:
    """The sources of a gateway. Its settings apply to every upstream it opens."""

    facts: Facts = Facts(engine=Engine.TEI, model="org/model", revision="abc")  # noqa: RUF009 - it is frozen
    vector: tuple[float, ...] = (0.6, 0.8)
    failure: HubgateError | None = None
    absence: HubgateError | None = None
    """Raised by `detect`."""
    prompts: ModelPrompts | None = ModelPrompts()  # noqa: RUF009 - it is frozen
    """In the model's files; `None` if the Hub is down."""
    added: str = ""
    """The prompt that every server adds itself."""
    awake: bool = False
    """Whether every server is reported as running."""
    unopenable: dict[str, HubgateError] = field(default_factory=dict)
    """Raised by `open`, by endpoint name."""
    upstreams: list[StubUpstream] = field(default_factory=list)
    detections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    hugging_face: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.go_on.set()

    def hold(self) -> None:
        """Hold every reply until `go_on` is set; `asked` is set by the next call."""
        self.go_on.clear()
        self.asked.clear()

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        return ()

    async def added_prompt(self, target: Target) -> str:
        return self.added

    async def runs(self, target: Target) -> bool:
        return self.awake

    async def detect(self, target: Target) -> Facts:
        self.detections += 1
        if self.absence:
            raise self.absence
        return self.facts

    async def read_prompts(self, target: Target) -> ModelPrompts:
        if self.prompts is None:
            raise UpstreamUnreachable("The Hub is down.")
        return self.prompts

    def open(self, target: Target) -> StubUpstream:
        endpoint = target.endpoint
        if endpoint.name in self.unopenable:
            raise self.unopenable[endpoint.name]
        actor = StubUpstream(self, endpoint, target.token)
        self.upstreams.append(actor)
        return actor

    async def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        for step in (Step.ADDRESS, Step.DNS, Step.TCP):
            yield step

    def open_generator(self, target: Target) -> TextGenerator:
        raise AssertionError("stub sources open no generator")

    async def close(self) -> None:
        self.closed = True

    @property
    def call_count(self) -> int:
        """Calls to all upstreams together."""
        return sum(len(actor.calls) for actor in self.upstreams)

    @property
    def open_upstreams(self) -> list[StubUpstream]:
        return [actor for actor in self.upstreams if not actor.closed]


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[SqlStore]:
    """An empty store."""
    copy_migrated(settings)
    opened = await SqlStore.open(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def sources() -> StubSources:
    return StubSources()
