"""The reference of the gate's own API, as OpenAPI 3.1: made of the rows that serve it and the forms that they take."""

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
    """A method at a path below `/api`, for admins."""

    method: str
    path: str
    """As Starlette writes it."""
    answer: Callable[[Request], Awaitable[Response]]
    summary: str
    takes: type[msgspec.Struct] | None = None
    """The form of the body."""
    partial: bool = False
    """Whether any of the form's fields may be left out."""
    example: Mapping[str, Any] | None = None
    """A body, for the reference."""
    query: Mapping[str, str] = field(default_factory=dict)
    """What each query parameter means."""
    status: int = 200
    media: tuple[str, ...] = ("application/json",)
    """In what it may be answered."""

    def route(self) -> Route:
        """What the router serves."""

        async def guarded(request: Request) -> Response:
            need_admin(request.scope)
            return await self.answer(request)

        return Route(PREFIX + self.path, guarded, methods=[self.method])


def json_response(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Failure(msgspec.Struct):
    """Why a request failed."""

    cause: str
    """One word for machines."""
    message: str
    remedy: str


class ErrorAnswer(msgspec.Struct):
    """What every error is answered with."""

    error: Failure


def with_reference(rows: Sequence[ApiRoute]) -> Sequence[ApiRoute]:
    """The rows, and one more that describes them all."""

    @cache
    def described() -> bytes:
        return msgspec.json.encode(reference(whole))

    async def answer(_: Request) -> Response:
        return json_response(msgspec.Raw(described()))

    whole = (
        *rows,
        ApiRoute(
            method="GET", path="/openapi.json", answer=answer, summary="This reference, as OpenAPI 3.1."
        ),
    )
    return whole


def reference(rows: Sequence[ApiRoute]) -> dict[str, Any]:
    """The OpenAPI document of these rows."""
    forms = {row.takes for row in rows if row.takes is not None}
    taken: list[type[msgspec.Struct]] = [ErrorAnswer, *forms]
    named = sorted(taken, key=lambda form: form.__name__)
    _, components = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    for form in {row.takes for row in rows if row.takes is not None and row.partial}:
        components[form.__name__ + _PARTIAL] = _partial(components[form.__name__])
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        path = PREFIX + _PARAMETER.sub(r"{\1}", row.path)
        paths.setdefault(path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hubgate",
            "version": __version__,
            "description": "What the command line and the console use. Every route wants an admin key.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(row: ApiRoute) -> dict[str, Any]:
    name = "_".join(_PARAMETER.sub(r"\1", row.path).strip("/").replace(".", "/").split("/"))
    operation: dict[str, Any] = {
        "operationId": f"{row.method.lower()}_{name.replace('-', '_')}",
        "summary": row.summary,
        "tags": [row.path.split("/")[1]],
        "parameters": [*_in_path(row.path), *_in_query(row.query)],
        "responses": {
            str(row.status): {"description": "As it was asked."}
            | ({} if row.status == 204 else {"content": {kind: {} for kind in row.media}}),
            "default": {
                "description": "It was not done.",
                "content": {"application/json": {"schema": _reference_to("ErrorAnswer")}},
            },
        },
    }
    if row.takes is not None:
        schema = _reference_to(row.takes.__name__ + (_PARTIAL if row.partial else ""))
        content = {"schema": schema} | ({} if row.example is None else {"example": row.example})
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
    """The same form with every field free to be left out, or `null` for its default."""
    free = {
        name: {"anyOf": [{key: value for key, value in one.items() if key != "default"}, {"type": "null"}]}
        for name, one in schema["properties"].items()
    }
    partial = {key: value for key, value in schema.items() if key != "required"}
    return {**partial, "title": f"{schema['title']}{_PARTIAL}", "properties": free}
