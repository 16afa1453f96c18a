"""Models on a stage: a test says what each of them is, does and waits for, and sees what became of it."""

from __future__ import annotations

import asyncio
import shutil
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError
    from hubgate.domain.ports import TextGenerator
    from hubgate.domain.secret import Secret
    from hubgate.settings import Settings


def dedicated(name: str = "e5", **fields: object) -> Endpoint:
    """A dedicated endpoint."""
    endpoint = Endpoint(
        name=name, task=Task.TEXT_EMBEDDING, source=Source.DEDICATED, url="http://127.0.0.1:1/"
    )
    return replace(endpoint, **fields)  # type: ignore[arg-type]


def local(name: str = "minilm") -> Endpoint:
    """A local endpoint."""
    return Endpoint(name=name, task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model")


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


@dataclass(eq=False)
class Actor:
    """An opened upstream."""

    stage: Stage
    endpoint: Endpoint
    token: Secret | None
    calls: list[Call] = field(default_factory=list)
    closed: int = 0
    ended: int = 0
    """Calls that were cancelled."""

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        self.stage.asked.set()
        try:
            await self.stage.go_on.wait()
        except asyncio.CancelledError:
            self.ended += 1
            raise
        if self.stage.failure:
            raise self.stage.failure
        assert isinstance(call, Embed)
        vector = self.stage.vector
        return Vectors(
            items=[struct.pack(f"<{len(vector)}f", *vector)] * len(call.texts),
            encoding=Encoding.F32,
            tokens=3 * len(call.texts),
            exact=True,
        )

    async def close(self) -> None:
        self.closed += 1


@dataclass
class Stage:
    """The sources of a gateway. What is set here holds for all that is opened."""

    facts: Facts = Facts(engine=Engine.TEI, model="org/model", revision="abc")  # noqa: RUF009 - it is frozen
    vector: tuple[float, ...] = (0.6, 0.8)
    failure: HubgateError | None = None
    absence: HubgateError | None = None
    """What detection raises."""
    awake: bool = False
    """Whether all servers are known to run."""
    unopenable: dict[str, HubgateError] = field(default_factory=dict)
    """What opening raises, by the endpoint's name."""
    actors: list[Actor] = field(default_factory=list)
    detections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    hugging_face: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.go_on.set()

    def hold(self) -> None:
        """Let nobody answer until `go_on` is set; `asked` tells when somebody should."""
        self.go_on.clear()
        self.asked.clear()

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        return ()

    async def runs(self, target: Target) -> bool:
        return self.awake

    async def detect(self, target: Target) -> Facts:
        self.detections += 1
        if self.absence:
            raise self.absence
        return self.facts

    def open(self, target: Target) -> Actor:
        endpoint = target.endpoint
        if endpoint.name in self.unopenable:
            raise self.unopenable[endpoint.name]
        actor = Actor(self, endpoint, target.token)
        self.actors.append(actor)
        return actor

    async def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        for step in (Step.ADDRESS, Step.DNS, Step.TCP):
            yield step

    def open_generator(self, target: Target) -> TextGenerator:
        raise AssertionError("nobody writes on this stage")

    async def close(self) -> None:
        self.closed = True

    @property
    def questions(self) -> int:
        """How many calls came to all of them."""
        return sum(len(actor.calls) for actor in self.actors)

    @property
    def open_actors(self) -> list[Actor]:
        """Those that nobody closed."""
        return [actor for actor in self.actors if not actor.closed]


@pytest.fixture
async def store(settings: Settings, tmp_path: Path, migrated: Path) -> AsyncIterator[SqlStore]:
    """A real store, empty."""
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    opened = await SqlStore.open(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def stage() -> Stage:
    """Where the models of a test stand."""
    return Stage()
