"""The OpenAI face: embeddings and models. CONTRACT.md has its contract and its oddities."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubgate.core.off_loop import off_loop, total
from hubgate.core.vectors import f32_to_base64, in_encoding
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.chunking import InvalidChunking
from hubgate.domain.errors import InvalidRequest
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunked import Chunked, EmbeddedChunk
from hubgate.web.http.asgi import Receive, Scope, Send, decode, read_body, respond
from hubgate.web.http.face import Face, InferenceRoute, Services, is_hugging_face_client
from hubgate.web.http.request_context import context_of
from hubgate.web.openai.errors import render, render_with_detail
from hubgate.web.openai.generation import handle_chat, handle_completions
from hubgate.web.openai.models import model_object, named
from hubgate.web.shared.embeddings import (
    Inputs,
    embed,
    embed_in_chunks,
    parse_input_type,
    parse_texts,
    resolve_endpoint,
    usage_object,
    vector_headers,
)
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields
from hubgate.web.shared.rerank import handle_rerank


class EmbeddingsForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/embeddings`: OpenAI's fields, `input_type`, `chunking_settings` and `token_counts`."""

    input: Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64", "not_set"] | None = None
    """Dify sends `not_set`, the word of its own form."""
    dimensions: int | None = None
    input_type: str | None = None
    chunking_settings: dict[str, Any] | None = None
    token_counts: bool = False
    """Whether each vector comes with the tokens that the model read for it, and the number of those it did not."""
    user: Any = None
    """OpenAI's mark for its own abuse checks: not read."""


EMBEDDINGS = msgspec.json.Decoder(EmbeddingsForm)


