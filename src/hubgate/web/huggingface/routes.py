"""The Hugging Face face: text-embeddings-inference's (TEI's) and text-generation-inference's (TGI's) APIs.

CONTRACT.md has its contract and its oddities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import Tokenize, Tokens
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Task
from hubgate.domain.errors import Cause, InvalidRequest, WrongTask
from hubgate.service.gateway import Gateway
from hubgate.web.http.asgi import Receive, Scope, Send, decode, read_body
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
from hubgate.web.openai import routes as openai
from hubgate.web.openai.generation import handle_chat, handle_completions
from hubgate.web.openai.models import model_object, named
from hubgate.web.shared.embeddings import Inputs, parse_texts, resolve_endpoint
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields
from hubgate.web.shared.rerank import handle_rerank


class _TokenizeForm(msgspec.Struct, forbid_unknown_fields=True):
    inputs: Inputs
    add_special_tokens: bool = True


_TOKEN_BYTES = 64
"""About how long a token is in the answer."""
_PIECE_TOKENS = 10_000
_MOST_TOKENIZED = 262_144
"""Characters of one request; their tokens are some megabytes of JSON."""
_TOKENIZE = msgspec.json.Decoder(_TokenizeForm)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class HuggingFace:
    """`/hf/{endpoint}` as a base URL, and its bare routes for the key's default endpoint.

    In every handler `name` is the endpoint's, or `None` on a bare route.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def infer(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST /hf/{endpoint}`: what the endpoint's task and the body say."""
        exchange, body = await self._begin(scope, receive, send, name)
        task = exchange.endpoint.task
        try:
            if task is Task.TEXT_EMBEDDING:
                await handle_embed(exchange, scope, body)
            elif task is Task.RERANK:
                await handle_ranks(exchange, body)
            elif task is Task.SPARSE_EMBEDDING:
                await handle_sparse(exchange, body)
            else:
                await _write(exchange, scope, body)
        except InvalidRequest:
            asked = _task_meant(body)
            if asked is None or asked is task or {asked, task} <= GENERATION_TASKS:
                raise
            raise WrongTask(exchange.endpoint.name, requested=asked, actual=task) from None

    async def embed(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/embed` and `…/similarity`: always a list, also for one string."""
        exchange, body = await self._begin(scope, receive, send, name)
        await handle_embed(exchange, scope, body)

    async def embeddings(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/v1/embeddings`: OpenAI's, whatever `model` says."""
        name = _named(scope, name)
        form = decode(await read_body(receive), openai.EMBEDDINGS)
        await openai.handle_embeddings(self._gateway, scope, send, name, form)

    async def embed_sparse(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/embed_sparse`: the weights of words."""
        await handle_sparse_as_tei(*await self._begin(scope, receive, send, name))

    async def rerank(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/rerank`: TEI's, told by its `texts`; else Cohere's and Jina's."""
        body = await read_body(receive)
        fields = decode(body, _FIELDS)
        if "texts" in fields or "inputs" in fields:
            context_of(scope).set_face(FACE)  # the path of the bare route is OpenAI's
            await handle_ranks(self._exchange(scope, send, name), body)
            return
        context_of(scope).set_face(openai.WITH_DETAIL)
        if name is None:
            name = named(scope, Fields(body).take("model", str))
        await handle_rerank(self._exchange(scope, send, name), body)

    async def rerank_as_openai(
        self, scope: Scope, receive: Receive, send: Send, name: str | None = None
    ) -> None:
        """`POST …/v1/rerank` and `…/v2/rerank`: Cohere's and Jina's, whatever `model` says."""
        await handle_rerank(*await self._begin(scope, receive, send, name))

    async def predict(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/predict`: the scores of pairs."""
        await handle_predict(*await self._begin(scope, receive, send, name))

    async def generate(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/generate`: all of a text at once."""
        exchange, body = await self._begin(scope, receive, send, name)
        await handle_generation(exchange, Fields(body), streamed=False)

    async def generate_stream(
        self, scope: Scope, receive: Receive, send: Send, name: str | None = None
    ) -> None:
        """`POST …/generate_stream`: a text while it is made."""
        exchange, body = await self._begin(scope, receive, send, name)
        await handle_generation(exchange, Fields(body), streamed=True)

    async def chat(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/v1/chat/completions`: OpenAI's, whatever `model` says."""
        exchange, body = await self._begin(scope, receive, send, name)
        await _chat(exchange, scope, Fields(body))

    async def completions(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/v1/completions`: OpenAI's, whatever `model` says."""
        exchange, body = await self._begin(scope, receive, send, name)
        await handle_completions(exchange, Fields(body))

    async def tokenize(self, scope: Scope, receive: Receive, send: Send, name: str | None = None) -> None:
        """`POST …/tokenize`: the tokens of each text."""
        exchange, body = await self._begin(scope, receive, send, name)
        form = decode(body, _TOKENIZE)
        texts = parse_texts(form.inputs, "inputs")
        if sum(map(len, texts)) > _MOST_TOKENIZED:
            raise InvalidRequest(
                f"[inputs] has more than {_MOST_TOKENIZED:,} characters.",
                remedy="Tokenize the texts in several requests.",
                cause=Cause.INPUT_TOO_LONG,
            )
        call_context = exchange.context.call_context()
        call = Tokenize(texts=texts, add_special_tokens=form.add_special_tokens, context=call_context)
        result = await self._gateway.inference.infer(exchange.endpoint.name, call)
        assert isinstance(result, Tokens)  # noqa: S101 - a Tokenize is answered with Tokens
        size = sum(map(len, result.items)) * _TOKEN_BYTES
        await exchange.respond(await off_loop(size, _tokens_body, result))

    async def info(self, request: Request) -> Response:
        """`GET …/info`."""
        return _json(info_of(self._endpoint(request), full=context_of(request.scope).is_admin))

    async def models(self, request: Request) -> Response:
        """`GET …/v1/models`: the endpoint alone."""
        return _json({"object": "list", "data": [model_object(self._endpoint(request))]})

    async def health(self, request: Request) -> Response:
        """`GET …/health`, and of `/hf/{endpoint}` itself: 200 without a body, or 503."""
        reason = self._gateway.startup.unready().get(self._endpoint(request).name)
        return _json({"error": reason, "error_type": "Unhealthy"}, 503) if reason else Response()

    async def _begin(
        self, scope: Scope, receive: Receive, send: Send, name: str | None
    ) -> tuple[Exchange, bytes]:
        """The endpoint that is asked, and what it is asked."""
        return self._exchange(scope, send, name), await read_body(receive)

    def _exchange(self, scope: Scope, send: Send, name: str | None) -> Exchange:
        context = context_of(scope)
        if context.face.name != openai.FACE.name:
            context.set_face(FACE)  # the path of `POST /` does not tell
        endpoint, kind = resolve_endpoint(self._gateway, context, _named(scope, name))
        if endpoint.task in GENERATION_TASKS and context.face is FACE:
            context.render_error = render_tgi
        return Exchange(self._gateway, endpoint, context, send, kind)

    def _endpoint(self, request: Request) -> Endpoint:
        name = _named(request.scope, request.path_params.get("name"))
        endpoint, _ = resolve_endpoint(self._gateway, context_of(request.scope), name)
        return endpoint


async def _write(exchange: Exchange, scope: Scope, body: bytes) -> None:
    fields = Fields(body)
    if "messages" in fields:
        await _chat(exchange, scope, fields)
    else:
        await handle_generation(exchange, fields, listed=True)


def _tokens_body(tokens: Tokens) -> bytes:
    """Encoded piece by piece: one call for all would hold up the event loop even from another thread."""
    texts = []
    for items in tokens.items:
        pieces = (items[start : start + _PIECE_TOKENS] for start in range(0, len(items), _PIECE_TOKENS))
        texts.append(b",".join(msgspec.json.encode(piece)[1:-1] for piece in pieces))
    return b"[" + b",".join(b"[%b]" % text for text in texts) + b"]"


async def _chat(exchange: Exchange, scope: Scope, fields: Fields) -> None:
    """Errors are TGI's for Hugging Face's own clients, OpenAI's for all others.

    Elasticsearch reads TGI's, too, until a stream has begun, and OpenAI's after that.
    """
    headers = dict(scope["headers"])
    if not is_hugging_face_client(headers):
        waits = is_elasticsearch(headers) and fields.left.get("stream") == b"true"
        exchange.context.render_error = render_tgi if waits else render_chat
        exchange.context.render_stream_error = render_chat
    await handle_chat(exchange, fields)


def _task_meant(body: bytes) -> Task | None:
    """The task that a body is made for, where it cannot be mistaken."""
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
    given = decode(parameters, _FIELDS).keys() if parameters.startswith(b"{") else set()
    return Task.COMPLETION if GENERATION_FIELDS & (fields.keys() | given) else None


def _named(scope: Scope, name: str | None) -> str:
    """The endpoint in the path, or the key's default."""
    key = context_of(scope).key
    name = name or (key.default_endpoint if key else None)
    if name is None:
        raise InvalidRequest(
            "This path belongs to the key's default endpoint, and the key has none.",
            remedy="Use /hf/{endpoint} as the base URL, or a key that was created with a default endpoint.",
        )
    return name


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _owns(segments: Sequence[str], headers: Mapping[bytes, bytes]) -> bool:
    return segments[0] in _OWN


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


_OWN = frozenset(
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
