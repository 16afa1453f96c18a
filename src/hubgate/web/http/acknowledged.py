"""Answers as one of several gateways: a change when all follow it, an unknown name when no other has just made it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from hubgate.domain.errors import EndpointNotFound, NotFound
from hubgate.domain.records import MADE, ChangesMade
from hubgate.service.cluster.gates import Gates
from hubgate.service.rounds import Rounds
from hubgate.web.http.asgi import AsgiApp, Message, Receive, Scope, Send
from hubgate.web.http.request_context import RequestContext, context_of

PENDING = b"x-hubgate-pending"
"""The gateways that may not follow the change yet."""
_MAX_KEPT_BYTES = 64 * 1024
"""Of a body, to be read a second time. What names an endpoint or a key is smaller."""


async def ask_again(
    answer: Callable[[], Awaitable[None]],
    context: RequestContext,
    rounds: Rounds,
    is_unchanged: Callable[[], bool] = lambda: True,
) -> None:
    """Answer a request, once more if it names something that this gateway learns of only now.

    Args:
        answer: answers the request.
        context: of the request.
        rounds: in which this gateway learns what others have made.
        is_unchanged: whether the request can be answered again, as it has changed nothing.
    """
    news = rounds.news
    try:
        await answer()
    except (EndpointNotFound, NotFound):
        if context.status or not is_unchanged():
            raise
        await rounds.next()
        if rounds.news == news:
            raise
    else:
        return
    await answer()


class Acknowledged:
    """Holds back the response to a request that changed something until all gateways know, for a second at most.

    So whoever has the response finds the change at every gateway.
    """

    def __init__(self, app: AsgiApp, gates: Gates, rounds: Rounds) -> None:
        self._app = app
        self._gates = gates
        self._rounds = rounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        if scope["method"] in ("GET", "HEAD"):
            await ask_again(partial(self._app, scope, receive, send), context, self._rounds)
            return
        made = ChangesMade()
        token = MADE.set(made)
        kept = _Kept(receive)

        async def send_when_followed(message: Message) -> None:
            if message["type"] == "http.response.start" and made.version:
                behind = await self._gates.behind(made.version)
                pending = [(PENDING, ", ".join(behind).encode())] if behind else []
                message["headers"] = [*message.get("headers", ()), *pending]
            await send(message)

        def rewind() -> bool:
            return not made.version and kept.rewind()

        try:
            answer = partial(self._app, scope, kept, send_when_followed)
            await ask_again(answer, context, self._rounds, rewind)
        finally:
            MADE.reset(token)


class _Kept:
    """A `receive` that can begin again, unless the body is large."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._next = 0
        self._size = 0

    async def __call__(self) -> Message:
        if self._next < len(self._messages):
            self._next += 1
            return self._messages[self._next - 1]
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size <= _MAX_KEPT_BYTES:
            self._messages.append(message)
            self._next += 1
        else:
            self._messages.clear()
        return message

    def rewind(self) -> bool:
        """Begin again; returns whether that is possible."""
        self._next = 0
        return self._size <= _MAX_KEPT_BYTES
