"""The Hugging Face face: the APIs of text-embeddings-inference (TEI) and text-generation-inference (TGI).

See CONTRACT.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import Tokenize, Tokens
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Task
from hubgate.domain.errors import Cause, InvalidRequest, WrongTask
from hubgate.service.gateway import Gateway
from hubgate.web.http.asgi import Scope, Send, decode
from hubgate.web.http.face import Face, InferenceRoute, Services, is_elasticsearch, is_hugging_face_client
from hubgate.web.http.request_context import context_of
from hubgate.web.huggingface.embeddings import handle_embed
from hubgate.web.huggingface.errors import render_chat, render_tei, render_tgi
from hubgate.web.huggingface.generation import GENERATION_FIELDS, handle_generation
from hubgate.web.huggingface.info import info_of
from hubgate.web.huggingface.rerank import (
    handle_predict,
    handle_ranks,
    handle_sparse,
    handle_sparse_as_tei,
)
from hubgate.web.openai.embeddings import EMBEDDINGS, handle_embeddings
from hubgate.web.openai.generation import handle_chat, handle_completions
from hubgate.web.openai.models import model_name, model_object
from hubgate.web.openai.routes import FACE as OPENAI
from hubgate.web.openai.routes import WITH_DETAIL
from hubgate.web.shared.embeddings import Inputs, parse_texts, resolve_endpoint
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields
from hubgate.web.shared.rerank import handle_rerank


class _TokenizeForm(msgspec.Struct, forbid_unknown_fields=True):
    inputs: Inputs
    add_special_tokens: bool = True


_TOKEN_BYTES = 64
"""Estimated size of a token in the response."""
_MAX_TOKENS_PER_ENCODE = 10_000
_MAX_TOKENIZE_CHARS = 262_144
"""Per request; the tokens are some megabytes of JSON."""
_TOKENIZE = msgspec.json.Decoder(_TokenizeForm)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class HuggingFace:
    """`name` is the endpoint's, or `None` for the key's default endpoint, on a route without `/hf/{name}`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def infer(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> None:
        """`POST /hf/{name}`: the endpoint's task decides, and the body within a task."""
        exchange = self._exchange(scope, send, name)
        task = exchange.endpoint.task
        try:
            await _ROOT_HANDLERS[task](exchange, scope, body)
        except InvalidRequest:
            requested = _task_of_body(body)
            if requested is None or requested is task or {requested, task} <= GENERATION_TASKS:
                raise
            raise WrongTask(exchange.endpoint.name, requested=requested, actual=task) from None

    def embed(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        """`POST …/embed` and `…/similarity`."""
        return handle_embed(self._exchange(scope, send, name), scope, body)

    def embeddings(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        """`POST …/v1/embeddings`: OpenAI's. `model` is ignored, here and below."""
        name = _endpoint_name(scope, name)
        form = decode(body, EMBEDDINGS)
        return handle_embeddings(self._gateway, scope, send, name, form)

    def embed_sparse(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        return handle_sparse_as_tei(self._exchange(scope, send, name), body)

    def rerank(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        """`POST …/rerank`: TEI's if the body has its fields, else Cohere's and Jina's."""
        fields = decode(body, _FIELDS)
        if "texts" in fields or "inputs" in fields:
            context_of(scope).set_face(FACE)  # /rerank belongs to the OpenAI face
            return handle_ranks(self._exchange(scope, send, name), body)
        context_of(scope).set_face(WITH_DETAIL)
        if name is None:
            name = model_name(context_of(scope), Fields(body).take("model", str))
        return handle_rerank(self._exchange(scope, send, name), body)

    def rerank_as_openai(
        self, scope: Scope, body: bytes, send: Send, name: str | None = None
    ) -> Awaitable[None]:
        """`POST …/v1/rerank` and `…/v2/rerank`: Cohere's and Jina's."""
        return handle_rerank(self._exchange(scope, send, name), body)

    def predict(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        return handle_predict(self._exchange(scope, send, name), body)

    def generate(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        return handle_generation(self._exchange(scope, send, name), Fields(body), streamed=False)

    def generate_stream(
        self, scope: Scope, body: bytes, send: Send, name: str | None = None
    ) -> Awaitable[None]:
        return handle_generation(self._exchange(scope, send, name), Fields(body), streamed=True)

    def chat(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        return _chat(self._exchange(scope, send, name), scope, Fields(body))

    def completions(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        return handle_completions(self._exchange(scope, send, name), Fields(body))

    async def tokenize(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> None:
        exchange = self._exchange(scope, send, name)
        form = decode(body, _TOKENIZE)
        texts = parse_texts(form.inputs, "inputs")
        if sum(map(len, texts)) > _MAX_TOKENIZE_CHARS:
            raise InvalidRequest(
                f"[inputs] has more than {_MAX_TOKENIZE_CHARS:,} characters.",
                remedy="Tokenize the texts in several requests.",
                cause=Cause.INPUT_TOO_LONG,
            )
        call_context = exchange.context.call_context()
        call = Tokenize(texts=texts, add_special_tokens=form.add_special_tokens, context=call_context)
        result = await self._gateway.inference.infer(exchange.endpoint.name, call)
        assert isinstance(result, Tokens)  # noqa: S101 - Tokenize returns Tokens
        size = sum(map(len, result.items)) * _TOKEN_BYTES
        await exchange.respond(await off_loop(size, _render_tokens, result))

    async def info(self, request: Request) -> Response:
        return _json(info_of(self._endpoint(request), full=context_of(request.scope).is_admin))

    async def models(self, request: Request) -> Response:
        """`GET …/v1/models`: the endpoint alone."""
        return _json({"object": "list", "data": [model_object(self._endpoint(request))]})

    async def health(self, request: Request) -> Response:
        """`GET …/health` and `GET /hf/{name}`."""
        reason = self._gateway.startup.unready().get(self._endpoint(request).name)
        return _json({"error": reason, "error_type": "Unhealthy"}, 503) if reason else Response()

    def _exchange(self, scope: Scope, send: Send, name: str | None) -> Exchange:
        context = context_of(scope)
        if context.face.name != OPENAI.name:
            context.set_face(FACE)  # the path of `POST /` belongs to no face
        endpoint, kind = resolve_endpoint(self._gateway, context, _endpoint_name(scope, name))
        if endpoint.task in GENERATION_TASKS and context.face is FACE:
            context.other_render_error = render_tgi
        return Exchange(self._gateway, endpoint, context, send, kind)

    def _endpoint(self, request: Request) -> Endpoint:
        name = _endpoint_name(request.scope, request.path_params.get("name"))
        endpoint, _ = resolve_endpoint(self._gateway, context_of(request.scope), name)
        return endpoint


async def _generate(exchange: Exchange, scope: Scope, body: bytes) -> None:
    fields = Fields(body)
    if "messages" in fields:
        await _chat(exchange, scope, fields)
    else:
        await handle_generation(exchange, fields, listed=True)


async def _rank(exchange: Exchange, _: Scope, body: bytes) -> None:
    await handle_ranks(exchange, body)


async def _embed_sparse(exchange: Exchange, _: Scope, body: bytes) -> None:
    await handle_sparse(exchange, body)


_ROOT_HANDLERS: dict[Task, Callable[[Exchange, Scope, bytes], Awaitable[None]]] = {
    Task.TEXT_EMBEDDING: handle_embed,
    Task.RERANK: _rank,
    Task.SPARSE_EMBEDDING: _embed_sparse,
    Task.COMPLETION: _generate,
    Task.CHAT_COMPLETION: _generate,
}


def _render_tokens(tokens: Tokens) -> bytes:
    """Encoded in parts: even in another thread, a single call would block the event loop, since it holds the GIL."""
    texts = []
    for items in tokens.items:
        parts = (
            items[start : start + _MAX_TOKENS_PER_ENCODE]
            for start in range(0, len(items), _MAX_TOKENS_PER_ENCODE)
        )
        texts.append(b",".join(msgspec.json.encode(part)[1:-1] for part in parts))
    return b"[" + b",".join(b"[%b]" % text for text in texts) + b"]"


async def _chat(exchange: Exchange, scope: Scope, fields: Fields) -> None:
    """Errors are in TGI's format for Hugging Face's own clients, else in OpenAI's.

    Elasticsearch expects TGI's until a stream has begun, and OpenAI's after that.
    """
    headers = dict(scope["headers"])
    if not is_hugging_face_client(headers):
        is_elastic_stream = is_elasticsearch(headers) and fields.rest.get("stream") == b"true"
        exchange.context.other_render_error = render_tgi if is_elastic_stream else render_chat
        exchange.context.render_stream_error = render_chat
    await handle_chat(exchange, fields)


def _task_of_body(body: bytes) -> Task | None:
    """The task that a body is for, if that is unambiguous."""
    try:
        fields = decode(body, _FIELDS)
    except InvalidRequest:
        return None
    if "messages" in fields:
        return Task.CHAT_COMPLETION
    inputs = bytes(fields.get("inputs", b""))
    if {"query", "texts"} <= fields.keys() or b'"texts"' in inputs:
        return Task.RERANK
    if b'"source_sentence"' in inputs:
        return Task.TEXT_EMBEDDING
    parameters = bytes(fields.get("parameters", b""))
    names = decode(parameters, _FIELDS).keys() if parameters.startswith(b"{") else set()
    return Task.COMPLETION if GENERATION_FIELDS & (fields.keys() | names) else None


def _endpoint_name(scope: Scope, name: str | None) -> str:
    """The endpoint in the path, or the key's default endpoint."""
    key = context_of(scope).key
    name = name or (key.default_endpoint if key else None)
    if name is None:
        raise InvalidRequest(
            "This path calls the key's default endpoint, but the key has none.",
            remedy="Use /hf/{endpoint} as the base URL, or a key with a default endpoint.",
        )
    return name


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    return segments[0] in _FIRST_SEGMENTS


def _routes(services: Services) -> Sequence[BaseRoute | InferenceRoute]:
    """Below `/hf/{name}`, and at the root for the key's default endpoint."""
    face = HuggingFace(services.gateway)
    inference = {
        "": face.infer,
        "/v1": face.infer,  # InferenceClient(base_url=".../v1") posts to its base URL
        "/embed": face.embed,
        "/similarity": face.embed,
        "/embed_sparse": face.embed_sparse,
        "/rerank": face.rerank,
        "/v1/rerank": face.rerank_as_openai,
        "/v2/rerank": face.rerank_as_openai,
        "/predict": face.predict,
        "/generate": face.generate,
        "/generate_stream": face.generate_stream,
        "/chat/completions": face.chat,
        "/v1/chat/completions": face.chat,
        "/completions": face.completions,
        "/v1/completions": face.completions,
        "/tokenize": face.tokenize,
        "/embeddings": face.embeddings,
        "/v1/embeddings": face.embeddings,
    }
    return [
        *(InferenceRoute("/hf/{name}" + path, handler) for path, handler in inference.items()),
        *(InferenceRoute(path, handler) for path, handler in inference.items()),
        Route("/hf/{name}", face.health, methods=["GET"]),
        Route("/hf/{name}/info", face.info, methods=["GET"]),
        Route("/hf/{name}/health", face.health, methods=["GET"]),
        Route("/hf/{name}/v1/models", face.models, methods=["GET"]),
        Route("/info", face.info, methods=["GET"]),
        Route("/health", face.health, methods=["GET"]),
    ]


_FIRST_SEGMENTS = frozenset(
    {
        "embed",
        "embed_sparse",
        "generate",
        "generate_stream",
        "health",
        "hf",
        "info",
        "k",
        "predict",
        "similarity",
        "tokenize",
    }
)
FACE = Face(name="huggingface", owns=_owns, render_error=render_tei, routes=_routes)
