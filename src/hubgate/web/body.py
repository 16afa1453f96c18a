"""The request's body on its way in, and whether its client is still there: one connection, which has one reader."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hubgate.domain.errors import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from hubgate.web.asgi import Message, Receive, Scope
    from hubgate.web.ticket import Ticket

# A call that is answered sooner costs no task; a client that leaves a longer one is noticed at once.
_WATCH_AFTER = 0.02
_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 1 << 28


class Body:
    """`receive` that bounds the request's body."""

    __slots__ = ("_announced", "_most", "_read", "receive", "whole")

    def __init__(self, receive: Receive, length: bytes, most: int) -> None:
        self.receive = receive
        self.whole = False
        self._announced = int(length) if length.isdigit() else 0
        self._read = 0
        self._most = most

    async def __call__(self) -> Message:
        """The next part.

        Raises:
            BodyTooLarge: it is announced or found to be larger than the gate accepts.
        """
        if self._announced <= self._most:
            message = await self._next()
            if self._read <= self._most:
                return message
        raise BodyTooLarge(
            f"The request body is larger than {self._most} bytes.",
            remedy="Send fewer texts at a time, or raise HUBGATE_MAX_BODY_BYTES.",
        )

    async def drain(self) -> None:
        """Read on, within bounds: many a client reads no answer before it has sent everything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self.whole and self._read < _DRAIN_BYTES:
                    await self._next()

    async def _next(self) -> Message:
        message = await self.receive()
        self._read += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        return message


def closes(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether the connection ends with the answer, which is lost then if the client is still sending.

    One that asks before it sends (`Expect`) is not sending, and must not be told to.
    """
    closes = scope.get("http_version") == "1.0" or b"close" in headers.get(b"connection", b"").lower()
    return closes and b"expect" not in headers


async def until_client_leaves(work: Awaitable[None], body: Body, ticket: Ticket) -> None:
    """Do the work, and stop it when the client goes away."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    watch = _Watch(task, body, ticket)
    try:
        await work
    except asyncio.CancelledError:
        if not ticket.client_left or task.uncancel():
            raise
    finally:
        watch.end()


class _Watch:
    """Cancels a task when the client of its request goes away.

    Closures that name themselves would hold all of a request until the garbage collector comes, so this is a class.
    """

    __slots__ = ("_body", "_task", "_ticket", "_timer", "_watching")

    def __init__(self, task: asyncio.Task[None], body: Body, ticket: Ticket) -> None:
        self._task = task
        self._body = body
        self._ticket = ticket
        self._watching: asyncio.Task[None] | None = None
        self._timer = task.get_loop().call_later(_WATCH_AFTER, self._start)

    def end(self) -> None:
        """The work is done."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _start(self) -> None:
        loop = self._task.get_loop()
        if self._body.whole:
            self._watching = loop.create_task(self._notice())
        else:  # only one reader at a time: what is left of the body belongs to the face
            self._timer = loop.call_later(_WATCH_AFTER, self._start)

    async def _notice(self) -> None:
        await self._body.receive()  # after a whole body there is nothing to come but the end
        if not self._ticket.answered:  # a server tells of the end of a request in the same words
            self._ticket.client_left = True
            self._task.cancel()
