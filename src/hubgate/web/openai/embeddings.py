"""OpenAI's embeddings, at the root and below an endpoint's own base URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal

import msgspec

from hubgate.core.off_loop import off_loop
from hubgate.core.quantization import VectorFormat, work_size
from hubgate.domain.calls import Embed, OutputDtype, Vectors
from hubgate.domain.chunking import InvalidChunking
from hubgate.domain.errors import InvalidRequest
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunks import Chunked, EmbeddedChunk
from hubgate.web.http.asgi import Scope, Send, respond
from hubgate.web.http.request_context import context_of
from hubgate.web.openai.embedding_options import OtherOptions, plain_texts
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


class EmbeddingsForm(OtherOptions, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/embeddings`: OpenAI's fields, hubgate's own, and those of `OtherOptions`."""

    input: Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64", "not_set"] | None = None
    """Dify sends `not_set`, a value of its own form."""
    dimensions: int | None = None
    input_type: str | None = None
    chunking_settings: dict[str, Any] | None = None
    token_counts: bool = False
    """Whether each vector comes with the number of tokens that the model read, and that it cut off."""
    user: Any = None
    """For OpenAI's abuse checks; ignored."""


EMBEDDINGS = msgspec.json.Decoder(EmbeddingsForm)
_OPENAI_CLIENT = b"x-stainless-lang"
"""A header that OpenAI's clients send, in every language."""


async def handle_embeddings(
    gateway: Gateway, scope: Scope, send: Send, name: str, form: EmbeddingsForm
) -> None:
    context = context_of(scope)
    endpoint, kind = resolve_endpoint(gateway, context, name)
    texts = parse_texts(plain_texts(form.input), "input")
    call = Embed(
        texts=texts,
        input_type=parse_input_type(form.input_type) or form.parsed_task() or kind,
        dimensions=form.output_dimension if form.dimensions is None else form.dimensions,
        normalize=form.normalized,
        truncate=form.truncation if form.truncate is None else form.truncate,
        context=context.call_context(),
    )
    style = _format(form, scope)
    if form.chunking_settings is None:
        vectors = await embed(gateway, context, endpoint.name, call, counts=form.token_counts)
        counts = form.token_counts and vectors.exact  # otherwise they are a total, divided
        usage = usage_object(texts, vectors)
        size = work_size(vectors, style.dtype)
        body = await off_loop(size, _render_vectors, vectors, name, usage, style, counts=counts)
    else:
        try:
            chunked = await embed_in_chunks(
                gateway,
                context,
                endpoint,
                call,
                form.chunking_settings,
                counts=form.token_counts,
                encoding=style.source,
            )
        except InvalidChunking as error:
            raise InvalidRequest(error.message, remedy=error.remedy) from None
        vectors = chunked.vectors
        counts = form.token_counts and vectors.exact
        body = await asyncio.to_thread(_render_chunks, chunked, name, style, counts=counts)
    await respond(send, 200, body, headers=vector_headers(vectors))


def _format(form: EmbeddingsForm, scope: Scope) -> VectorFormat:
    dtype = form.parsed_dtype()
    as_base64 = "base64" in (form.encoding_format, form.embedding_type)
    if as_base64 and dtype is not OutputDtype.FLOAT:
        # OpenAI's own clients request base64 by default, and would read any bytes as single precision.
        as_base64 = all(name != _OPENAI_CLIENT for name, _ in scope["headers"])
    return VectorFormat(dtype, as_base64)


def _render_vectors(
    vectors: Vectors, model: str, usage: dict[str, int | bool], style: VectorFormat, *, counts: bool
) -> bytes:
    return _render(_embeddings(vectors, style, counts=counts), model, usage)


def _render_chunks(chunked: Chunked, model: str, style: VectorFormat, *, counts: bool) -> bytes:
    data = (_chunks(chunks, style, counts=counts) for chunks in chunked.items)
    items = [b'{"object":"embedding","index":%d,"chunks":[%b]}' % numbered for numbered in enumerate(data)]
    return _render(items, model, usage_object(chunked.texts, chunked.vectors), chunked.warnings)


def _render(
    data: Iterable[bytes], model: str, usage: dict[str, int | bool], warnings: Sequence[str] = ()
) -> bytes:
    """OpenAI's response around rendered data; `warnings` is hubgate's own."""
    return b'{"object":"list","data":[%b],"model":"%b","usage":%b%b}' % (
        b",".join(data),
        model.encode(),  # an endpoint name and an input type need no escapes
        msgspec.json.encode(usage),
        b',"warnings":' + msgspec.json.encode(warnings) if warnings else b"",
    )


def _embeddings(vectors: Vectors, style: VectorFormat, *, counts: bool) -> Iterator[bytes]:
    tokens = (counts and vectors.text_tokens) or repeat(None)
    unread = vectors.text_unread or repeat(None)
    for index, (value, count, rest) in enumerate(zip(style.values(vectors), tokens, unread, strict=False)):
        yield b'{"object":"embedding","index":%d,"embedding":%b%b}' % (
            index,
            value,
            _token_counts(count, rest),
        )


def _chunks(chunks: Sequence[EmbeddedChunk], style: VectorFormat, *, counts: bool) -> bytes:
    """Offsets are in code points, as in Python, Rust and Go."""
    return b",".join(
        b'{"index":%d,"start":%d,"end":%d,"text":%b,"embedding":%b%b}'
        % (
            index,
            chunk.place.start,
            chunk.place.end,
            msgspec.json.encode(chunk.text),
            style.value(chunk.vector),
            _token_counts(chunk.tokens if counts else None, chunk.unread),
        )
        for index, chunk in enumerate(chunks)
    )


def _token_counts(tokens: int | None, unread: int | None) -> bytes:
    read = b"" if tokens is None else b',"tokens":%d' % tokens
    return read if unread is None else b'%b,"tokens_unread":%d' % (read, unread)
