"""The Elasticsearch face: the `_inference` API with the service `hugging_face`. See CONTRACT.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import HubgateError, NotPermitted
from hubgate.service.gateway import Gateway
from hubgate.web.elastic.endpoint_requests import read_endpoint, read_update
from hubgate.web.elastic.endpoint_responses import endpoint_object, service_objects
from hubgate.web.elastic.errors import (
    ChatError,
    CreationFailed,
    describe_call_error,
    render,
    status_exception,
)
from hubgate.web.elastic.generation import error_event
from hubgate.web.elastic.inference import handle_inference, handle_stream, warning_header
from hubgate.web.elastic.options import SERVED_TASKS, RequestOptions, parse_task
from hubgate.web.http.asgi import Scope, Send, read_json_body, respond
from hubgate.web.http.errors import CALL_FAILURES, error_response, status_of
from hubgate.web.http.face import Face, InferenceRoute, Services
from hubgate.web.http.request_context import RequestContext, context_of, need_admin
from hubgate.web.shared.exchange import Exchange

_ALL = frozenset({"_all", "*"})


class Elastic:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def infer(self, scope: Scope, body: bytes, send: Send, name: str, task: str | None = None) -> None:
        try:
            options = RequestOptions(scope, "timeout")
            exchange = self._exchange(scope, send, task, name)
            await handle_inference(exchange, options, body)
        except HubgateError as error:  # in no other variable: the traceback would keep it alive
            raise self._in_format_of_task(error, task, name, context_of(scope)) from None

    async def stream(self, scope: Scope, body: bytes, send: Send, name: str, task: str | None = None) -> None:
        try:
            options = RequestOptions(scope, "timeout")
            exchange = self._exchange(scope, send, task, name)
            await handle_stream(exchange, options, body)
        except HubgateError as error:
            await _send_stream_error(
                scope, send, self._in_format_of_task(error, task, name, context_of(scope))
            )

    async def get_all(self, request: Request) -> Response:
        """Every endpoint in the key's scope, or those of a task type."""
        options, task = RequestOptions(request.scope), parse_task(request.path_params.get("task"))
        context = context_of(request.scope)
        found = [
            e
            for e in self._gateway.visible(context.may_call)
            if task in (None, e.task) and e.task in SERVED_TASKS
        ]
        return options.response({"endpoints": [endpoint_object(e, full=context.is_admin) for e in found]})

    async def get(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name in _ALL:
            return await self.get_all(request)
        options = RequestOptions(request.scope)
        context = context_of(request.scope)
        endpoint = self._gateway.registry.resolve(name)
        context.use(endpoint, name)
        _check_task(endpoint, request.path_params.get("task"))
        named = endpoint if endpoint.name == name else replace(endpoint, name=name)
        return options.response({"endpoints": [endpoint_object(named, full=context.is_admin)]})

    async def put(self, request: Request) -> Response:
        _need_privilege(request, "put")
        options, name = RequestOptions(request.scope, "timeout"), request.path_params["name"]
        draft, token = read_endpoint(name, request.path_params.get("task"), await read_json_body(request))
        timeout = options.timeout(task=draft.task)
        try:
            endpoint = await self._gateway.registry.register(draft, token, within=timeout.seconds)
        except CALL_FAILURES as error:
            raise CreationFailed(describe_call_error(error, name, timeout.text)) from error
        return _registered(options, endpoint)

    async def update(self, request: Request) -> Response:
        _need_privilege(request, "update")
        options, name = RequestOptions(request.scope, "timeout"), request.path_params["name"]
        changed, token = read_update(
            self._gateway.registry.find(name), request.path_params.get("task"), await read_json_body(request)
        )
        timeout = options.timeout(task=changed.task)
        try:
            endpoint = await self._gateway.registry.update(changed, token, within=timeout.seconds)
        except CALL_FAILURES as error:
            raise CreationFailed(describe_call_error(error, name, timeout.text)) from error
        return _registered(options, endpoint)

    async def delete(self, request: Request) -> Response:
        """No index or pipeline can use an endpoint here, so `force` changes nothing."""
        _need_privilege(request, "delete")
        options, name = RequestOptions(request.scope, "dry_run", "force"), request.path_params["name"]
        options.flag("force")
        acknowledged = not options.flag("dry_run")
        _check_task(self._gateway.registry.find(name), request.path_params.get("task"))
        if acknowledged:
            await self._gateway.registry.remove(name)
        return options.response({"acknowledged": acknowledged, "pipelines": [], "indexes": []})

    async def services(self, request: Request) -> Response:
        options = RequestOptions(request.scope)
        return options.response(service_objects(parse_task(request.path_params.get("task"))))

    def _exchange(self, scope: Scope, send: Send, task: str | None, name: str) -> Exchange:
        context = context_of(scope)
        requested, endpoint = parse_task(task), self._gateway.registry.resolve(name)
        context.use(endpoint, name)
        if requested not in (None, endpoint.task):
            raise status_exception(
                f"Incompatible task_type, the requested type [{requested}] does not match the model type "
                f"[{endpoint.task}]"
            )
        input_type = context.key.input_type if context.key else None
        return Exchange(self._gateway, endpoint, context, send, input_type)

    def _in_format_of_task(
        self, error: HubgateError, task: str | None, name: str, context: RequestContext
    ) -> HubgateError:
        """chat_completion has an error format of its own; without a task in the path, the endpoint's task decides."""
        try:
            requested = parse_task(task)
            if requested is None:
                endpoint = self._gateway.registry.resolve(name)
                requested = endpoint.task if context.may_use(endpoint, name) else None
            chats = requested == Task.CHAT_COMPLETION
        except HubgateError:
            chats = False
        return ChatError(error, status_of(error)) if chats and not isinstance(error, ChatError) else error


def _check_task(endpoint: Endpoint, task: str | None) -> None:
    requested = parse_task(task)
    if requested not in (None, endpoint.task):
        raise status_exception(
            f"Requested task type [{requested}] does not match the inference endpoint's task type "
            f"[{endpoint.task}]"
        )


async def _send_stream_error(scope: Scope, send: Send, error: HubgateError) -> None:
    """An error before the stream began is its only event."""
    context_of(scope).cause = error.cause
    status, _, headers = error_response(render, error)
    await respond(send, status, error_event(error), b"text/event-stream", headers)


def _registered(options: RequestOptions, endpoint: Endpoint) -> Response:
    response = options.response(endpoint_object(endpoint, full=True))
    response.raw_headers += map(warning_header, endpoint.facts.warnings)
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


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    return segments[0] in {"", "_inference"}


def _routes(services: Services) -> Sequence[BaseRoute | InferenceRoute]:
    face = Elastic(services.gateway)
    return [
        InferenceRoute("/_inference/{name}", face.infer),
        InferenceRoute("/_inference/{name}/_stream", face.stream),
        InferenceRoute("/_inference/{task}/{name}", face.infer),
        InferenceRoute("/_inference/{task}/{name}/_stream", face.stream),
        Route("/_inference", face.get_all, methods=["GET"]),
        Route("/_inference/_services", face.services, methods=["GET"]),
        Route("/_inference/_services/{task}", face.services, methods=["GET"]),
        Route("/_inference/{name}", face.get, methods=["GET"]),
        Route("/_inference/{name}", face.put, methods=["PUT"]),
        Route("/_inference/{name}", face.delete, methods=["DELETE"]),
        Route("/_inference/{name}/_update", face.update, methods=["PUT"]),
        Route("/_inference/{task}/{name}", face.get, methods=["GET"]),
        Route("/_inference/{task}/{name}", face.put, methods=["PUT"]),
        Route("/_inference/{task}/{name}", face.delete, methods=["DELETE"]),
        Route("/_inference/{task}/{name}/_update", face.update, methods=["PUT"]),
    ]


FACE = Face(name="elastic", owns=_owns, render_error=render, routes=_routes)
