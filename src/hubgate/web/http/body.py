"""The request body, bounded, and the watch for a client that disconnects. Both read one connection, which has one reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from hubgate.domain.errors import BodyTooLarge, BodyTooSlow, CallerError, Cause, GatewayBusy, HubgateError
from hubgate.web.http.asgi import Message, Receive, Scope
from hubgate.web.http.request_context import RequestContext, context_of

# A shorter call costs no task. After it, a disconnect cancels the call at once.
_WATCH_AFTER_SECONDS = 0.02
_DRAIN_SECONDS = 5.0
_MAX_DRAINED_BYTES = 1 << 28
ANONYMOUS_BYTES = 8 * 1024
"""The largest body without a key: enough for the sign-in form."""
_SMALL_BYTES = 64 * 1024

EXCESS = "hubgate.excess"
"""In the scope: there are too many connections, and this one closes after its response."""
FAULT = "hubgate.body_fault"
"""In the scope: why the server stopped reading the body. `BROKEN` or `SLOW`."""
BROKEN, SLOW = "broken", "slow"


class BodyMemory:
    """Bounds the bytes of all request bodies in memory.

    Bodies up to 64 KiB are not counted: the number of connections bounds them. So small calls cost nothing here, and
    large ones never keep them out.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes

    def take(self, size: int) -> None:
        """Reserve memory.

        Raises:
            GatewayBusy: there is not enough left.
        """
        if size > self._free:
            raise GatewayBusy(
                "The memory for request bodies is exhausted.",
                remedy="Retry in a moment, or ask the operator to raise HUBGATE_MAX_TOTAL_BODY_BYTES.",
                retry_after=1.0,
            )
        self._free -= size

    def give_back(self, size: int) -> None:
        self._free += size


class Body:
    """A `receive` that bounds the request's body.

    Args:
        scope: of the request. Until its context has a key, only a few KiB are accepted.
        receive: the server's.
        length: the value of `Content-Length`, or empty.
        max_bytes: the limit for a caller with a key.
        memory: shared by all requests.
    """

    __slots__ = ("_content_length", "_max_bytes", "_memory", "_read", "_scope", "_taken", "receive", "whole")

    def __init__(
        self, scope: Scope, receive: Receive, length: bytes, max_bytes: int, memory: BodyMemory
    ) -> None:
        self.receive = receive
        self.whole = False
        self._scope = scope
        self._content_length = int(length) if length.isdigit() else 0
        self._read = 0
        self._taken = 0
        self._max_bytes = max_bytes
        self._memory = memory

    async def __call__(self) -> Message:
        """Receive the next part.

        Raises:
            BodyTooLarge: its length, announced or read, exceeds the limit.
            GatewayBusy: there is not enough memory left.
            BodyTooSlow, CallerError: the server stopped reading it.
        """
        context = context_of(self._scope)
        has_key, upload = context.key is not None, context.upload_bytes
        limit = upload or (self._max_bytes if has_key else min(self._max_bytes, ANONYMOUS_BYTES))
        if self._content_length <= limit:
            if upload is None:
                self._take(self._content_length)
            message = await self._next()
            if self.whole and FAULT in self._scope:
                raise _fault_error(self._scope[FAULT])
            if self._read <= limit:
                if upload is None:
                    self._take(self._read)
                return message
        if upload:
            remedy = "Send less, or ask the operator to raise HUBGATE_FILES_MAX_BYTES."
        elif has_key:
            remedy = "Send fewer texts per request, or ask the operator to raise HUBGATE_MAX_BODY_BYTES."
        else:
            remedy = "Sign in first, or send a gateway key."
        raise BodyTooLarge(f"The request body is larger than {limit} bytes.", remedy=remedy)

    def release(self) -> None:
        if self._taken:
            self._memory.give_back(self._taken)
            self._taken = 0

    async def drain(self) -> None:
        """Read the rest, within bounds: many clients read no response before they have sent the whole request."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self.whole and self._read < _MAX_DRAINED_BYTES:
                    await self._next()

    def _take(self, size: int) -> None:
        if size > _SMALL_BYTES and size > self._taken:
            self._memory.take(size - self._taken)
            self._taken = size

    async def _next(self) -> Message:
        message = await self.receive()
        self._read += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        return message


def _fault_error(fault: str) -> HubgateError:
    if fault == SLOW:
        return BodyTooSlow(
            "The request body did not arrive in time.",
            remedy="Send it faster, or send less per request.",
        )
    return CallerError(
        "The chunked encoding of the request body is not valid.",
        remedy="Send chunks as RFC 9112 describes, or a Content-Length.",
        cause=Cause.INVALID_REQUEST,
    )


def should_drain(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether the body must be read before an error: the connection closes, and the response would be lost.

    A client that sent `Expect` is waiting for permission to send, and must not get it.
    """
    closes = (
        scope.get("http_version") == "1.0"
        or b"close" in headers.get(b"connection", b"").lower()
        or EXCESS in scope
    )
    return closes and b"expect" not in headers


async def cancel_on_disconnect(work: Awaitable[None], body: Body, context: RequestContext) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    watch = _DisconnectWatch(task, body, context)
    try:
        await work
    except asyncio.CancelledError:
        if not context.client_left or task.uncancel():
            raise
    finally:
        watch.stop()


class _DisconnectWatch:
    """Cancels a task when the client disconnects.

    A class, because closures that refer to each other would keep the request alive until the garbage collector runs.
    """

    __slots__ = ("_body", "_context", "_task", "_timer", "_watching")

    def __init__(self, task: asyncio.Task[None], body: Body, context: RequestContext) -> None:
        self._task = task
        self._body = body
        self._context = context
        self._watching: asyncio.Task[None] | None = None
        self._timer = task.get_loop().call_later(_WATCH_AFTER_SECONDS, self._start)

    def stop(self) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _start(self) -> None:
        loop = self._task.get_loop()
        if self._body.whole:
            self._watching = loop.create_task(self._wait())
        else:  # the face is still reading the body, and there can be only one reader
            self._timer = loop.call_later(_WATCH_AFTER_SECONDS, self._start)

    async def _wait(self) -> None:
        await self._body.receive()  # after the whole body, the only message is the disconnect
        if not self._context.answered:  # servers send the same message after the response
            self._context.client_left = True
            self._task.cancel()
