"""Memory of a request is freed when it ends, without waiting for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from generation_endpoints import add, add_generator
from lookalikes import lookalike
from running_gateway import RunningGateway

from hubgate.core.queue.batch import QueuedCall
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import QueueFull
from hubgate.upstreams.http.connection import Connection
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.web.http.request_context import RequestContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripted_gateway import ScriptedGateway

    from hubgate.settings import Settings

CHAT = {"model": "llm", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def live_contexts() -> int:
    return sum(isinstance(one, RequestContext) for one in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("seconds", [0.0, 0.05], ids=["at once", "after a while"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_request_context_is_freed_when_the_request_ends(
    settings: Settings, seconds: float, stream: bool
) -> None:
    before = live_contexts()
    with lookalike("vllm", kind="llm", seconds=seconds) as server, RunningGateway(settings) as gateway:
        gateway.add("llm", url=server.url, task="chat_completion")
        for _ in range(3):
            assert gateway.request("POST", "/v1/chat/completions", {**CHAT, "stream": stream}).status == 200
        assert gateway.request("POST", "/v1/chat/completions", {"model": "llm"}).status == 400
    assert live_contexts() == before


@pytest.mark.usefixtures("no_collector")
def test_request_context_is_freed_when_the_client_disconnects(settings: Settings) -> None:
    before = live_contexts()
    with lookalike("vllm", kind="llm") as server, RunningGateway(settings) as gateway:
        gateway.add("llm", url=server.url, task="chat_completion")
        server.fail("hang")
        where = urlsplit(gateway.url)
        with socket.create_connection((where.hostname, where.port), timeout=240) as client:
            body = b'{"model": "llm", "messages": [{"role": "user", "content": "Hello"}]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {gateway.admin_key}\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            server.wait_until(lambda it: any(b"Hello" in asked.body for asked in it.requests))
        server.wait_until(lambda it: it.abandoned > 0)
    assert live_contexts() == before


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "writer", "prompt": "a"}),
        ("/v1/completions", {"model": "writer", "prompt": ["a", "b"]}),
        ("/hf/ranker/predict", {"inputs": [["q", "a"], ["r", "b"]]}),
        ("/_inference/e5", {"input": "a"}),
        ("/_inference/e5", {"input": "a", "chunking_settings": {"strategy": "?"}}),
        ("/_inference/talker", {}),
        ("/_inference/talker/_stream", {}),
        ("/_inference/writer/_stream", {"input": "a"}),
    ],
)
async def test_request_context_is_freed_when_the_request_fails(
    scripted: ScriptedGateway, path: str, body: object
) -> None:
    await add_generator(scripted, "writer", Task.COMPLETION, chats=False)
    await add_generator(scripted, "talker", Task.CHAT_COMPLETION, chats=True)
    await add(scripted, "ranker", Task.RERANK)

    def is_full(call: object) -> Any:
        raise QueueFull("Too many wait.")

    scripted.script.answer = scripted.script.written = scripted.script.told = is_full
    before = live_contexts()
    for _ in range(3):
        assert (await scripted.request("POST", path, body)).status in {400, 429}
    await asyncio.sleep(0)  # the event loop forgets what it has done this turn
    assert live_contexts() == before


def held() -> Counter[str]:
    """Number of live objects that hold the bytes of a request or a reply, by type."""
    return Counter(
        f"{type(one).__module__}.{type(one).__name__}"
        for one in gc.get_objects()
        if type(one) in {RequestContext, QueuedCall, HttpRequest, Connection}
    )


FAILURES = [
    *("close", "half", "not-http", "hang", "failing", "echo", "html", "not-json", "waking-503", "too-many"),
    *("huge", "bomb", "redirect"),
]
BREAKS = ["stall", "cut", "unfinished", "error-event", "garbage", "not-utf8-event"]
CHAT_BODY = {"messages": CHAT["messages"]}
SEVERAL = {"input": [f"text {number}" for number in range(40)]}
WAYS = {
    "chat": ("vllm", "chat_completion/{}", CHAT_BODY),
    "stream": ("vllm", "chat_completion/{}/_stream", CHAT_BODY),
    "embedding": ("tei", "text_embedding/{}", {"input": ["a"]}),
    "embedding in two requests": ("tei", "text_embedding/{}", SEVERAL),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(("engine", "path", "body"), WAYS.values(), ids=WAYS)
def test_failed_upstream_exchange_frees_its_objects(
    settings: Settings, engine: str, path: str, body: object
) -> None:
    settings = replace(settings, max_reply_bytes=1 << 20, cache_bytes=0)
    breaks = BREAKS if path.endswith("_stream") else []
    before = held()
    with ExitStack() as servers, RunningGateway(settings) as gateway:
        for fault in [*FAILURES, *breaks]:
            server = servers.enter_context(lookalike(engine, kind="llm" if engine == "vllm" else "embedding"))
            gateway.add(fault, url=server.url, task=path.partition("/")[0])
            assert gateway.request("PATCH", f"/api/endpoints/{fault}", {"timeout": 0.2}).status == 200
            server.fail(fault)
            reply = gateway.request("POST", f"/_inference/{path.format(fault)}?timeout=300ms", body)
            assert reply.status >= 400 or fault in breaks, fault
    assert not held() - before


@pytest.mark.usefixtures("no_collector")
def test_call_that_fails_three_times_frees_its_objects(settings: Settings) -> None:
    before = held()
    with lookalike("vllm", kind="llm") as server, RunningGateway(settings) as gateway:
        gateway.add("llm", url=server.url, task="chat_completion")
        server.fail("half")
        assert gateway.request("POST", "/v1/chat/completions", CHAT).status == 502
        assert sum(b"Hello" in asked.body for asked in server.requests) == 3
    assert not held() - before


@pytest.mark.usefixtures("no_collector")
def test_local_model_that_rejects_a_text_frees_the_request(local_gateway: RunningGateway) -> None:
    before = live_contexts()
    for _ in range(5):
        body = {"inputs": "long " * 1000, "truncate": False}
        assert local_gateway.request("POST", "/hf/all-minilm-l6-v2/embed", body).status == 413
    assert live_contexts() <= before + 1, "more than the one that may not have ended yet"
