"""The route map of the whole product on one page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, Router

from hubgate.domain.errors import NotFound
from hubgate.web.api import Api
from hubgate.web.elastic import Elastic
from hubgate.web.guard import Guard
from hubgate.web.health import Health
from hubgate.web.hub_api import HubApi
from hubgate.web.huggingface import HuggingFace
from hubgate.web.openai import OpenAI
from hubgate.web.problems import MethodNotAllowed
from hubgate.web.ticket import need_admin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from hubgate.domain.ports import Hub
    from hubgate.service.access import Access
    from hubgate.service.gateway import Gateway
    from hubgate.service.memory import VectorMemory
    from hubgate.service.meter import Meter
    from hubgate.web.asgi import AsgiApp, Receive, Scope, Send


def create_app(
    gateway: Gateway,
    access: Access,
    meter: Meter,
    memory: VectorMemory | None,
    *,
    hub: Hub,
    max_body_bytes: int,
    keys_in_path: bool,
) -> AsgiApp:
    """The whole product as one ASGI application."""
    elastic, openai, huggingface = Elastic(gateway), OpenAI(gateway), HuggingFace(gateway)
    api, health = Api(gateway, access, memory), Health(gateway, meter)
    routes = [
        Route("/", health.front, methods=["GET"]),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/metrics", health.metrics),
        Route("/_inference", elastic.get_all, methods=["GET"]),
        Route("/_inference/_services", elastic.services, methods=["GET"]),
        Route("/_inference/_services/{task}", elastic.services, methods=["GET"]),
        Route("/_inference/{name}", elastic.get, methods=["GET"]),
        Route("/_inference/{name}", elastic.put, methods=["PUT"]),
        Route("/_inference/{name}", elastic.delete, methods=["DELETE"]),
        Route("/_inference/{name}/_update", elastic.update, methods=["PUT"]),
        Route("/_inference/{task}/{name}", elastic.get, methods=["GET"]),
        Route("/_inference/{task}/{name}", elastic.put, methods=["PUT"]),
        Route("/_inference/{task}/{name}", elastic.delete, methods=["DELETE"]),
        Route("/_inference/{task}/{name}/_update", elastic.update, methods=["PUT"]),
        Route("/v1/models", openai.models, methods=["GET"]),
        Route("/v1/models/{name}", openai.model, methods=["GET"]),
        Route("/models", openai.models, methods=["GET"]),
        Route("/models/{name}", openai.model, methods=["GET"]),
        Route("/hf/{name}", huggingface.health, methods=["GET"]),
        Route("/hf/{name}/info", huggingface.info, methods=["GET"]),
        Route("/hf/{name}/health", huggingface.health, methods=["GET"]),
        Route("/info", huggingface.info, methods=["GET"]),
        Route("/health", huggingface.health, methods=["GET"]),
        _for_admins("GET", "/about", api.about),
        _for_admins("GET", "/endpoints", api.list_endpoints),
        _for_admins("POST", "/endpoints", api.add_endpoint),
        _for_admins("GET", "/endpoints/{name}", api.show_endpoint),
        _for_admins("DELETE", "/endpoints/{name}", api.remove_endpoint),
        _for_admins("POST", "/endpoints/{name}/check", api.check_endpoint),
        _for_admins("POST", "/endpoints/{name}/accept", api.accept_endpoint),
        _for_admins("GET", "/cache", api.cache_stats),
        _for_admins("DELETE", "/cache", api.clear_cache),
        _for_admins("GET", "/keys", api.list_keys),
        _for_admins("POST", "/keys", api.create_key),
        _for_admins("DELETE", "/keys/{key:path}", api.revoke_key),
        _for_admins("POST", "/secret/rotate", api.rotate_secret),
        *(row.route() for row in HubApi(hub, gateway).routes()),
    ]
    app = _Hot(elastic, openai, huggingface, Router(routes, redirect_slashes=False))
    return Guard(app, access, meter, max_body_bytes=max_body_bytes, keys_in_path=keys_in_path)


def _for_admins(method: str, path: str, answer: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route of the gate's own API."""

    async def guarded(request: Request) -> Response:
        need_admin(request.scope)
        return await answer(request)

    return Route(f"/api{path}", guarded, methods=[method])


class _Hot:
    """Inference: found by dictionary, served on plain ASGI. The rest goes to the router."""

    def __init__(self, elastic: Elastic, openai: OpenAI, huggingface: HuggingFace, cold: Router) -> None:
        self._cold = cold
        self._infer = elastic.infer
        self._by_path = {
            "/v1/embeddings": openai.embeddings,
            "/embeddings": openai.embeddings,
            "/v1/chat/completions": openai.chat,
            "/chat/completions": openai.chat,
            "/v1/completions": openai.completions,
            "/completions": openai.completions,
        }
        # Under /hf/{endpoint}, and bare for the key's default endpoint.
        self._by_tail = {
            "": huggingface.embed,
            "v1": huggingface.embed,  # InferenceClient(base_url=".../v1") posts to its base URL
            "embed": huggingface.embed,
            "tokenize": huggingface.tokenize,
            "embeddings": huggingface.embeddings,
            "v1/embeddings": huggingface.embeddings,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        answer = self._find(path.rstrip("/"))
        if answer is not None and scope["method"] == "POST":
            await answer(scope, receive, send)
            return
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/")
        scope["app"] = self  # the router then raises instead of answering in plain text
        try:
            await self._cold(scope, receive, send)
        except HTTPException as error:
            if error.status_code == 405 or answer is not None:
                allowed = ", ".join(sorted(self._methods(scope) | ({"POST"} if answer else set())))
                told = f"{scope['method']} is not served at {path[:200]}."
                raise MethodNotAllowed(told, allowed=allowed) from None
            raise NotFound(f"Nothing is served at {scope['method']} {path[:200]}.") from None

    def _find(self, path: str) -> AsgiApp | None:
        if answer := self._by_path.get(path):
            return answer
        _, _, tail = path.partition("/")
        head, *segments = tail.split("/")
        if head == "_inference":
            return self._find_inference(segments)
        name = None
        if head == "hf" and segments and segments[0]:
            name, *rest = segments
            tail = "/".join(rest)
        handler = self._by_tail.get(tail)
        return handler and partial(handler, name=name)

    def _methods(self, scope: Scope) -> set[str]:
        """Every method that some cold route serves at this path."""
        routes = (
            r for r in self._cold.routes if isinstance(r, Route) and r.matches(scope)[0] is not Match.NONE
        )
        return {method for route in routes for method in route.methods or ()}

    def _find_inference(self, segments: list[str]) -> AsgiApp | None:
        """`/_inference/{name}` or `/_inference/{task}/{name}`, and `/_stream` after either."""
        stream = segments[-1:] == ["_stream"]
        if stream:
            segments = segments[:-1]
        if not 1 <= len(segments) <= 2 or segments[-1].startswith("_"):
            return None
        task = segments[0] if len(segments) == 2 else None
        return partial(self._infer, task=task, name=segments[-1], stream=stream)
