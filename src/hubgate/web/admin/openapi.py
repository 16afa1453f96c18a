"""The routes of hubgate's own API, and the OpenAPI 3.1 document that is generated from them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hubgate import __version__
from hubgate.web.http.request_context import need_admin

PREFIX = "/api"
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_PARTIAL = "Changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """A method and a path below `/api`. It requires an admin key."""

    method: str
    path: str
    """In Starlette's syntax."""
    handler: Callable[[Request], Awaitable[Response]]
    summary: str
    body: type[msgspec.Struct] | None = None
    partial: bool = False
    """Whether every field of the body is optional."""
    example: Mapping[str, Any] | None = None
    """An example of a body."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters and their descriptions."""
    status: int = 200
    content_types: tuple[str, ...] = ("application/json",)

    def route(self) -> Route:

        async def guarded(request: Request) -> Response:
            need_admin(request.scope)
            return await self.handler(request)

        return Route(PREFIX + self.path, guarded, methods=[self.method])


def json_response(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class ErrorDetail(msgspec.Struct):
    """Why a request failed."""

    cause: str
    """A fixed identifier."""
    message: str
    remedy: str


class ErrorResponse(msgspec.Struct):
    """The body of every error."""

    error: ErrorDetail


def with_openapi(routes: Sequence[ApiRoute]) -> Sequence[ApiRoute]:
    """The routes, and `/api/openapi.json`, which describes them all."""

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(openapi_document(all_routes))

    async def handler(_: Request) -> Response:
        return json_response(msgspec.Raw(encoded()))

    all_routes = (
        *routes,
        ApiRoute(
            method="GET",
            path="/openapi.json",
            handler=handler,
            summary="Returns this reference as OpenAPI 3.1.",
        ),
    )
    return all_routes


def openapi_document(routes: Sequence[ApiRoute]) -> dict[str, Any]:
    forms = {route.body for route in routes if route.body is not None}
    schemas: list[type[msgspec.Struct]] = [ErrorResponse, *forms]
    named = sorted(schemas, key=lambda form: form.__name__)
    _, components = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    for form in {route.body for route in routes if route.body is not None and route.partial}:
        components[form.__name__ + _PARTIAL] = _partial(components[form.__name__])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = PREFIX + _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hubgate",
            "version": __version__,
            "description": "hubgate's own API. Every route requires an admin key.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: ApiRoute) -> dict[str, Any]:
    name = "_".join(_PARAMETER.sub(r"\1", route.path).strip("/").replace(".", "/").split("/"))
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{name.replace('-', '_')}",
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": [*_in_path(route.path), *_in_query(route.query)],
        "responses": {
            str(route.status): {"description": "Success."}
            | ({} if route.status == 204 else {"content": {kind: {} for kind in route.content_types}}),
            "default": {
                "description": "The request failed.",
                "content": {"application/json": {"schema": _reference_to("ErrorResponse")}},
            },
        },
    }
    if route.body is not None:
        schema = _reference_to(route.body.__name__ + (_PARTIAL if route.partial else ""))
        content = {"schema": schema} | ({} if route.example is None else {"example": route.example})
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _in_query(query: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in query.items()
    ]


def _reference_to(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _partial(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema with every field optional, and `null` for its default."""
    properties = {
        name: {"anyOf": [{key: value for key, value in one.items() if key != "default"}, {"type": "null"}]}
        for name, one in schema["properties"].items()
    }
    partial = {key: value for key, value in schema.items() if key != "required"}
    return {**partial, "title": f"{schema['title']}{_PARTIAL}", "properties": properties}
