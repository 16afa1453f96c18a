"""The routes of the gate's own API, one row each: what serves it, what it takes, and one sentence for the reference."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hubgate.web.http.ticket import need_admin

PREFIX = "/api"


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
