"""The outermost application: request id, key, bounded body, log line, metrics, and errors in the face's format."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from starlette.requests import ClientDisconnect

from hubgate.core.byte_budget import ByteBudget
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import CallerError, Cause, GatewayBusy, HubgateError, UnknownKey
from hubgate.domain.records import CANCELLED, Key
from hubgate.service.keys.access import Access
from hubgate.service.metrics import Meter
from hubgate.web.http.access_log import log_request
from hubgate.web.http.asgi import (
    JSON,
    AsgiApp,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    render_headers,
    respond,
    send_in_parts,
)
from hubgate.web.http.body import EXCESS, ON_DISCONNECT, Body, BodyMemory
from hubgate.web.http.errors import error_response, stopping
from hubgate.web.http.face import Face, FaceFinder
from hubgate.web.http.head import HEAD, OPEN_PATHS, Head, read_head
from hubgate.web.http.hints import add_hint
from hubgate.web.http.internal import RowReply
from hubgate.web.http.request_context import OnFinished, RequestContext, origin_headers

# A trusted proxy may still pass on a forged address.
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\-]{1,64}")
# Elasticsearch's clients require `X-Elastic-Product`.
_RESPONSE_HEADERS = (
    (b"x-elastic-product", b"Elasticsearch"),
    (b"x-content-type-options", b"nosniff"),
)

_log = logging.getLogger("hubgate.access")


class Guard:
    def __init__(
        self,
        app: AsgiApp,
        faces: Sequence[Face],
        access: Access,
        meter: Meter,
        *,
        visible: Callable[[Callable[[str], bool]], Sequence[Endpoint]],
        max_body_bytes: int,
        max_total_body_bytes: int,
        keys_in_path: bool,
        replies: ByteBudget | None = None,
        finished: Sequence[OnFinished] = (),
    ) -> None:
        self._app = app
        self._replies = replies
        self._face_of = FaceFinder(faces).find
        self._access = access
        self._meter = meter
        self._finished = finished
        self._visible = visible
        self._max_body_bytes = max_body_bytes
        self._body_memory = BodyMemory(max_total_body_bytes)
        self._keys_in_path = keys_in_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _refuse_protocol(scope, send)
            return
        head: Head = scope.get(HEAD) or read_head(scope, self._face_of, keys_in_path=self._keys_in_path)
        client = scope.get("client")
        context = scope["hubgate.context"] = RequestContext(
            head.request_id or _new_id(),
            time.monotonic(),
            head.face,
            client=_address(client[0]) if client else "-",
            cached=head.cached,
            bulk=head.bulk,
            head=head,
            replies=self._replies,
        )
        body = Body(scope, receive, head.length, self._max_body_bytes, self._body_memory)
        response = _Response(send, context, body)
        self._meter.in_flight += 1
        try:
            if head.fault or EXCESS in scope:
                _refuse(scope, head)
            if not head.is_open:
                known = self._access.accept_known(head.credentials, context.started)
                context.key = known or await self._access.accept_new(head.credentials, context.client)
            response.task = getattr(send, "task", None) or asyncio.current_task()
            scope[ON_DISCONNECT] = response.cancel
            try:
                await self._app(scope, body, response)
            finally:
                del scope[ON_DISCONNECT]
        except HubgateError as error:
            await self._send_refusal(response, error, scope)
        except ClientDisconnect:
            context.client_left = True
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not context.client_left or (task and task.uncancel()):  # the drain period of a stop is over
                await _send_error(response, stopping())
        except Exception:  # noqa: BLE001 - no client may see a traceback
            await self._fail(response)
        finally:
            body.release()
            self._meter.in_flight -= 1
            self._record(scope["method"], head.path, context)
            if context.reserved:
                await _release_when_sent(send, context)

    async def _send_refusal(self, response: _Response, error: HubgateError, scope: Scope) -> None:
        context = response.context
        credentials = context.head.credentials if context.head else None
        if context.key is None:
            context.record_refused_key(credentials)
        if isinstance(error, UnknownKey):
            claimed_id = credentials.claimed_id if credentials else ""
            error = await self._access.count_wrong_key(error, claimed_id, context.client)
        await _send_error(response, add_hint(error, scope, self._visible))

    async def call(self, key: Key, path: str, body: bytes, request_id: str) -> RowReply:
        """Serve a POST of the gateway itself, in the class `bulk`, as if a client had sent it: see `RowCaller`."""
        face = self._face_of(path)
        context = RequestContext(request_id, time.monotonic(), face, client="batch", key=key, bulk=True)
        context.replies = self._replies
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", JSON)],
            "hubgate.context": context,
        }
        collected = _Collected(body)
        response = _Response(collected.send, context, None)
        self._meter.in_flight += 1
        try:
            await self._app(scope, collected.receive, response)
        except HubgateError as error:
            await _send_error(response, error)
        except Exception:  # noqa: BLE001 - the batch goes on
            await self._fail(response)
        except BaseException:
            context.release_reply()
            raise
        finally:
            self._meter.in_flight -= 1
            self._record("POST", path, context)
        return collected.reply(context)

    async def _fail(self, response: _Response) -> None:
        request_id = response.context.request_id
        _log.exception("request %s failed", request_id)
        internal = HubgateError(
            "Internal error.",
            remedy=f"See request id {request_id} in hubgate's log.",
        )
        await _send_error(response, internal)

    def _record(self, method: str, path: str, context: RequestContext) -> None:
        """Count a request, and a call also towards the key's limit."""
        now = time.monotonic()
        seconds = now - context.started
        if context.client_left:
            context.cause = CANCELLED
        key = context.key
        if context.is_call:
            if key is not None and key.tokens_per_minute is not None:
                self._access.limits.spend(key, context.tokens, now)
            for note in self._finished:
                note(context, seconds)
        self._meter.observe(
            context.face.name,
            context.endpoint,
            context.cause,
            seconds=seconds,
            texts=context.texts,
            tokens=context.tokens,
            truncated=context.truncated,
            waited=context.waited,
        )
        log_request(method, path, context, seconds)


