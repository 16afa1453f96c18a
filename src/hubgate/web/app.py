"""The route map of the whole product on one page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, Router

from hubgate.domain.errors import NotFound
from hubgate.web.admin.hub import HubApi
from hubgate.web.admin.openapi import with_reference
from hubgate.web.admin.routes import Api
from hubgate.web.console.routes import console_routes
from hubgate.web.elastic.routes import Elastic
from hubgate.web.http.errors import MethodNotAllowed
from hubgate.web.http.guard import Guard
from hubgate.web.http.health import Health
from hubgate.web.http.ticket import ticket_of
from hubgate.web.huggingface.routes import HuggingFace
from hubgate.web.openai.routes import OpenAI
from hubgate.web.schemas.configuration import Configuration

if TYPE_CHECKING:
    from hubgate.domain.ports import Hub
    from hubgate.service.gateway import Gateway
    from hubgate.service.inference.vector_cache import VectorMemory
    from hubgate.service.keys.access import Access
    from hubgate.service.keys.limits import KeyLimits
    from hubgate.service.metrics import Meter
    from hubgate.web.http.asgi import AsgiApp, Receive, Scope, Send


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
    elastic, openai, huggingface = Elastic(gateway), OpenAI(gateway), HuggingFace(gateway)
    health = Health(gateway, meter)
    hub_api = HubApi(hub, gateway, gateway.stored_tokens)
    configuration = Configuration(gateway, access)
    api = Api(gateway, access, memory, configuration)
    rows = with_reference([*api.routes(), *hub_api.routes()])
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
        Route("/hf/{name}/v1/models", huggingface.models, methods=["GET"]),
        Route("/info", huggingface.info, methods=["GET"]),
        Route("/health", huggingface.health, methods=["GET"]),
        *(row.route() for row in rows),
        *console_routes(gateway, access, hub, configuration),
    ]
    app = _Hot(elastic, openai, huggingface, access.limits, Router(routes, redirect_slashes=False))
    return Guard(
        app,
        access,
        meter,
        gateway.usage,
        gateway.endpoints,
        max_body_bytes=max_body_bytes,
        max_total_body_bytes=max_total_body_bytes,
        keys_in_path=keys_in_path,
    )


class _Hot:
    """Inference: found by dictionary, served on plain ASGI. The rest goes to the router."""

    def __init__(
        self, elastic: Elastic, openai: OpenAI, huggingface: HuggingFace, limits: KeyLimits, cold: Router
    ) -> None:
        self._limits = limits
        self._cold = cold
        self._infer = elastic.infer
        self._by_path = {
            "/v1/embeddings": openai.embeddings,
            "/embeddings": openai.embeddings,
            "/v1/chat/completions": openai.chat,
            "/chat/completions": openai.chat,
            "/v1/completions": openai.completions,
            "/completions": openai.completions,
            "/v1/rerank": openai.rerank,
            "/v2/rerank": openai.rerank,
            "/v1/v1/rerank": openai.rerank,  # Cohere's clients add their own version to a base URL that ends in /v1
            "/v1/v2/rerank": openai.rerank,
        }
        # Under /hf/{endpoint}, and bare for the key's default endpoint.
        self._by_tail = {
            "": huggingface.infer,
            "v1": huggingface.infer,  # InferenceClient(base_url=".../v1") posts to its base URL
            "embed": huggingface.embed,
            "similarity": huggingface.embed,
            "embed_sparse": huggingface.embed_sparse,
            "rerank": huggingface.rerank,
            "v1/rerank": huggingface.rerank_as_openai,
            "v2/rerank": huggingface.rerank_as_openai,
            "predict": huggingface.predict,
            "generate": huggingface.generate,
            "generate_stream": huggingface.generate_stream,
            "chat/completions": huggingface.chat,
            "v1/chat/completions": huggingface.chat,
            "completions": huggingface.completions,
            "v1/completions": huggingface.completions,
            "tokenize": huggingface.tokenize,
            "embeddings": huggingface.embeddings,
            "v1/embeddings": huggingface.embeddings,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        answer = self._find(path.rstrip("/"))
        if answer is not None and scope["method"] == "POST":
            ticket = ticket_of(scope)
            ticket.is_call = True
            if ticket.key is not None:
                self._limits.admit(ticket.key, ticket.started)
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