class OpenAI:
    """`/v1/embeddings`, `/v1/chat/completions`, `/v1/completions`, `/v1/rerank` and `/v1/models`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Embed texts; the model's name is the endpoint's."""
        form = decode(await read_body(receive), EMBEDDINGS)
        await handle_embeddings(self._gateway, scope, send, named(scope, form.model), form)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on with a conversation; the model's name is the endpoint's."""
        fields = Fields(await read_body(receive))
        await handle_chat(self._exchange(scope, send, fields), fields)

    async def completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on with texts; the model's name is the endpoint's."""
        fields = Fields(await read_body(receive))
        await handle_completions(self._exchange(scope, send, fields), fields)

    async def rerank(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rank documents; the model's name is the endpoint's."""
        body = await read_body(receive)
        await handle_rerank(self._exchange(scope, send, Fields(body)), body)

    async def models(self, request: Request) -> Response:
        """Every endpoint that the key may call, as a model."""
        may_call = context_of(request.scope).may_call
        listed = [
            model_object(endpoint)
            for endpoint in self._gateway.registry.endpoints()
            if may_call(endpoint.name)
        ]
        return _json({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """One endpoint, as a model."""
        endpoint = self._gateway.registry.find(request.path_params["name"])
        context_of(request.scope).endpoint = endpoint.name
        return _json(model_object(endpoint))

    def _exchange(self, scope: Scope, send: Send, fields: Fields) -> Exchange:
        context = context_of(scope)
        endpoint, _ = resolve_endpoint(self._gateway, context, named(scope, fields.take("model", str)))
        return Exchange(self._gateway, endpoint, context, send)


async def handle_embeddings(
    gateway: Gateway, scope: Scope, send: Send, name: str, form: EmbeddingsForm
) -> None:
    """Answer OpenAI's embeddings request with an endpoint.

    Raises:
        HubgateError: it cannot be answered.
    """
    context = context_of(scope)
    endpoint, kind = resolve_endpoint(gateway, context, name)
    texts = parse_texts(form.input, "input")
    call = Embed(
        texts=texts,
        input_type=parse_input_type(form.input_type) or kind,
        dimensions=form.dimensions,
        context=context.call_context(),
    )
    as_base64 = form.encoding_format == "base64"
    if form.chunking_settings is None:
        vectors = await embed(gateway, context, endpoint.name, call, counts=form.token_counts)
        counts = form.token_counts and vectors.exact  # else they are a total, divided
        usage = usage_object(texts, vectors)
        size = total(vectors.items)
        body = await off_loop(size, _render_vectors, vectors, name, usage, as_base64=as_base64, counts=counts)
    else:
        encoding = Encoding.F32 if as_base64 else Encoding.JSON
        try:
            chunked = await embed_in_chunks(
                gateway,
                context,
                endpoint,
                call,
                form.chunking_settings,
                counts=form.token_counts,
                encoding=encoding,
            )
        except InvalidChunking as error:
            raise InvalidRequest(error.message, remedy=error.remedy) from None
        vectors = chunked.vectors
        counts = form.token_counts and vectors.exact
        body = await asyncio.to_thread(_render_chunks, chunked, name, as_base64=as_base64, counts=counts)
    await respond(send, 200, body, headers=vector_headers(vectors))


def _render_vectors(
    vectors: Vectors, model: str, usage: dict[str, int | bool], *, as_base64: bool, counts: bool
) -> bytes:
    return _render(_embeddings(vectors, as_base64=as_base64, counts=counts), model, usage)


def _render_chunks(chunked: Chunked, model: str, *, as_base64: bool, counts: bool) -> bytes:
    data = (_chunks(chunks, as_base64=as_base64, counts=counts) for chunks in chunked.items)
    items = [b'{"object":"embedding","index":%d,"chunks":[%b]}' % numbered for numbered in enumerate(data)]
    return _render(items, model, usage_object(chunked.texts, chunked.vectors), chunked.warnings)


def _render(
    data: Iterable[bytes], model: str, usage: dict[str, int | bool], warnings: Sequence[str] = ()
) -> bytes:
    """OpenAI's answer, put together from the bytes of its data; `warnings` is hubgate's own."""
    return b'{"object":"list","data":[%b],"model":"%b","usage":%b%b}' % (
        b",".join(data),
        model.encode(),  # a name and a known word have nothing that JSON would escape
        msgspec.json.encode(usage),
        b',"warnings":' + msgspec.json.encode(warnings) if warnings else b"",
    )


def _embeddings(vectors: Vectors, *, as_base64: bool, counts: bool) -> Iterator[bytes]:
    held = in_encoding(vectors, Encoding.F32 if as_base64 else Encoding.JSON)
    tokens = (counts and held.text_tokens) or repeat(None)
    unread = held.text_unread or repeat(None)
    for index, (item, count, rest) in enumerate(zip(held.items, tokens, unread, strict=False)):
        spelled = _spelled(item, as_base64=as_base64)
        yield b'{"object":"embedding","index":%d,"embedding":%b%b}' % (index, spelled, _counted(count, rest))


def _chunks(chunks: Sequence[EmbeddedChunk], *, as_base64: bool, counts: bool) -> bytes:
    """Offsets are in code points, as Python, Rust and Go's runes count them."""
    return b",".join(
        b'{"index":%d,"start":%d,"end":%d,"text":%b,"embedding":%b%b}'
        % (
            index,
            chunk.place.start,
            chunk.place.end,
            msgspec.json.encode(chunk.text),
            _spelled(chunk.vector, as_base64=as_base64),
            _counted(chunk.tokens if counts else None, chunk.unread),
        )
        for index, chunk in enumerate(chunks)
    )


def _counted(tokens: int | None, unread: int | None) -> bytes:
    read = b"" if tokens is None else b',"tokens":%d' % tokens
    return read if unread is None else b'%b,"tokens_unread":%d' % (read, unread)


def _spelled(item: bytes, *, as_base64: bool) -> bytes:
    return b'"%b"' % f32_to_base64(item) if as_base64 else item


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _owns(segments: Sequence[str], headers: Mapping[bytes, bytes]) -> bool:
    if segments[0] == "hf" and len(segments) > 2:
        tail = segments[2].rstrip("/")
        return tail in _BELOW_HF or (tail in _BELOW_HF_SHARED and not is_hugging_face_client(headers))
    return segments[0] in _OWN


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
        InferenceRoute("/v2/rerank", face.rerank),
        # Cohere's clients add their own version to a base URL that ends in /v1.
        InferenceRoute("/v1/v1/rerank", face.rerank),
        InferenceRoute("/v1/v2/rerank", face.rerank),
        Route("/v1/models", face.models, methods=["GET"]),
        Route("/v1/models/{name}", face.model, methods=["GET"]),
        Route("/models", face.models, methods=["GET"]),
        Route("/models/{name}", face.model, methods=["GET"]),
    ]


_OWN = frozenset({"v1", "v2", "embeddings", "models", "chat", "completions", "rerank"})
# Below /hf/{endpoint}: routes that only clients of OpenAI's API call,
_BELOW_HF = frozenset({"v1/embeddings", "embeddings", "v1/rerank", "v2/rerank"})
# and routes that all kinds call: Hugging Face's own clients read text-generation-inference's errors there.
_BELOW_HF_SHARED = frozenset({"v1/chat/completions", "chat/completions", "v1/completions", "completions"})
FACE = Face(name="openai", owns=_owns, render_error=render, routes=_routes)


def _reads_detail(segments: Sequence[str], headers: Mapping[bytes, bytes]) -> bool:
    path = f"/{'/'.join(segments)}".rstrip("/")
    return path.endswith(("/rerank", "/embeddings")) and _owns(segments, headers)


WITH_DETAIL = Face(name="openai", owns=_reads_detail, render_error=render_with_detail)
"""The same face where plugins of Jina and Xinference call it."""