class _Response:
    """A `send` that adds headers to each response and notes its status.

    Before an error response, the rest of the body may be read: see `Body.drain`.
    """

    __slots__ = ("_body", "_send", "context", "task")

    def __init__(self, send: Send, context: RequestContext, body: Body | None) -> None:
        self._send = send
        self._body = body
        self.context = context
        self.task: asyncio.Task[None] | None = None
        """What answers the request."""

    def cancel(self) -> None:
        """The client has left: cancel the task, unless the face is still reading the body, which receives that."""
        if self._body is not None and self._body.whole and self.task is not None:
            self.context.client_left = True
            self.task.cancel()

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            if message["status"] >= 400 and self._body is not None:
                return self._send_drained(self._body, message)
            self._add_headers(message)
        return self._send(message)

    def respond(self, status: int, body: bytes, content_type: bytes, headers: Headers) -> Awaitable[None]:
        """Send a whole response: see `asgi.respond`."""
        send_whole = getattr(self._send, "send_whole", None)
        if send_whole is None or status >= 400:
            return send_in_parts(self, status, body, content_type, headers)
        context = self.context
        context.status = status
        origin = context.origin
        lines = b"content-length: %d\r\nx-request-id: %b\r\n%b%b" % (
            len(body),
            context.request_id.encode(),
            _repeated_lines(content_type, origin.endpoint, origin.model, context.face.headers),
            render_headers(headers) if headers else b"",
        )
        response: Awaitable[None] = send_whole(status, lines, body)
        return response

    async def _send_drained(self, body: Body, message: Message) -> None:
        await body.drain()
        self._add_headers(message)
        await self._send(message)

    def _add_headers(self, message: Message) -> None:
        self.context.status = message["status"]
        message["headers"] = [
            *message.get("headers", ()),
            (b"x-request-id", self.context.request_id.encode()),
            *_RESPONSE_HEADERS,
            *self.context.origin_headers,
            *self.context.face.headers,
        ]


@lru_cache(maxsize=1024)
def _repeated_lines(
    content_type: bytes, endpoint: str, model: str | None, face_headers: tuple[tuple[bytes, bytes], ...]
) -> bytes:
    """The headers that all responses of an endpoint have."""
    content = (b"content-type", content_type)
    return render_headers((content, *_RESPONSE_HEADERS, *origin_headers(endpoint, model), *face_headers))


class _Collected:
    """A request of the gateway itself, and its response in memory."""

    __slots__ = ("_body", "_headers", "_parts")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._headers = dict(message["headers"])
        else:
            self._parts.append(message.get("body", b""))

    def reply(self, context: RequestContext) -> RowReply:
        wait = self._headers.get(b"retry-after")
        return RowReply(
            status=context.status,
            body=b"".join(self._parts),
            cause=context.cause,
            retry_after=float(wait) if wait else None,
            release=context.release_reply,
        )


async def _release_when_sent(send: Send, context: RequestContext) -> None:
    """Give back the memory of a reply once the client has read it, or has left."""
    try:
        flush = getattr(send, "flush", None)
        if flush is not None:
            await flush()
    finally:
        context.release_reply()


async def _send_error(response: _Response, error: HubgateError) -> None:
    """Respond with an error, unless a response has begun.

    A separate function, so that no variable of the caller holds the error: its traceback holds the caller's frame, and
    the cycle would keep both alive until the garbage collector runs.
    """
    context = response.context
    context.cause = error.cause
    if not context.status:
        rendered = error_response(context.render_error, error)
        await respond(response, rendered.status, rendered.body, headers=rendered.headers)


def _refuse(scope: Scope, head: Head) -> None:
    """Refuse a request with a fault in its head, or on a connection beyond the maximum.

    Health checks are served: if one failed, an orchestrator would restart a gateway that is only busy.

    Raises:
        CallerError: the head has a fault.
        GatewayBusy: there are too many connections, and it is not a health check.
    """
    if head.fault:
        raise CallerError(head.fault, remedy="Send exactly one.", cause=Cause.INVALID_REQUEST)
    if head.path not in OPEN_PATHS:
        raise GatewayBusy(
            "The maximum number of connections is reached.",
            remedy="Retry in a moment, keep connections open between requests, "
            "or ask the operator to raise HUBGATE_MAX_CONNECTIONS.",
            retry_after=1.0,
        )


def _new_id() -> str:
    """Unique, not secret: `secrets` would make a system call for each request."""
    return random.getrandbits(64).to_bytes(8).hex()


@lru_cache(maxsize=1024)
def _address(client: str) -> str:
    return client if _ADDRESS.fullmatch(client) else "-"


async def _refuse_protocol(scope: Scope, send: Send) -> None:
    """Close WebSockets, as only HTTP is served. For `lifespan`, an exception means that it is not supported."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await send({"type": "websocket.close"})
