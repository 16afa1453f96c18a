"""The faces, and the application that serves them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, Router

from hubgate.domain.errors import NotFound
from hubgate.domain.ports import Hub
from hubgate.service.gateway import Gateway
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.service.keys.limits import KeyLimits
from hubgate.service.metrics import Meter
from hubgate.web.admin import routes as admin
from hubgate.web.console import routes as console
from hubgate.web.elastic import routes as elastic
from hubgate.web.http.asgi import AsgiApp, Receive, Scope, Send
from hubgate.web.http.errors import MethodNotAllowed
from hubgate.web.http.face import HotRoutes, Services
from hubgate.web.http.guard import Guard
from hubgate.web.http.health import Health
from hubgate.web.http.ticket import ticket_of
from hubgate.web.huggingface import routes as huggingface
from hubgate.web.openai import routes as openai
from hubgate.web.schemas.configuration import Configuration

FACES = (elastic.FACE, openai.WITH_DETAIL, openai.FACE, huggingface.FACE, console.FACE, admin.FACE)
"""A path belongs to the first face that owns it."""


def create_app(
    gateway: Gateway,
    access: Access,
    meter: Meter,
    memory: VectorMemory | None,
    *,
    hub: Hub,
    max_body_bytes: int,
    max_total_body_bytes: int,
    keys_in_path: bool,
) -> AsgiApp:
    """The whole product as one ASGI application."""
    services = Services(
        gateway=gateway,
        access=access,
        memory=memory,
        hub=hub,
        configuration=Configuration(gateway, access),
    )
    health = Health(gateway, meter)
    routes = [
        Route("/", health.front, methods=["GET"]),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/metrics", health.metrics),
        *(route for face in FACES for route in face.routes(services)),
    ]
    hot = [face.hot_routes(services) for face in FACES]
    return Guard(
        _Dispatch(hot, access.limits, Router(routes, redirect_slashes=False)),
        FACES,
        access,
        meter,
        gateway.usage,
        endpoints=gateway.endpoints,
        max_body_bytes=max_body_bytes,
        max_total_body_bytes=max_total_body_bytes,
        keys_in_path=keys_in_path,
    )


class _Dispatch:
    """Sends a request to its hot route, else to the router."""

    def __init__(self, hot: Sequence[HotRoutes], limits: KeyLimits, cold: Router) -> None:
        # The first face that has a path is the last one that is written.
        self._by_path = {path: handler for one in reversed(hot) for path, handler in one.by_path.items()}
        self._below = {head: find for one in reversed(hot) for head, find in one.below.items()}
        self._limits = limits
        self._cold = cold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        handler = self._find(path.rstrip("/"))
        if handler is not None and scope["method"] == "POST":
            ticket = ticket_of(scope)
            ticket.is_call = True
            if ticket.key is not None:
                self._limits.admit(ticket.key, ticket.started)
            await handler(scope, receive, send)
            return
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/")
        scope["app"] = self  # the router then raises instead of answering in plain text
        try:
            await self._cold(scope, receive, send)
        except HTTPException as error:
            if error.status_code == 405 or handler is not None:
                allowed = ", ".join(sorted(self._methods(scope) | ({"POST"} if handler else set())))
                told = f"{scope['method']} is not served at {path[:200]}."
                raise MethodNotAllowed(told, allowed=allowed) from None
            raise NotFound(f"Nothing is served at {scope['method']} {path[:200]}.") from None

    def _find(self, path: str) -> AsgiApp | None:
        if handler := self._by_path.get(path):
            return handler
        _, head, *segments = path.split("/") if path.startswith("/") else ("", "")
        below = self._below.get(head)
        return below(segments) if below else None

    def _methods(self, scope: Scope) -> set[str]:
        """Every method that some cold route serves at this path."""
        routes = (
            r for r in self._cold.routes if isinstance(r, Route) and r.matches(scope)[0] is not Match.NONE
        )
        return {method for route in routes for method in route.methods or ()}
