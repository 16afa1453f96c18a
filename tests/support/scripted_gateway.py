"""The whole web application over a scripted model, to test what a face does with each possible result."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from running_gateway import copy_migrated

from hubgate.core.generation import ManagedStream
from hubgate.core.matryoshka import ShortenStep
from hubgate.domain.calls import Chat, Embed, Encoding, Generated, Vectors, WireFormat
from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.hub import ModelPrompts
from hubgate.features import load
from hubgate.features.feature import Core, open_features
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipeline, Pipelines
from hubgate.service.inference.rate_limits import RateLimits
from hubgate.service.keys.access import Access
from hubgate.service.keys.credentials import read_credentials
from hubgate.service.metrics import Meter
from hubgate.store.store import SqlStore
from hubgate.upstreams.hub.client import open_hub
from hubgate.web.app import create_app
from hubgate.web.parts import Parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from hubgate.core.generation import GenerationPipeline
    from hubgate.domain.calls import Call, GenerationCall, Result
    from hubgate.domain.ports import Hub, Model, TextGenerator, Upstream
    from hubgate.domain.records import Key
    from hubgate.settings import Settings
    from hubgate.web.http.asgi import AsgiApp, Message

ADMIN_KEY = "an-admin-key-for-tests"
FACTS = Facts(
    engine=Engine.FAKE,
    model="org/model",
    revision="abc123",
    max_input_tokens=256,
    auto_truncate=True,
    pooling="mean",
    precision="f32",
)


def authenticate(access: Access, authorization: str | None) -> Key:
    """The key of a request with this header, which is decoded as Latin-1."""
    return access.accept(read_credentials(authorization))


def two_numbers(call: Call) -> Result:
    """For each text the JSON vector [its index, 0.5]."""
    assert isinstance(call, Embed)
    items = [b"[%d,0.5]" % index for index in range(len(call.texts))]
    return Vectors(items=items, encoding=Encoding.JSON, tokens=3 * len(items), exact=True)


def hello_reply(call: GenerationCall) -> Generated:
    """`hello` in OpenAI's format."""
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    if isinstance(call, Chat):
        message = {"role": "assistant", "content": "hello"}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        kind = "chat.completion"
    else:
        choice, kind = {"index": 0, "text": "hello", "finish_reason": "stop"}, "text_completion"
    body = {
        "id": "x",
        "object": kind,
        "created": 1,
        "model": "org/model",
        "choices": [choice],
        "usage": usage,
    }
    return Generated(body=json.dumps(body).encode(), wire_format=WireFormat.OPENAI, prompt_tokens=3, tokens=4)


