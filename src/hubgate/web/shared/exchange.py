"""One request to an endpoint and its response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import TypeVar

import msgspec

from hubgate.core.generation import ManagedStream
from hubgate.domain.endpoint import Endpoint, InputType
from hubgate.service.gateway import Gateway
from hubgate.web.http.asgi import Send, respond
from hubgate.web.http.face import RenderError
from hubgate.web.http.request_context import RequestContext
from hubgate.web.shared.embeddings import waited_header
from hubgate.web.shared.sse import EVENT_STREAM, StreamEncoder, send_stream

T = TypeVar("T")


class Exchange(msgspec.Struct, eq=False):
    gateway: Gateway
    endpoint: Endpoint
    context: RequestContext
    send: Send
    input_type: InputType | None = None
    """The default, for a body without one."""

    @property
    def render_stream_error(self) -> RenderError:
        return self.context.render_stream_error or self.context.render_error

    def record(
        self, *, texts: int, tokens: int | None, waited: float, prompt_tokens: int | None = None
    ) -> None:
        """Add a call to the request's usage. Parallel calls wait together, so only the longest wait counts."""
        context = self.context
        context.texts += texts
        if tokens is not None:
            context.tokens += tokens
            if prompt_tokens is not None:
                context.completion_tokens += tokens - prompt_tokens
        context.waited = max(context.waited, waited)

    def respond(self, body: bytes) -> Awaitable[None]:
        waited = self.context.waited
        return respond(self.send, 200, body, headers=waited_header(waited) if waited else ())

    def send_stream(
        self, events: ManagedStream, encoder: StreamEncoder, content_type: bytes = EVENT_STREAM
    ) -> Awaitable[None]:
        return send_stream(self.send, self.context, events, encoder, content_type=content_type)


async def all_or_none(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """The results of parallel calls, in their order. If one fails, the others are cancelled and its error is raised.

    A `TaskGroup` would keep the error in a variable that its traceback holds: see `guard._send_error`.
    """
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await _cancel(tasks)
        raise


async def _cancel(tasks: list[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()  # releases their errors
