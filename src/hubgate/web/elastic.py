"""The Elasticsearch face: the `_inference` API with the service `hugging_face`. Its contract stands in elastic.md."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NoReturn

from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import Encoding
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import CapacityError, HubgateError, NotPermitted, RuntimeFailed, UpstreamError
from hubgate.web.asgi import read_body, respond
from hubgate.web.elastic_forms import read_endpoint, read_inference, read_update
from hubgate.web.elastic_problems import ChatError, CreationFailed, about_call, refusal
from hubgate.web.elastic_request import Asked, task_named
from hubgate.web.elastic_settings import SERVICE
from hubgate.web.elastic_shapes import chunks_body, embeddings_body, endpoint_object, service_objects
from hubgate.web.embedding import embed, embed_in_chunks, headers_of
from hubgate.web.problems import problem, status_of
from hubgate.web.ticket import need_admin, ticket_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from hubgate.domain.calls import Vectors
    from hubgate.domain.endpoint import Endpoint
    from hubgate.service.gateway import Gateway
    from hubgate.web.asgi import Receive, Scope, Send
    from hubgate.web.ticket import Ticket

_ALL = frozenset({"_all", "*"})
# What fails while an endpoint is put to the proof, as opposed to what is wrong with its settings.
_PROOF_FAILED = (UpstreamError, CapacityError, RuntimeFailed)


class Elastic:
    """The verbs of `_inference`. `infer` is plain ASGI, for it must be fast; the others are Starlette's endpoints."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def infer(
        self, scope: Scope, receive: Receive, send: Send, *, task: str | None, name: str, stream: bool
    ) -> None:
        """`POST /_inference/{task}?/{name}`, and `/_stream` after it."""
        try:
            if stream:
                self._refuse_stream(scope, task, name)
            await self._embed(scope, receive, send, task, name)
        except HubgateError as error:
            told = ChatError(error, status_of(error)) if task == Task.CHAT_COMPLETION else error
            if not stream:
                raise told from None
            await _send_as_event(send, ticket_of(scope), told)

    async def get_all(self, request: Request) -> Response:
        """Every endpoint that the key may call, or those of a task type."""
        asked, task = Asked(request.scope), task_named(request.path_params.get("task"))
        may_call = ticket_of(request.scope).may_call
        found = [e for e in self._gateway.endpoints() if task in (None, e.task) and may_call(e.name)]
        return asked.response({"endpoints": [endpoint_object(e) for e in found]})

    async def get(self, request: Request) -> Response:
        """One endpoint, in a list."""
        name = request.path_params["name"]
        if name in _ALL:
            return await self.get_all(request)
        asked = Asked(request.scope)
        endpoint = self._find(name, request.path_params.get("task"))
        ticket_of(request.scope).endpoint = name
        return asked.response({"endpoints": [endpoint_object(endpoint)]})

    async def put(self, request: Request) -> Response:
        """Register an endpoint: it is called before it is stored."""
        _need_privilege(request, "put")
        asked, name = Asked(request.scope, "timeout"), request.path_params["name"]
        draft, token = read_endpoint(name, request.path_params.get("task"), await request.body())
        timeout = asked.timeout()
        try:
            endpoint = await self._gateway.register(draft, token, within=timeout.seconds)
        except _PROOF_FAILED as error:
            raise CreationFailed(about_call(error, name, timeout.text)) from error
        return _registered(asked, endpoint)

    async def update(self, request: Request) -> Response:
        """Change an endpoint's token, allowance or token limit: it is called before the change is stored."""
        _need_privilege(request, "update")
        asked, name = Asked(request.scope, "timeout"), request.path_params["name"]
        changed, token = read_update(
            self._gateway.find(name), request.path_params.get("task"), await request.body()
        )
        timeout = asked.timeout()
        try:
            endpoint = await self._gateway.update(changed, token, within=timeout.seconds)
        except _PROOF_FAILED as error:
            raise CreationFailed(about_call(error, name, timeout.text)) from error
        return _registered(asked, endpoint)

    async def delete(self, request: Request) -> Response:
        """Forget an endpoint. No index or pipeline can use one here, so `force` has nothing to overcome."""
        _need_privilege(request, "delete")
        asked, name = Asked(request.scope, "dry_run", "force"), request.path_params["name"]
        asked.flag("force")
        acknowledged = not asked.flag("dry_run")
        self._find(name, request.path_params.get("task"))
        if acknowledged:
            await self._gateway.remove(name)
        return asked.response({"acknowledged": acknowledged, "pipelines": [], "indexes": []})

    async def services(self, request: Request) -> Response:
        """What can be registered, and with which settings."""
        asked = Asked(request.scope)
        return asked.response(service_objects(task_named(request.path_params.get("task"))))

    async def _embed(self, scope: Scope, receive: Receive, send: Send, task: str | None, name: str) -> None:
        ticket = ticket_of(scope)
        asked = Asked(scope, "timeout")
        endpoint = self._called(ticket, name, task)
        form = read_inference(await read_body(receive))
        timeout = asked.timeout(form.timeout)
        default = ticket.key.input_type if ticket.key else None
        call = form.embed(ticket.context(time.monotonic() + timeout.seconds), default)
        try:
            if form.chunking_settings is None:
                vectors = in_encoding(await embed(self._gateway, ticket, name, call), Encoding.JSON)
                body, warnings = embeddings_body(vectors.items), _warnings(vectors)
            else:
                chunked = await embed_in_chunks(self._gateway, ticket, endpoint, call, form.chunking_settings)
                body, warnings = await asyncio.to_thread(chunks_body, chunked.items), chunked.warnings
                vectors = chunked.vectors
        except HubgateError as error:
            raise about_call(error, name, timeout.text) from error
        if form.task_settings:
            warnings = (*warnings, "task_settings were ignored: an embedding model of this service has none.")
        headers = [*headers_of(vectors), *map(_warning, warnings)]
        await respond(send, 200, asked.spelled(body), asked.media_type, headers)

    def _refuse_stream(self, scope: Scope, task: str | None, name: str) -> NoReturn:
        Asked(scope, "timeout")
        endpoint = self._called(ticket_of(scope), name, task)
        raise refusal(
            f"Streaming is not allowed for service [{SERVICE}] and task [{endpoint.task}]. "
            f"Supported tasks: [{Task.COMPLETION},{Task.CHAT_COMPLETION}]",
            status=405,
        )

    def _called(self, ticket: Ticket, name: str, task: str | None) -> Endpoint:
        wanted, endpoint = task_named(task), self._gateway.find(name)
        ticket.endpoint = name
        if wanted not in (None, endpoint.task):
            raise refusal(
                f"Incompatible task_type, the requested type [{wanted}] does not match the model type [{endpoint.task}]"
            )
        return endpoint

    def _find(self, name: str, task: str | None) -> Endpoint:
        wanted, endpoint = task_named(task), self._gateway.find(name)
        if wanted not in (None, endpoint.task):
            raise refusal(
                f"Requested task type [{wanted}] does not match the inference endpoint's task type [{endpoint.task}]"
            )
        return endpoint