def hello_events(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    """`hel` and `lo` in OpenAI's format."""
    chat = isinstance(call, Chat)
    for text, reason in (("hel", None), ("lo", "stop")):
        content = {"delta": {"content": text}} if chat else {"text": text}
        choice = {"index": 0, **content, "finish_reason": reason}
        kind = "chat.completion.chunk" if chat else "text_completion"
        chunk = {"id": "x", "object": kind, "created": 1, "model": "org/model", "choices": [choice]}
        yield [json.dumps(chunk, separators=(",", ":")).encode()]


@dataclass
class ScriptedEvents:
    """A stream of a generation call; `pause` is awaited after each item."""

    wire_format: WireFormat
    items: Iterator[Sequence[bytes]]
    pause: Callable[[], Awaitable[object]] | None = None
    closed: int = 0

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        for item in self.items:
            yield item
            if self.pause:
                await self.pause()

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class Script:
    """A model and the source that opens it. Tests replace its callables at any time; they may raise."""

    answer: Callable[[Call], Result] = two_numbers
    written: Callable[[GenerationCall], Generated] = hello_reply
    told: Callable[[GenerationCall], Iterator[Sequence[bytes]]] = hello_events
    wire_format: WireFormat = WireFormat.OPENAI  # of streams
    pause: Callable[[], Awaitable[object]] | None = None
    """Awaited before a text is generated, and after each item of a stream."""
    write_calls: list[GenerationCall] = field(default_factory=list)
    streams: list[ScriptedEvents] = field(default_factory=list)
    facts: Facts = FACTS
    hugging_face: Sequence[str] = ()
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        return self.answer(call)

    async def generate(self, call: GenerationCall) -> Generated:
        self.write_calls.append(call)
        if self.pause:
            await self.pause()
        return self.written(call)

    async def stream(self, call: GenerationCall) -> ScriptedEvents:
        self.write_calls.append(call)
        self.streams.append(ScriptedEvents(self.wire_format, self.told(call), self.pause))
        return self.streams[-1]

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        return ()

    async def read_prompts(self, target: Target) -> ModelPrompts:
        return ModelPrompts()

    async def added_prompt(self, target: Target) -> str:
        return ""

    async def runs(self, target: Target) -> bool:
        return False

    async def detect(self, target: Target) -> Facts:
        return self.facts

    async def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        for step in (Step.ADDRESS, Step.DNS, Step.TCP):
            yield step

    def open_generator(self, target: Target) -> TextGenerator:
        return self

    def open(self, target: Target) -> Upstream:
        return self

    async def close(self) -> None:
        pass

    @property
    def embedded(self) -> Embed:
        """The last call, which must be an `Embed`."""
        call = self.calls[-1]
        assert isinstance(call, Embed)
        return call


class _MinimalPipelines(Pipelines):
    def __init__(self) -> None:
        self.limits = RateLimits(time.monotonic)

    def build(self, target: Target, model: Model) -> Pipeline:
        endpoint = target.endpoint
        if endpoint.task in GENERATION_TASKS:
            return Pipeline(
                answer=cast("Upstream", model),
                generation=cast("GenerationPipeline", _DirectGeneration(cast("TextGenerator", model))),
            )
        facts = endpoint.facts
        answer = ShortenStep(cast("Upstream", model), model=facts.model, dimensions=facts.dimensions)
        return Pipeline(answer=answer)


class _DirectGeneration:
    def __init__(self, generator: TextGenerator) -> None:
        self.generate = generator.generate
        self._stream = generator.stream

    async def stream(self, call: GenerationCall) -> ManagedStream:
        return ManagedStream(await self._stream(call), lambda: None)


@dataclass
class Reply:
    """A response, and in how many parts its body was sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    parts: int

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedGateway:
    """The application with one endpoint, `e5`, with two dimensions, whose model is the script."""

    app: AsgiApp
    script: Script
    service: Gateway
    access: Access
    meter: Meter
    hub: Hub
    parts: Parts

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = ADMIN_KEY,
        content_type: str | None = "application/json",
        accept: str | None = None,
        more_headers: dict[str, str] | None = None,
    ) -> Reply:
        """Call the ASGI application with one request; a body that is not `bytes` is sent as JSON."""
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        path, _, query = path.partition("?")
        headers = [(b"content-length", b"%d" % len(payload))]
        headers += [(b"content-type", content_type.encode())] if content_type else []
        headers += [(b"accept", accept.encode())] if accept else []
        headers += [(name.encode(), value.encode()) for name, value in (more_headers or {}).items()]
        if key:
            headers.append((b"authorization", b"Bearer " + key.encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": headers,
        }
        requests: list[Message] = [{"type": "http.request", "body": payload, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            if not requests:
                await asyncio.Event().wait()
            return requests.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, *parts = sent
        decoded = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], decoded, b"".join(part.get("body", b"") for part in parts), len(parts))


@asynccontextmanager
async def open_scripted_gateway(settings: Settings) -> AsyncIterator[ScriptedGateway]:
    copy_migrated(settings)
    store = await SqlStore.open(settings)
    script = Script()
    gateway = Gateway(store, script, _MinimalPipelines())
    meter = Meter(gateway.pipelines)
    access, _ = await Access.load(store, ADMIN_KEY)
    await gateway.registry.register(Endpoint(name="e5", task=Task.TEXT_EMBEDDING, source=Source.FAKE), None)
    script.calls.clear()
    hub = open_hub(settings)
    settings = replace(settings, files_total_bytes=1 << 20, files_key_bytes=1 << 20, files_max_bytes=1 << 20)
    core = Core(settings, store, gateway, access, hub)
    async with open_features(load(), core) as parts:
        app = create_app(
            gateway,
            access,
            meter,
            None,
            hub=hub,
            parts=parts,
            max_body_bytes=4_000_000,
            max_total_body_bytes=4_000_000,
            keys_in_path=True,
        )
        yield ScriptedGateway(app, script, gateway, access, meter, hub, parts)
    await gateway.close()
    await hub.close()
    await store.close()
