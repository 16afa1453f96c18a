"""The request body, bounded."""

from __future__ import annotations

import asyncio
import contextlib

from hubgate.domain.errors import BodyTooLarge, BodyTooSlow, CallerError, Cause, GatewayBusy, HubgateError
from hubgate.web.http.asgi import Message, Receive, Scope
from hubgate.web.http.request_context import context_of

_DRAIN_SECONDS = 5.0
_KEYED_DRAIN_SECONDS = 60.0
"""For a caller with a key: 40 of them that send 31 MB each, over the memory for bodies, take longer than 5 seconds."""
_MAX_DRAINED_BYTES = 1 << 28
ANONYMOUS_BYTES = 8 * 1024
"""The largest body without a key: enough for the sign-in form."""
_SMALL_BYTES = 64 * 1024

EXCESS = "hubgate.excess"
"""In the scope: there are too many connections, and this one closes after its response."""
FAULT = "hubgate.body_fault"
"""In the scope: why the server stopped reading the body. `BROKEN` or `SLOW`."""
BROKEN, SLOW = "broken", "slow"
ARRIVED = "hubgate.arrived"
"""In the scope: the body, if all of it has arrived and `receive` has not returned any. Whoever takes it out has read it."""
ON_DISCONNECT = "hubgate.on_disconnect"
"""In the scope: what the server calls if the client disconnects before it has the whole response."""


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
        length: the value of `Content-Length`, or 0.
        max_bytes: the limit for a caller with a key.
        memory: shared by all requests.
    """

    __slots__ = ("_content_length", "_max_bytes", "_memory", "_read", "_scope", "_taken", "receive", "whole")

    def __init__(
        self, scope: Scope, receive: Receive, length: int, max_bytes: int, memory: BodyMemory
    ) -> None:
        self.receive = receive
        self.whole = False
        self._scope = scope
        self._content_length = length
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
        self._check(self._content_length)
        message = self._noted(await self.receive())
        if self.whole and FAULT in self._scope:
            raise _fault_error(self._scope[FAULT])
        self._check(self._read)
        return message

    def take_arrived(self) -> bytes | None:
        """The whole body, if it has arrived and nothing of it was received yet: most bodies come with their head.

        Raises:
            BodyTooLarge, GatewayBusy: as above.
        """
        body: bytes | None = self._scope.pop(ARRIVED, None)
        if body is not None:
            size = self._read = len(body)
            self.whole = True
            if size > ANONYMOUS_BYTES or size > self._max_bytes:
                self._check(size)
        return body

    def _check(self, size: int) -> None:
        """Reserve memory for a body of this size, unless it is written to disk."""
        context = context_of(self._scope)
        has_key, upload = context.key is not None, context.upload_bytes
        limit = upload or (self._max_bytes if has_key else min(self._max_bytes, ANONYMOUS_BYTES))
        if size <= limit:
            if upload is None and size > _SMALL_BYTES and size > self._taken:
                self._memory.take(size - self._taken)
                self._taken = size
            return
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
        """Read the rest before an error response, if the connection closes after it: else the response would be lost.

        Within bounds: many clients read no response before they have sent the whole request. A client that sent
        `Expect` is waiting for permission to send, and must not get it.
        """
        headers = dict(self._scope["headers"])
        closes = (
            self._scope.get("http_version") == "1.0"
            or b"close" in headers.get(b"connection", b"").lower()
            or EXCESS in self._scope
        )
        if not closes or b"expect" in headers:
            return
        seconds = _DRAIN_SECONDS if context_of(self._scope).key is None else _KEYED_DRAIN_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.whole and self._read < _MAX_DRAINED_BYTES:
                    self._noted(await self.receive())

    def _noted(self, message: Message) -> Message:
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