async def _send_as_event(send: Send, ticket: Ticket, error: HubgateError) -> None:
    """An error as Elasticsearch tells it where a stream was asked for: one event, with the error's own status."""
    ticket.cause = error.cause
    told = problem("elastic", error)
    body = b"event: error\ndata: " + told.body + b"\n\n"
    await respond(send, told.status, body, b"text/event-stream", told.headers)


def _registered(asked: Asked, endpoint: Endpoint) -> Response:
    """The endpoint, and in headers what its operator should know."""
    response = asked.response(endpoint_object(endpoint))
    response.raw_headers += map(_warning, endpoint.facts.warnings)
    return response


def _need_privilege(request: Request, verb: str) -> None:
    try:
        need_admin(request.scope)
    except NotPermitted as error:
        raise NotPermitted(
            f"action [cluster:admin/xpack/inference/{verb}] is unauthorized for this API key, this action is granted "
            "by the cluster privileges [manage_inference,manage,all].",
            remedy=str(error),
        ) from None


def _warnings(vectors: Vectors) -> tuple[str, ...]:
    if not vectors.truncated:
        return vectors.warnings
    cut = (
        f"{vectors.truncated} of {len(vectors.items)} inputs were longer than the model reads, and were cut."
    )
    return (*vectors.warnings, cut)


def _warning(text: str) -> tuple[bytes, bytes]:
    """The header that Elasticsearch's clients show to their user."""
    quoted = text.replace('"', "'").replace("\\", "/")
    return b"warning", b'299 hubgate "' + quoted.encode("ascii", "replace") + b'"'
