"""The request's body on its way in, and whether its client is still there: one connection, which has one reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from hubgate.domain.errors import BodyTooLarge, BodyTooSlow, CallerError, Cause, GatewayBusy, HubgateError
from hubgate.web.http.asgi import Message, Receive, Scope
from hubgate.web.http.request_context import RequestContext, context_of

# A call that is answered sooner costs no task; a client that leaves a longer one is noticed at once.
_WATCH_AFTER = 0.02
_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 1 << 28
ANONYMOUS_BYTES = 8 * 1024
"""Of the body of a request whose sender is not known: enough for the sign-in form."""
_SMALL_BYTES = 64 * 1024

EXCESS = "hubgate.excess"
"""In the scope: the connection is one too many, and ends with the answer."""
FAULT = "hubgate.body_fault"
"""In the scope: why no more of the body comes, where the server knows. `BROKEN` or `SLOW`."""
BROKEN, SLOW = "broken", "slow"


class BodyMemory:
    """Bounds how many bytes of request bodies are held at once.

    Bodies of up to 64 KiB are not counted, because the number of connections bounds them: so small calls cost nothing
    here, and large ones never keep them out.
    """

    def __init__(self, most: int) -> None:
        self._free = most

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            GatewayBusy: they are too many.
        """
        if size > self._free:
            raise GatewayBusy(
                "The request bodies that are being served take all the memory that is set apart for them.",
                remedy="Retry in a moment, or let the operator raise HUBGATE_MAX_TOTAL_BODY_BYTES.",
                retry_after=1.0,
            )
        self._free -= size

    def give_back(self, size: int) -> None:
        """Hold them no longer."""
        self._free += size


class Body:
    """`receive` that bounds the request's body.

    Args:
        scope: of the request, with its context: as long as that has no key, the body is a few KiB.
        receive: the server's.
        length: the value of `Content-Length`, if there is one.
        most: bytes of a known sender's body.
        memory: for the bodies of all requests.
    """

    __slots__ = ("_announced", "_held", "_memory", "_most", "_read", "_scope", "receive", "whole")

    def __init__(self, scope: Scope, receive: Receive, length: bytes, most: int, memory: BodyMemory) -> None:
        self.receive = receive
        self.whole = False
        self._scope = scope
        self._announced = int(length) if length.isdigit() else 0
        self._read = 0
        self._held = 0
        self._most = most
        self._memory = memory

    async def __call__(self) -> Message:
        """The next part.

        Raises:
            BodyTooLarge: it is announced or found to be larger than the gate accepts.
            GatewayBusy: there is no memory for it now.
            BodyTooSlow, CallerError: the rest of it does not come.
        """
        known = context_of(self._scope).key is not None
        most = self._most if known else min(self._most, ANONYMOUS_BYTES)
        if self._announced <= most:
            self._hold(self._announced)
            message = await self._next()
            if self.whole and FAULT in self._scope:
                raise _fault(self._scope[FAULT])
            if self._read <= most:
                self._hold(self._read)
                return message
        if known:
            remedy = "Send fewer texts at a time, or let the operator raise HUBGATE_MAX_BODY_BYTES."
        else:
            remedy = "Sign in first, or send a gateway key."
        raise BodyTooLarge(f"The request body is larger than {most} bytes.", remedy=remedy)

    def release(self) -> None:
        """The request is over."""
        if self._held:
            self._memory.give_back(self._held)
            self._held = 0

    async def drain(self) -> None:
        """Read on, within bounds: many a client reads no answer before it has sent everything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self.whole and self._read < _DRAIN_BYTES:
                    await self._next()

    def _hold(self, size: int) -> None:
        if size > _SMALL_BYTES and size > self._held:
            self._memory.take(size - self._held)
            self._held = size

    async def _next(self) -> Message:
        message = await self.receive()
        self._read += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        return message


def _fault(which: str) -> HubgateError:
    if which == SLOW:
        return BodyTooSlow(
            "The request body did not arrive in time.",
            remedy="Send it faster, or less of it at a time.",
        )
    return CallerError(
        "The chunks of the request body are not valid.",
        remedy="Send chunks as RFC 9112 describes, or a Content-Length.",
        cause=Cause.INVALID_REQUEST,
    )


def closes(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether the connection ends with the answer, which is lost then if the client is still sending.

    One that asks before it sends (`Expect`) is not sending, and must not be told to.
    """
    closes = (
        scope.get("http_version") == "1.0"
        or b"close" in headers.get(b"connection", b"").lower()
        or EXCESS in scope
    )
    return closes and b"expect" not in headers


async def until_client_leaves(work: Awaitable[None], body: Body, context: RequestContext) -> None:
    """Do the work, and stop it when the client goes away."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    watch = _Watch(task, body, context)
    try:
        await work
    except asyncio.CancelledError:
        if not context.client_left or task.uncancel():
            raise
    finally:
        watch.end()


class _Watch:
    """Cancels a task when the client of its request goes away.

    Closures that name themselves would hold all of a request until the garbage collector comes, so this is a class.
    """

    __slots__ = ("_body", "_task", "_ticket", "_timer", "_watching")

    def __init__(self, task: asyncio.Task[None], body: Body, context: RequestContext) -> None:
        self._task = task
        self._body = body
        self._ticket = context
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
