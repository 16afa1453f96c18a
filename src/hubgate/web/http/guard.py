"""The outermost application: request id, key, bounded body, log line, metrics, and errors in the face's format."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache

from starlette.requests import ClientDisconnect

from hubgate.domain.batches import RowReply
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import CallerError, CapacityError, Cause, GatewayBusy, HubgateError, UnknownKey
from hubgate.domain.records import Key
from hubgate.service.keys.access import Access
from hubgate.service.metrics import Meter
from hubgate.service.usage import CANCELLED, Usage
from hubgate.web.http.access_log import log_request
from hubgate.web.http.asgi import JSON, AsgiApp, Message, Receive, Scope, Send, respond
from hubgate.web.http.body import EXCESS, ON_DISCONNECT, Body, BodyMemory
from hubgate.web.http.errors import error_response
from hubgate.web.http.face import Face, FaceFinder, is_hugging_face_client
from hubgate.web.http.hints import HIDDEN_PATH, add_hint
from hubgate.web.http.request_context import RequestContext

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
XINFERENCE_AUTH = "/v1/cluster/auth"
"""Where Xinference's clients ask whether a key is required."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{1,128}")
_NOT_CACHED = re.compile(rb"no-(cache|store)", re.IGNORECASE)
_KEYED_PATH = re.compile(r"/+k/+(?P<key>[^/]*)(?P<rest>/.*)?", re.DOTALL)
# What looks like a gateway key or an access token. No endpoint name matches it.
_KEY_LIKE = re.compile(r"hg_[0-9a-f]{8}_[A-Za-z0-9_\-]{40,}|hf_[A-Za-z0-9]{30,}")
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
        usage: Usage,
        *,
        visible: Callable[[Callable[[str], bool]], Sequence[Endpoint]],
        max_body_bytes: int,
        max_total_body_bytes: int,
        keys_in_path: bool,
    ) -> None:
        self._app = app
        self._face_of = FaceFinder(faces).find
        self._access = access
        self._meter = meter
        self._usage = usage
        self._visible = visible
        self._max_body_bytes = max_body_bytes
        self._body_memory = BodyMemory(max_total_body_bytes)
        self._keys_in_path = keys_in_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _refuse_protocol(scope, send)
            return
        headers = dict(scope["headers"])
        request_id, client = headers.get(b"x-request-id", b""), scope.get("client")
        started, path = time.monotonic(), self._take_key_from_path(scope, headers)
        context = RequestContext(
            request_id.decode() if request_id and _REQUEST_ID.fullmatch(request_id) else _new_id(),
            started,
            self._face_of(path, is_hugging_face_client(headers)),
            client=_address(client[0]) if client else "-",
            cached=b"cache-control" not in headers or not _NOT_CACHED.search(headers[b"cache-control"]),
            bulk=headers.get(b"x-hubgate-class", b"").strip().lower() == b"bulk",
            wake=b"x-hubgate-wake" in headers and headers[b"x-hubgate-wake"].strip().lower() == b"true",
        )
        scope["hubgate.context"] = context
        length = headers.get(b"content-length", b"")
        body = Body(scope, receive, length, self._max_body_bytes, self._body_memory)
        response = _Response(send, context, body, headers)
        self._meter.started()
        try:
            await self._serve(scope, headers, body, response)
        finally:
            body.release()
            self._meter.ended()
            self._record(scope["method"], path, context)

    async def _serve(
        self, scope: Scope, headers: dict[bytes, bytes], body: Body, response: _Response
    ) -> None:
        context = response.context
        try:
            _check_host(scope, headers)
            if EXCESS in scope:
                _refuse_excess(scope)
            if not _is_open(scope, headers):
                context.key = self._access.authenticate(_authorization(headers))
            scope[ON_DISCONNECT] = _Cancelling(body, context)
            try:
                await self._app(scope, body, response)
            finally:
                del scope[ON_DISCONNECT]
        except UnknownKey as error:
            authorization = _authorization(headers)
            context.record_refused_key(authorization)
            refusal = await self._access.count_wrong_key(error, authorization, context.client)
            await _send_error(response, add_hint(refusal, scope, headers, self._visible))
        except HubgateError as error:
            if context.key is None:
                context.record_refused_key(_authorization(headers))
            await _send_error(response, add_hint(error, scope, headers, self._visible))
        except ClientDisconnect:
            context.client_left = True
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not context.client_left or (task and task.uncancel()):  # the drain period of a stop is over
                await _send_error(response, _stopping())
        except Exception:  # noqa: BLE001 - no client may see a traceback
            await self._fail(response)

    async def call(self, key: Key, path: str, body: bytes, request_id: str) -> RowReply:
        """Serve a POST of the gateway itself, in the class `bulk`, as if a client had sent it: see `RowCaller`."""
        face = self._face_of(path)
        context = RequestContext(request_id, time.monotonic(), face, client="batch", key=key, bulk=True)
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
        response = _Response(collected.send, context, None, {})
        self._meter.started()
        try:
            await self._app(scope, collected.receive, response)
        except HubgateError as error:
            await _send_error(response, error)
        except Exception:  # noqa: BLE001 - the batch goes on
            await self._fail(response)
        finally:
            self._meter.ended()
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

    def _take_key_from_path(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Accept `/k/{key}/…`, for clients that cannot send a key in a header.

        The key, and anything else that looks like one, is removed from the path, so that no log or error shows it.
        """
        path: str = scope["path"]
        while "/k/" in path and (keyed := _KEYED_PATH.fullmatch(path)):
            if not self._keys_in_path:
                path = HIDDEN_PATH
                break
            headers[b"authorization"] = b"Bearer " + keyed["key"].encode()
            path = keyed["rest"] or "/"
        if "hg_" in path or "hf_" in path:
            path = _KEY_LIKE.sub("***", path)
        if path != scope["path"]:
            scope["path"] = path
            scope["raw_path"] = path.encode()
        return path

    def _record(self, method: str, path: str, context: RequestContext) -> None:
        now = time.monotonic()
        seconds = now - context.started
        if context.client_left:
            context.cause = CANCELLED
        if context.is_call:
            self._count(context, seconds, now)
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

    def _count(self, context: RequestContext, seconds: float, now: float) -> None:
        """Count a call in the endpoint's usage and towards the key's limit."""
        key = context.key
        if key is not None:
            self._access.limits.spend(key, context.tokens, now)
        self._usage.count(
            context.endpoint,
            key.id if key else "",
            context.cause,
            bulk=context.is_bulk,
            seconds=seconds,
            texts=context.texts,
            prompt_tokens=context.tokens - context.completion_tokens,
            completion_tokens=context.completion_tokens,
            waited=context.waited,
        )


class _Cancelling:
    """Cancels this task when the client disconnects, unless the face is still reading the body: it receives that."""

    __slots__ = ("_body", "_context", "_task")

    def __init__(self, body: Body, context: RequestContext) -> None:
        self._body = body
        self._context = context
        self._task = asyncio.current_task()

    def __call__(self) -> None:
        if self._body.whole and self._task is not None:
            self._context.client_left = True
            self._task.cancel()


class _Response:
    """A `send` that adds headers to each response and notes its status.

    Before an error response, the rest of the body may be read: see `Body.drain`.
    """

    __slots__ = ("_body", "_headers", "_send", "context")

    def __init__(
        self, send: Send, context: RequestContext, body: Body | None, headers: Mapping[bytes, bytes]
    ) -> None:
        self._send = send
        self._body = body
        self._headers = headers
        self.context = context

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            if message["status"] >= 400 and self._body is not None:
                return self._send_drained(self._body, message)
            self._add_headers(message)
        return self._send(message)

    async def _send_drained(self, body: Body, message: Message) -> None:
        await body.drain(self._headers)
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
        )


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


def _is_open(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether no key is required: for health checks, the start page, and the console, which has sessions.

    Xinference's clients send their key only after a reply that says that one is required.
    """
    path: str = scope["path"]
    if path in OPEN_PATHS or path in (XINFERENCE_AUTH, "/ui") or path.startswith("/ui/"):
        return True
    return path == "/" and scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")


def _refuse_excess(scope: Scope) -> None:
    """Refuse a request on a connection beyond the maximum.

    Health checks are served: if one failed, an orchestrator would restart a gateway that is only busy.

    Raises:
        GatewayBusy: it is not a health check.
    """
    if scope["path"] in OPEN_PATHS:
        return
    raise GatewayBusy(
        "The maximum number of connections is reached.",
        remedy="Retry in a moment, keep connections open between requests, "
        "or ask the operator to raise HUBGATE_MAX_CONNECTIONS.",
        retry_after=1.0,
    )


def _stopping() -> CapacityError:
    return CapacityError(
        "hubgate is shutting down.", remedy="Retry in a moment.", cause=Cause.GATE_STOPPING, retry_after=1.0
    )


def _authorization(headers: dict[bytes, bytes]) -> str | None:
    value = headers.get(b"authorization")
    return None if value is None else value.decode("latin-1")


def _new_id() -> str:
    """Unique, not secret: `secrets` would make a system call for each request."""
    return f"{random.getrandbits(64):016x}"


@lru_cache(maxsize=1024)
def _address(client: str) -> str:
    return client if _ADDRESS.fullmatch(client) else "-"


def _check_host(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Require exactly one `Host` header (RFC 9112, section 3.2); HTTP/1.0 may have none.

    Raises:
        CallerError: it is missing or repeated.
    """
    if b"host" in headers:
        if (
            len(headers) == len(scope["headers"])
            or [name for name, _ in scope["headers"]].count(b"host") == 1
        ):
            return
        fault = "The request has more than one Host header."
    elif scope.get("http_version") == "1.1":
        fault = "The request has no Host header."
    else:
        return
    raise CallerError(fault, remedy="Send exactly one.", cause=Cause.INVALID_REQUEST)


async def _refuse_protocol(scope: Scope, send: Send) -> None:
    """Close WebSockets, as only HTTP is served. For `lifespan`, an exception means that it is not supported."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await send({"type": "websocket.close"})
