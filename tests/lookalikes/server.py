"""Runs a look-alike in a thread, records its requests, and makes it fail on demand."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from lookalikes import openai, toolkit
from lookalikes.faults import ANSWERS, EMBEDDERS, FAULTS
from lookalikes.llamacpp import llamacpp
from lookalikes.model import Answer, Embedder, Model, ReceivedRequest
from lookalikes.router import router
from lookalikes.streaming import stream
from lookalikes.tei import tei
from lookalikes.tgi import tgi

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

ENGINES: dict[str, Callable[[Model, ReceivedRequest, Embedder], Answer]] = {
    "tei": tei,
    "vllm": openai.vllm,
    "sglang": openai.sglang,
    "llamacpp": llamacpp,
    "infinity": openai.infinity,
    "litellm": openai.litellm,
    "toolkit": toolkit.toolkit,
    "transformers": toolkit.transformers_serve,
    "tgi": tgi,
    "router": router,
    "unknown": toolkit.unknown,
}


@dataclass
class _Fault:
    name: str
    times: int | None
    method: str | None
    after: int = 0
    """Requests that it spares first."""


class LookAlike:
    """A running look-alike. Its lists can be read while it runs."""

    def __init__(
        self,
        engine: str,
        model: Model,
        *,
        seconds: float,
        rate_limit: tuple[int, float] | None,
        port: int = 0,
    ) -> None:
        self.model = model
        self._port = port
        self.requests: list[ReceivedRequest] = []
        self.abandoned = 0
        """Requests whose client disconnected before the reply."""
        self.most_at_once = 0
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self.streams = 0
        """Open event streams."""
        self.url = ""
        self._engine = ENGINES[engine]
        self._seconds = seconds
        self._rate_limit = rate_limit
        self._fault: _Fault | None = None
        self._at_once = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()

    @property
    def posts(self) -> list[ReceivedRequest]:
        """The requests that called the model."""
        return [asked for asked in self.requests if asked.method == "POST"]

    @property
    def batches(self) -> list[list[str]]:
        """The texts of each POST."""
        return [asked.texts for asked in self.posts]

    def most_in(self, seconds: float) -> int:
        """The most POSTs in any window of this length."""
        times = [asked.at for asked in self.posts]
        return max((sum(start <= at < start + seconds for at in times) for start in times), default=0)

    def fail(self, fault: str, *, times: int | None = None, method: str | None = None) -> None:
        """Fail the next `times` requests (of one method), or all until `heal`."""
        if fault not in FAULTS:
            raise ValueError(f"{fault} is not one of {sorted(FAULTS)}")
        self._fault = _Fault(fault, times, method)

    def heal(self) -> None:
        """Stop failing."""
        self._fault = None
        self.release()

    def stop_after(self, posts: int) -> None:
        """Answer this many POSTs; those that follow wait until `let_go` or `heal`."""
        self._fault = _Fault("hang", None, "POST", after=posts)

    def let_go(self) -> None:
        """Answer what waits now; what follows waits again."""

        def renew() -> None:
            self._released.set()
            self._released = asyncio.Event()

        self._loop.call_soon_threadsafe(renew)

    def hurry(self) -> None:
        """Reply without delay from now on."""
        self._seconds = 0.0

    def release(self) -> None:
        """Let hanging requests continue."""
        self._loop.call_soon_threadsafe(self._released.set)

    def wait_until(self, condition: Callable[[LookAlike], bool], seconds: float = 240) -> None:
        """Block until something is true of the server. In a coroutine: `await asyncio.to_thread(...)`."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), seconds):
                raise TimeoutError("the look-alike was never in that state")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.transport is not None:
            self._transports.add(request.transport)
        asked = ReceivedRequest(
            method=request.method,
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
            at=time.monotonic(),
        )
        self._note(lambda: self.requests.append(asked))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._respond(request, asked)
        except asyncio.CancelledError:
            self._note(self._count_abandoned)
            raise
        finally:
            self._at_once -= 1

    def _count_abandoned(self) -> None:
        self.abandoned += 1

    def _note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    async def _respond(self, request: web.Request, asked: ReceivedRequest) -> web.StreamResponse:
        fault = self._next_fault(asked)
        if fault == "hang":
            await self._released.wait()
        elif fault in {"close", "half", "not-http"}:
            return await _broken(request, fault)
        elif fault in ANSWERS:
            return _response(ANSWERS[fault](asked))
        if self._seconds and not asked.field("stream"):
            await asyncio.sleep(self._seconds)
        if self._over_rate_limit(asked):
            return _response(ANSWERS["too-many"](asked))
        embedder = EMBEDDERS.get(fault or "", Embedder)(self.model)
        try:
            answer = self._engine(self.model, asked, embedder)
        except (
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
        ) as error:  # servers validate requests, look-alikes do not
            raise web.HTTPUnprocessableEntity(
                text=json.dumps({"error": repr(error)}), content_type="application/json"
            ) from error
        if answer.events:
            return await self._stream(request, answer, fault)
        response = _response(answer)
        if not self.model.keep_alive:
            response.force_close()
        return response

    async def _stream(self, request: web.Request, answer: Answer, fault: str | None) -> web.StreamResponse:
        self._note(self._count_stream)
        try:
            return await stream(request, answer, fault, self._seconds, self._released)
        finally:
            self._note(self._count_stream_end)

    def _count_stream(self) -> None:
        self.streams += 1

    def _count_stream_end(self) -> None:
        self.streams -= 1

    def _next_fault(self, asked: ReceivedRequest) -> str | None:
        fault = self._fault
        if fault is None or fault.method not in (None, asked.method):
            return None
        if fault.after:
            fault.after -= 1
            return None
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._fault = None
        return fault.name

    def _over_rate_limit(self, asked: ReceivedRequest) -> bool:
        if self._rate_limit is None or asked.method != "POST":
            return False
        count, seconds = self._rate_limit
        return sum(1 for other in self.posts if other.at > asked.at - seconds) > count

    async def _serve(self, started: threading.Event, stop: asyncio.Event, tls: ssl.SSLContext | None) -> None:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        started.set()
        await stop.wait()
        await _all_accepted()
        await runner.cleanup()
        for transport in self._transports:
            transport.abort()  # one with unsent data would stay open
        await asyncio.sleep(0)  # they close in the loop's next iteration

    @contextmanager
    def running(self, tls: ssl.SSLContext | None) -> Iterator[LookAlike]:
        """Serve while the context is open."""
        started, stop = threading.Event(), asyncio.Event()
        thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(started, stop, tls),), daemon=True
        )
        thread.start()
        if not started.wait(240):
            raise TimeoutError("the look-alike did not start")
        try:
            yield self
        finally:
            self.release()
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(240)
            self._loop.close()


