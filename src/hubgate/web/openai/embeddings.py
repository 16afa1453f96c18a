"""OpenAI's embeddings, at the root and below an endpoint's own base URL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Literal

import msgspec

from hubgate.core.off_loop import off_loop
from hubgate.core.quantization import VectorFormat, work_size
from hubgate.domain.calls import Embed, Vectors
from hubgate.domain.chunking import InvalidChunking
from hubgate.domain.endpoint import InputType, OutputDtype
from hubgate.domain.errors import InvalidRequest
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunks import Chunked, EmbeddedChunk
from hubgate.web.http.asgi import Scope, Send, respond
from hubgate.web.http.request_context import context_of
from hubgate.web.openai.embedding_options import OtherOptions, text_of
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


_START = b'{"object":"list","data":['
EMBEDDINGS = msgspec.json.Decoder(EmbeddingsForm)
_FLOATS, _BASE64 = VectorFormat(), VectorFormat(as_base64=True)
_OPENAI_CLIENT = b"x-stainless-lang"
"""A header that OpenAI's clients send, in every language."""


async def handle_embeddings(
    gateway: Gateway, scope: Scope, send: Send, name: str, form: EmbeddingsForm
) -> None:
    context = context_of(scope)
    endpoint, kind = resolve_endpoint(gateway, context, name)
    texts = parse_texts(form.input, "input", text_of=text_of)
    style = _format(form, scope)
    call = Embed(
        texts=texts,
        input_type=_input_type(form) or kind,
        dimensions=form.output_dimension if form.dimensions is None else form.dimensions,
        normalize=form.normalized,
        truncate=form.truncation if form.truncate is None else form.truncate,
        encoding=style.source,
        context=context.call_context(),
    )
    model = _model(endpoint.name, name)
    if form.chunking_settings is None:
        vectors = await embed(gateway, context, endpoint.name, call, counts=form.token_counts)
        counts = form.token_counts and vectors.exact  # otherwise they are a total, divided
        usage = usage_object(texts, vectors)
        size = work_size(vectors, style.dtype)
        body = await off_loop(size, _render_vectors, vectors, model, usage, style, counts=counts)
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
        body = await asyncio.to_thread(_render_chunks, chunked, model, style, counts=counts)
    await respond(send, 200, body, headers=vector_headers(vectors))


def _model(endpoint: str, name: str) -> str:
    """The model as it was named, but with the endpoint behind an alias."""
    if name == endpoint:
        return name
    _, colon, word = name.partition(":")
    return endpoint + colon + word


def _input_type(form: EmbeddingsForm) -> InputType | None:
    if form.input_type is None and form.task is None and not form.late_chunking:
        return None
    return parse_input_type(form.input_type) or form.parsed_task()


def _format(form: EmbeddingsForm, scope: Scope) -> VectorFormat:
    if form.output_dtype is None and form.embedding_type is None:
        return _BASE64 if form.encoding_format == "base64" else _FLOATS
    dtype = form.parsed_dtype()
    as_base64 = "base64" in (form.encoding_format, form.embedding_type)
    if as_base64 and dtype is not OutputDtype.FLOAT:
        # OpenAI's own clients request base64 by default, and would read any bytes as single precision.
        as_base64 = all(name != _OPENAI_CLIENT for name, _ in scope["headers"])
    return VectorFormat(dtype, as_base64)


def _render_vectors(
    vectors: Vectors, model: str, usage: dict[str, int | bool], style: VectorFormat, *, counts: bool
) -> bytes:
    values = style.values(vectors)
    if vectors.text_unread or (counts and vectors.text_tokens):
        values = _with_token_counts(vectors, values, counts=counts)
    # In pieces, so that long vectors are copied once.
    parts = [b""] * (2 * len(values) + 1)
    parts[:-1:2] = _heads(len(values))
    parts[1::2] = values
    parts[-1] = b"}" + _end(model, usage)
    return b"".join(parts)


def _render_chunks(chunked: Chunked, model: str, style: VectorFormat, *, counts: bool) -> bytes:
    data = (_chunks(chunks, style, counts=counts) for chunks in chunked.items)
    items = [b'{"object":"embedding","index":%d,"chunks":[%b]}' % numbered for numbered in enumerate(data)]
    end = _end(model, usage_object(chunked.texts, chunked.vectors), chunked.warnings)
    return b"".join((_START, b",".join(items), end))


def _end(model: str, usage: dict[str, int | bool], warnings: Sequence[str] = ()) -> bytes:
    """What follows the data in OpenAI's response; `warnings` is hubgate's own."""
    return b'],"model":"%b","usage":%b%b}' % (
        model.encode(),  # an endpoint name and an input type need no escapes
        msgspec.json.encode(usage),
        b',"warnings":' + msgspec.json.encode(warnings) if warnings else b"",
    )


def _with_token_counts(vectors: Vectors, values: Sequence[bytes], *, counts: bool) -> Sequence[bytes]:
    tokens = vectors.text_tokens if counts else None
    parts = zip(values, tokens or repeat(None), vectors.text_unread or repeat(None), strict=False)
    return [value + _token_counts(*each) for value, *each in parts]


@lru_cache(maxsize=64)
def _heads(count: int) -> Sequence[bytes]:
    """What precedes each of the vectors."""
    first = _START + b'{"object":"embedding","index":0,"embedding":'
    return [first, *(b'},{"object":"embedding","index":%d,"embedding":' % index for index in range(1, count))]


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
