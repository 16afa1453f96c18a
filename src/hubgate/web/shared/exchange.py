"""One request to an endpoint, and its answer, on plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import TypeVar

from hubgate.core.generation import ManagedStream
from hubgate.domain.calls import InputType
from hubgate.domain.endpoint import Endpoint
from hubgate.service.gateway import Gateway
from hubgate.web.http.asgi import Send, respond
from hubgate.web.http.face import RenderError
from hubgate.web.http.request_context import RequestContext
from hubgate.web.shared.embeddings import waited_header
from hubgate.web.shared.sse import StreamEncoder, send_stream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Who is asked, by whom, and where the answer goes."""

    gateway: Gateway
    endpoint: Endpoint
    context: RequestContext
    send: Send
    kind: InputType | None = None
    """What the texts are for, when the body does not say."""

    @property
    def render_stream_error(self) -> RenderError:
        """Renders an error in the middle of a stream."""
        return self.context.render_stream_error or self.context.render_error

    def note(
        self, *, texts: int, tokens: int | None, waited: float, prompt_tokens: int | None = None
    ) -> None:
        """Write on the context what was done; of several calls at once it is the longest wait that counts."""
        context = self.context
        context.texts += texts
        context.tokens += tokens or 0
        if tokens is not None and prompt_tokens is not None:
            context.completion_tokens += tokens - prompt_tokens
        context.waited = max(context.waited, waited)

    async def respond(self, body: bytes) -> None:
        """Send a whole answer."""
        await respond(self.send, 200, body, headers=waited_header(self.context.waited))

    async def send_stream(self, events: ManagedStream, encoder: StreamEncoder) -> None:
        """Send a stream to its end, and close it."""
        await send_stream(self.send, self.context, events, encoder)


async def all_or_none(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """The answers to all of them, in their order; when one fails, the others are given up and its error is raised.

    A `TaskGroup` would keep the error in a variable that its traceback holds: see `guard._tell`.
    """
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await _give_up(tasks)
        raise


async def _give_up(tasks: list[asyncio.Task[T]]) -> None:
    """End what goes on, and hold no error any longer."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