async def _all_accepted() -> None:
    """Accept new connections first: aiohttp does not know them yet, and would leave their sockets open."""
    for _ in range(2):  # until the loop has polled for them
        await asyncio.sleep(0)
    coming = [task for task in asyncio.all_tasks() if "_accept_connection" in repr(task.get_coro())]
    if coming:
        await asyncio.wait(coming, timeout=5)


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type} | dict(answer.headers)
    return web.Response(status=answer.status, body=answer.raw, headers=headers)


async def _broken(request: web.Request, fault: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100000"})
    transport = request.transport
    assert transport is not None
    if fault == "half":
        await response.prepare(request)
        await response.write(b"[[0.5,")
    elif fault == "not-http":
        transport.write(b"SSH-2.0-OpenSSH_9.9\r\n")
    transport.close()
    return response


@contextmanager
def lookalike(
    engine: str,
    *,
    fault: str | None = None,
    seconds: float = 0.0,
    rate_limit: tuple[int, float] | None = None,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
    **model: Any,
) -> Iterator[LookAlike]:
    """Run a look-alike of `engine` (see `ENGINES`) while the context is open.

    Args:
        engine: the server to imitate.
        fault: a fault from the start: see `LookAlike.fail`.
        seconds: delay of each reply, and of each event of a stream.
        rate_limit: POSTs per seconds; a further one gets a 429.
        tls: serve HTTPS with this context.
        port: of a server that was stopped, to take its place; a free one by default.
        model: fields of `Model`.
    """
    server = LookAlike(engine, Model(**model), seconds=seconds, rate_limit=rate_limit, port=port)
    if fault:
        server.fail(fault)
    with server.running(tls) as running:
        yield running


class Servers:
    """Look-alikes of one model that run while the context is open. Each can be stopped and replaced."""

    def __init__(self, engines: Sequence[str], **model: Any) -> None:
        self._engines = engines
        self._model = model
        self._stacks = [ExitStack() for _ in engines]
        self.all: list[LookAlike] = []

    def __enter__(self) -> Self:
        for engine, stack in zip(self._engines, self._stacks, strict=True):
            self.all.append(stack.enter_context(lookalike(engine, **self._model)))
        return self

    def __exit__(self, *_: object) -> None:
        for stack in self._stacks:
            stack.close()

    def stop(self, index: int) -> None:
        self._stacks[index].close()

    def start(self, index: int, **model: Any) -> LookAlike:
        """Start a server in the place of one that was stopped."""
        port = int(self.all[index].url.rpartition(":")[2])
        started = lookalike(self._engines[index], port=port, **{**self._model, **model})
        self.all[index] = self._stacks[index].enter_context(started)
        return self.all[index]

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.all]
