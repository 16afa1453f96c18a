"""What every request passes: its id, its key, the bound on its body, its log line; and every error, told in its dialect."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import quote

from starlette.requests import ClientDisconnect

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import CallerError, CapacityError, Cause, GatewayBusy, HubgateError
from hubgate.service.keys.access import Access
from hubgate.service.metrics import Meter
from hubgate.service.usage import CANCELLED, Usage
from hubgate.web.http.asgi import AsgiApp, Message, Receive, Scope, Send, respond
from hubgate.web.http.body import EXCESS, Body, BodyMemory, closes, until_client_leaves
from hubgate.web.http.errors import error_response
from hubgate.web.http.face import Face, face_of
from hubgate.web.http.hints import UNREAD, add_hint
from hubgate.web.http.request_context import RequestContext

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{1,128}")
_NOT_CACHED = re.compile(rb"no-(cache|store)", re.IGNORECASE)
_KEYED_PATH = re.compile(r"/+k/+(?P<key>[^/]*)(?P<rest>/.*)?", re.DOTALL)
# No name of an endpoint looks like this.
_LIKE_A_KEY = re.compile(r"hg_[0-9a-f]{8}_[A-Za-z0-9_\-]{40,}|hf_[A-Za-z0-9]{30,}")
_SHOWN_LENGTH = 200
# Printable ASCII without what separates or quotes the fields of a log line.
_ONE_WORD = re.compile(r"[!#$&-<>-~]+")
_NO_NEED_TO_QUOTE = "/:@!$&'()*+,;"
# A proxy that is trusted may still pass on whatever its client claims.
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\-]{1,64}")
_ON_EVERY_ANSWER = (
    (b"x-elastic-product", b"Elasticsearch"),
    (b"x-content-type-options", b"nosniff"),
)

_log = logging.getLogger("hubgate.access")


class Guard:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: AsgiApp,
        faces: Sequence[Face],
        access: Access,
        meter: Meter,
        usage: Usage,
        *,
        endpoints: Callable[[], Sequence[Endpoint]],
        max_body_bytes: int,
        max_total_body_bytes: int,
        keys_in_path: bool,
    ) -> None:
        self._app = app
        self._faces = faces
        self._access = access
        self._meter = meter
        self._usage = usage
        self._endpoints = endpoints
        self._max_body_bytes = max_body_bytes
        self._body_memory = BodyMemory(max_total_body_bytes)
        self._keys_in_path = keys_in_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _refuse(scope, send)
            return
        headers = dict(scope["headers"])
        given, client = headers.get(b"x-request-id", b""), scope.get("client")
        context = RequestContext(
            given.decode() if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8),
            time.monotonic(),
            client=_address(client[0]) if client else "-",
            cached=b"cache-control" not in headers or not _NOT_CACHED.search(headers[b"cache-control"]),
            bulk=headers.get(b"x-hubgate-class", b"").strip().lower() == b"bulk",
        )
        scope["hubgate.context"] = context
        path = self._take_key_from_path(scope, headers)
        context.set_face(face_of(path, headers, self._faces))
        length = headers.get(b"content-length", b"")
        body = Body(scope, receive, length, self._max_body_bytes, self._body_memory)
        answer = _Answer(send, context, body if closes(scope, headers) else None)
        self._meter.started()
        try:
            await self._serve(scope, headers, body, answer)
        finally:
            body.release()
            self._meter.ended()
            self._write_down(scope["method"], path, context)

    async def _serve(self, scope: Scope, headers: dict[bytes, bytes], body: Body, answer: _Answer) -> None:
        context = answer.context
        try:
            _check_host(scope, headers)
            if EXCESS in scope:
                _refuse_excess(scope)
            if not _is_open(scope, headers):
                context.key = self._access.authenticate(_authorization(headers), context.client)
            await until_client_leaves(self._app(scope, body, answer), body, context)
        except HubgateError as error:
            if context.key is None:
                context.record_refused_key(_authorization(headers))
            await _tell(answer, add_hint(error, scope, headers, self._endpoints))
        except ClientDisconnect:
            context.client_left = True
        except asyncio.CancelledError:  # the gate stops, and waits no longer
            await _tell(answer, _stopping())
        except Exception:  # noqa: BLE001 - no client may see a traceback, whatever the mistake is
            _log.exception("request %s failed", context.request_id)
            mistake = HubgateError(
                "The gate made a mistake.",
                remedy=f"Its log tells more under request id {context.request_id}.",
            )
            await _tell(answer, mistake)

    def _take_key_from_path(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """`/k/{key}/…`, for clients that drop their key.

        The path goes on without it, and without whatever else looks like a key: so no log and no error can show one.
        """
        path: str = scope["path"]
        while "/k/" in path and (keyed := _KEYED_PATH.fullmatch(path)):
            if not self._keys_in_path:
                path = UNREAD
                break
            headers[b"authorization"] = b"Bearer " + keyed["key"].encode()
            path = keyed["rest"] or "/"
        if "hg_" in path or "hf_" in path:
            path = _LIKE_A_KEY.sub("***", path)
        if path != scope["path"]:
            scope["path"] = path
            scope["raw_path"] = path.encode()
        return path

    def _write_down(self, method: str, path: str, context: RequestContext) -> None:
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
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "%s %s %d %.1fms id=%s client=%s key=%s endpoint=%s texts=%d cause=%s",
                method,
                _as_one_word(path[:_SHOWN_LENGTH]),
                context.status,
                seconds * 1000,
                context.request_id,
                context.client,
                context.key.id if context.key else context.refused_key,
                context.endpoint or "-",
                context.texts,
                context.cause,
            )

    def _count(self, context: RequestContext, seconds: float, now: float) -> None:
        """Count a call: in the use of its endpoint, and against its key's limit."""
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


