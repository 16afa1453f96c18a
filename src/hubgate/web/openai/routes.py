"""The OpenAI face: `/v1`. See CONTRACT.md."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubgate.service.gateway import Gateway
from hubgate.web.http.asgi import Scope, Send, decode
from hubgate.web.http.face import Face, InferenceRoute, Services, is_cohere_client
from hubgate.web.http.head import XINFERENCE_AUTH
from hubgate.web.http.request_context import context_of
from hubgate.web.openai.embeddings import EMBEDDINGS, handle_embeddings
from hubgate.web.openai.errors import render, render_with_detail
from hubgate.web.openai.generation import handle_chat, handle_completions
from hubgate.web.openai.models import alias_of, model_details, model_name, model_object
from hubgate.web.shared.embeddings import resolve_endpoint
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields
from hubgate.web.shared.rerank import handle_rerank


class OpenAI:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def embeddings(self, scope: Scope, body: bytes, send: Send) -> Awaitable[None]:
        form = decode(body, EMBEDDINGS)
        return handle_embeddings(self._gateway, scope, send, model_name(context_of(scope), form.model), form)

    def chat(self, scope: Scope, body: bytes, send: Send) -> Awaitable[None]:
        fields = Fields(body)
        return handle_chat(self._exchange(scope, send, fields), fields)

    def completions(self, scope: Scope, body: bytes, send: Send) -> Awaitable[None]:
        fields = Fields(body)
        return handle_completions(self._exchange(scope, send, fields), fields)

    def rerank(self, scope: Scope, body: bytes, send: Send) -> Awaitable[None]:
        return handle_rerank(self._exchange(scope, send, Fields(body)), body)

    async def models(self, request: Request) -> Response:
        """The endpoints in the key's scope, and their aliases; for Cohere's clients in its format."""
        endpoints = self._gateway.visible(context_of(request.scope).may_call)
        if is_cohere_client(dict(request.scope["headers"])):
            listed = [model_details(endpoint) for endpoint in endpoints]
            route = request.query_params.get("endpoint")
            return _json({"models": [one for one in listed if route in (None, *one["endpoints"])]})
        aliases = self._gateway.live.aliases
        listed = [model_object(endpoint) | alias_of(endpoint.name, aliases) for endpoint in endpoints]
        return _json({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        endpoint = self._gateway.registry.resolve(name)
        context_of(request.scope).use(endpoint, name)
        named = endpoint if endpoint.name == name else replace(endpoint, name=name)
        return _json(model_details(named) | alias_of(name, self._gateway.live.aliases))

    def _exchange(self, scope: Scope, send: Send, fields: Fields) -> Exchange:
        context = context_of(scope)
        name = model_name(context, fields.take("model", str))
        endpoint, _ = resolve_endpoint(self._gateway, context, name)
        return Exchange(self._gateway, endpoint, context, send)


async def _requires_key(request: Request) -> Response:
    """Xinference's `/v1/cluster/auth`, whose clients send a key only if it is required."""
    return _json({"auth": True})


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    if segments[0] == "hf" and len(segments) > 2:
        tail = segments[2].rstrip("/")
        return tail in _BELOW_HF or (tail in _BELOW_HF_SHARED and not is_hugging_face)
    return segments[0] in _FIRST_SEGMENTS


def _routes(services: Services) -> Sequence[BaseRoute | InferenceRoute]:
    face = OpenAI(services.gateway)
    return [
        InferenceRoute("/v1/embeddings", face.embeddings),
        InferenceRoute("/embeddings", face.embeddings),
        InferenceRoute("/v1/chat/completions", face.chat),
        InferenceRoute("/chat/completions", face.chat),
        InferenceRoute("/v1/completions", face.completions),
        InferenceRoute("/completions", face.completions),
        InferenceRoute("/v1/rerank", face.rerank),
        Route(XINFERENCE_AUTH, _requires_key, methods=["GET"]),
        Route("/v1/models", face.models, methods=["GET"]),
        Route("/v1/models/{name}", face.model, methods=["GET"]),
        Route("/models", face.models, methods=["GET"]),
        Route("/models/{name}", face.model, methods=["GET"]),
    ]


_FIRST_SEGMENTS = frozenset(
    {"v1", "embeddings", "models", "chat", "completions", "rerank", "files", "batches"}
)
# Below /hf/{name}: routes that only clients of OpenAI's API call,
_BELOW_HF = frozenset({"v1/embeddings", "embeddings", "v1/rerank", "v2/rerank"})
# and routes that all clients call: Hugging Face's own expect text-generation-inference's errors there.
_BELOW_HF_SHARED = frozenset({"v1/chat/completions", "chat/completions", "v1/completions", "completions"})
FACE = Face(name="openai", owns=_owns, render_error=render, routes=_routes)


def _reads_detail(segments: Sequence[str], is_hugging_face: bool) -> bool:
    path = f"/{'/'.join(segments)}".rstrip("/")
    return path.endswith(("/rerank", "/embeddings")) and _owns(segments, is_hugging_face)


WITH_DETAIL = Face(name="openai", owns=_reads_detail, render_error=render_with_detail)
"""The same face on routes that plugins for Jina and Xinference call."""
