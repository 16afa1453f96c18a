"""The Cohere face: `/v1` and `/v2` of Cohere's API. See CONTRACT.md."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial

from starlette.routing import BaseRoute

from hubgate.service.gateway import Gateway
from hubgate.web.cohere.chat import handle_chat
from hubgate.web.cohere.embed import EMBED, handle_embed
from hubgate.web.cohere.errors import render
from hubgate.web.cohere.tokenize import handle_tokenize
from hubgate.web.http.asgi import Scope, Send, decode
from hubgate.web.http.face import Face, Handler, InferenceRoute, Services
from hubgate.web.http.request_context import context_of
from hubgate.web.openai.models import model_name
from hubgate.web.shared.embeddings import resolve_endpoint
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields
from hubgate.web.shared.rerank import handle_rerank


class Cohere:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def embed(self, scope: Scope, body: bytes, send: Send, *, version: int) -> Awaitable[None]:
        form = decode(body, EMBED)
        return handle_embed(self._exchange(scope, send, form.model), form, version)

    def rerank(self, scope: Scope, body: bytes, send: Send) -> Awaitable[None]:
        return handle_rerank(self._exchange(scope, send, _model(Fields(body))), body)

    def chat(self, scope: Scope, body: bytes, send: Send, *, version: int) -> Awaitable[None]:
        fields = Fields(body)
        return handle_chat(self._exchange(scope, send, _model(fields)), fields, version)

    def tokenize(self, scope: Scope, body: bytes, send: Send) -> Awaitable[None]:
        return handle_tokenize(self._exchange(scope, send, _model(Fields(body))), body)

    def _exchange(self, scope: Scope, send: Send, model: str | None) -> Exchange:
        context = context_of(scope)
        endpoint, kind = resolve_endpoint(self._gateway, context, model_name(context, model))
        return Exchange(self._gateway, endpoint, context, send, kind)


def _model(fields: Fields) -> str | None:
    model: str | None = fields.take("model", str)
    return model


def _routes(services: Services) -> Sequence[BaseRoute | InferenceRoute]:
    face = Cohere(services.gateway)
    handlers: dict[str, Handler] = {
        "/v1/embed": partial(face.embed, version=1),
        "/v1/chat": partial(face.chat, version=1),
        "/v1/tokenize": face.tokenize,
        "/v2/embed": partial(face.embed, version=2),
        "/v2/chat": partial(face.chat, version=2),
        "/v2/rerank": face.rerank,
    }
    return [
        *(InferenceRoute(path, handler, path.endswith("/chat")) for path, handler in handlers.items()),
        # Cohere's clients add their own version to a base URL that ends in /v1.
        *(
            InferenceRoute(f"/v1{path}", handler, path.endswith("/chat"))
            for path, handler in handlers.items()
        ),
        InferenceRoute("/v1/v1/rerank", face.rerank),
    ]


_BELOW_V1 = frozenset({"embed", "chat", "tokenize", "detokenize"})


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    match segments:
        case ["v2", *_] | ["v1", "v1" | "v2", *_]:
            return True
        case ["v1", second, *rest] if second in _BELOW_V1:  # /v1/chat/completions is OpenAI's
            return not any(rest)
    return False


FACE = Face(name="cohere", owns=_owns, render_error=render, routes=_routes)