class _Answer:
    """`send` that marks each answer with its request id, and remembers that it has begun.

    An error waits for the rest of `closing`, the body of a request whose connection ends with the answer.
    """

    __slots__ = ("_closing", "_send", "context")

    def __init__(self, send: Send, context: RequestContext, closing: Body | None) -> None:
        self._send = send
        self._closing = closing
        self.context = context

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._closing is not None and message["status"] >= 400:
                await self._closing.drain()
            self.context.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.context.request_id.encode()),
                *_ON_EVERY_ANSWER,
                *self.context.face.headers,
            ]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.context.answered = True


async def _tell(answer: _Answer, error: HubgateError) -> None:
    """Answer with an error, unless another answer has begun.

    A variable of a caller would hold the error, whose traceback holds that caller, until the garbage collector comes.
    """
    context = answer.context
    context.cause = error.cause
    if not context.status:
        told = error_response(context.render_error, error)
        await respond(answer, told.status, told.body, headers=told.headers)


def _is_open(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether no key is needed: the probes, the start page, and the console, which knows its visitors by a cookie."""
    path: str = scope["path"]
    if path in OPEN_PATHS or path == "/ui" or path.startswith("/ui/"):
        return True
    return path == "/" and scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")


def _refuse_excess(scope: Scope) -> None:
    """Refuse a connection that is one too many. Probes are answered: a restart would only send everybody away.

    Raises:
        GatewayBusy: it asks for anything else.
    """
    if scope["path"] in OPEN_PATHS:
        return
    raise GatewayBusy(
        "The gateway has as many connections as it may have.",
        remedy="Retry in a moment, keep connections open between requests, "
        "or let the operator raise HUBGATE_MAX_CONNECTIONS.",
        retry_after=1.0,
    )


def _stopping() -> CapacityError:
    return CapacityError(
        "The gate stops.", remedy="Ask again when it runs.", cause=Cause.GATE_STOPPING, retry_after=1.0
    )


def _authorization(headers: dict[bytes, bytes]) -> str | None:
    value = headers.get(b"authorization")
    return None if value is None else value.decode("latin-1")


@lru_cache(maxsize=1024)
def _as_one_word(path: str) -> str:
    """The path percent-encoded where it could be taken for another field of its log line."""
    return path if _ONE_WORD.fullmatch(path) else quote(path, _NO_NEED_TO_QUOTE, errors="replace") or "-"


@lru_cache(maxsize=1024)
def _address(claimed: str) -> str:
    return claimed if _ADDRESS.fullmatch(claimed) else "-"


def _check_host(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Require one `Host`, as RFC 9112 does (section 3.2).

    Raises:
        CallerError: there is none, or more than one.
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


async def _refuse(scope: Scope, send: Send) -> None:
    """Nothing but HTTP is served. A server may ask for a lifespan, and takes an exception for a no."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await send({"type": "websocket.close"})
