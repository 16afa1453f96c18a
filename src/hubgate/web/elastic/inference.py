"""Serves `POST /_inference/…`: one handler per task."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from hubgate.core.off_loop import off_loop, total
from hubgate.core.quantization import quantize, quantized_to_json, work_size
from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import (
    Chat,
    Complete,
    Context,
    Embed,
    Encoding,
    GenerationCall,
    Rerank,
    SparseEmbed,
    SparseVectors,
    Vectors,
)
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, OutputDtype, Task
from hubgate.domain.errors import HubgateError
from hubgate.service.inference.chunks import EmbeddedChunk
from hubgate.web.elastic.errors import describe_call_error, status_exception
from hubgate.web.elastic.generation import ElasticEncoder, chat_body, completion_body
from hubgate.web.elastic.inference_requests import ElementType, InferenceForm, read_chat, read_inference
from hubgate.web.elastic.options import SERVICE, RequestOptions, Timeout
from hubgate.web.http.asgi import Headers, respond
from hubgate.web.http.request_context import SPARSE_REPLY_BYTES
from hubgate.web.shared.embeddings import embed, embed_in_chunks, joined, vector_headers, waited_header
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import generate, stream
from hubgate.web.shared.rerank import rerank, top_ranked

_NOT_IN_HEADERS = re.compile(r"[\x00-\x1f\x7f]+")
_TASK_SETTINGS_IGNORED = (
    "task_settings were ignored: to override the endpoint's settings, use fields at the root of the request."
)


class _Reply(NamedTuple):
    body: bytes
    headers: Headers = ()
    warnings: Sequence[str] = ()


async def handle_inference(exchange: Exchange, options: RequestOptions, request_body: bytes) -> None:
    """`POST /_inference/{task}?/{id}`."""
    endpoint = exchange.endpoint
    form = None if endpoint.task is Task.CHAT_COMPLETION else read_inference(request_body)
    timeout = options.timeout(form.timeout if form else None, task=endpoint.task)
    call_context = _call_context(exchange, timeout)
    try:
        if form is None:
            reply = await _chat(exchange, request_body, call_context)
        else:
            reply = await _HANDLERS.get(endpoint.task, _reject)(exchange, form, call_context)
    except HubgateError as error:
        raise describe_call_error(error, endpoint.name, timeout.text) from None
    if form and form.task_settings:
        reply = reply._replace(warnings=(*reply.warnings, _TASK_SETTINGS_IGNORED))
    headers = [*reply.headers, *map(warning_header, reply.warnings)]
    body = await off_loop(len(reply.body), options.format_json, reply.body) if options.pretty else reply.body
    await respond(exchange.send, 200, body, options.media_type, headers)


async def handle_stream(exchange: Exchange, options: RequestOptions, body: bytes) -> None:
    """`POST /_inference/{task}?/{id}/_stream`."""
    endpoint = exchange.endpoint
    if endpoint.task not in GENERATION_TASKS:
        raise status_exception(
            f"Streaming is not allowed for service [{SERVICE}] and task [{endpoint.task}]. "
            f"Supported tasks: [{Task.COMPLETION},{Task.CHAT_COMPLETION}]",
            status=405,
        )
    call: GenerationCall
    if endpoint.task is Task.CHAT_COMPLETION:
        timeout = options.timeout(task=endpoint.task)
        call = read_chat(body, _call_context(exchange, timeout))
    else:
        form = read_inference(body)
        timeout = options.timeout(form.timeout, task=endpoint.task)
        call = _completion_call(endpoint, form, _call_context(exchange, timeout))
    try:
        events = await stream(exchange, call)
        describe = partial(describe_call_error, name=endpoint.name, timeout=timeout.text)
        await exchange.send_stream(events, ElasticEncoder(endpoint.task, events.wire_format, describe))
    except HubgateError as error:
        raise describe_call_error(error, endpoint.name, timeout.text) from None


def warning_header(text: str) -> tuple[bytes, bytes]:
    """The header that Elasticsearch's clients show to their user. Hugging Face's messages may have several lines."""
    quoted = _NOT_IN_HEADERS.sub(" ", text).replace('"', "'").replace("\\", "/")
    return b"warning", b'299 hubgate "' + quoted.encode("ascii", "replace") + b'"'


def _call_context(exchange: Exchange, timeout: Timeout) -> Context:
    return exchange.context.call_context(time.monotonic() + timeout.seconds)


async def _embed(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Reply:
    gateway, context, endpoint = exchange.gateway, exchange.context, exchange.endpoint
    kind = form.element_type()
    call = Embed(
        texts=form.texts(Task.TEXT_EMBEDDING),
        input_type=form.parsed_input_type() or exchange.input_type,
        encoding=_encoding(kind),
        context=call_context,
    )
    if form.chunking_settings is None:
        vectors = await embed(gateway, context, endpoint.name, call)
        body = await off_loop(work_size(vectors, kind.dtype), _render_vectors, vectors, kind)
        return _Reply(body, vector_headers(vectors), _warnings(vectors))
    chunked = await embed_in_chunks(
        gateway, context, endpoint, call, form.chunking_settings, encoding=_encoding(kind)
    )
    body = await asyncio.to_thread(_render_chunks, chunked.items, kind)
    return _Reply(body, vector_headers(chunked.vectors), chunked.warnings)


async def _embed_sparse(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Reply:
    call = SparseEmbed(texts=form.texts(Task.SPARSE_EMBEDDING), context=call_context)
    await exchange.context.reserve(len(call.texts) * SPARSE_REPLY_BYTES)
    vectors = await exchange.gateway.inference.embed_sparse(exchange.endpoint.name, call)
    exchange.record(texts=len(call.texts), tokens=vectors.tokens, waited=vectors.waited)
    body = await off_loop(total(vectors.items), _render_sparse, vectors)
    return _Reply(body, waited_header(vectors.waited))


async def _rerank(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Reply:
    """Fields of the request take precedence over the endpoint's settings."""
    endpoint, texts = exchange.endpoint, form.texts(Task.RERANK)
    scores = await rerank(exchange, Rerank(query=form.query or "", texts=texts, context=call_context))
    top_n = endpoint.top_n if form.top_n is None else form.top_n
    with_texts = endpoint.return_documents if form.return_documents is None else form.return_documents
    ranks = [
        {"index": index, "relevance_score": score, **({"text": texts[index]} if with_texts else {})}
        for index, score in top_ranked(scores, top_n)
    ]
    return _Reply(msgspec.json.encode({"rerank": ranks}), waited_header(scores.waited), scores.warnings)


async def _complete(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Reply:
    generated = await generate(exchange, _completion_call(exchange.endpoint, form, call_context))
    body = await off_loop(len(generated.body), completion_body, generated)
    return _Reply(body, waited_header(generated.waited))


async def _chat(exchange: Exchange, body: bytes, call_context: Context) -> _Reply:
    generated = await generate(exchange, read_chat(body, call_context))
    rendered = await off_loop(len(generated.body), chat_body, generated)
    return _Reply(rendered, waited_header(generated.waited))


async def _reject(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Reply:
    del form, call_context
    raise status_exception(f"The [{SERVICE}] service does not support task type [{exchange.endpoint.task}].")


_HANDLERS: dict[Task, Callable[[Exchange, InferenceForm, Context], Awaitable[_Reply]]] = {
    Task.TEXT_EMBEDDING: _embed,
    Task.SPARSE_EMBEDDING: _embed_sparse,
    Task.RERANK: _rerank,
    Task.COMPLETION: _complete,
}


def _completion_call(endpoint: Endpoint, form: InferenceForm, call_context: Context) -> GenerationCall:
    """A chat with one user message if the model has a chat template, as in Elasticsearch."""
    texts = form.texts(Task.COMPLETION)
    if len(texts) != 1:
        raise status_exception("Hugging Face completions only accepts 1 input")
    if not endpoint.facts.chats:
        return Complete(prompt=texts[0], fields={}, context=call_context)
    message = {"role": "user", "content": texts[0]}
    return Chat(fields={"messages": msgspec.json.encode([message])}, context=call_context)


def _warnings(vectors: Vectors) -> tuple[str, ...]:
    if not vectors.truncated:
        return vectors.warnings
    count = f"{vectors.truncated} of {len(vectors.items)} inputs"
    return (*vectors.warnings, f"{count} were longer than the model reads, and were cut.")


def _encoding(kind: ElementType) -> Encoding:
    return Encoding.JSON if kind is ElementType.FLOAT else Encoding.F32


def _element_value(item: bytes, kind: ElementType) -> bytes:
    """A vector in the encoding of its type, as JSON. Bits are signed bytes, as a `dense_vector` field reads them."""
    if kind is ElementType.FLOAT:
        return item
    return quantized_to_json(quantize(item, kind.dtype), OutputDtype.INT8)


def _render_vectors(vectors: Vectors, kind: ElementType) -> bytes:
    """`{"text_embedding": [{"embedding": […]}, …]}`, or the same below the name of another element type."""
    items = in_encoding(vectors, _encoding(kind)).items
    if kind is not ElementType.FLOAT:
        items = [_element_value(item, kind) for item in items]
    return joined(b'{"%b":[{"embedding":' % kind.encode(), items, b'},{"embedding":', b"}]}")


def _render_sparse(vectors: SparseVectors) -> bytes:
    """`{"sparse_embedding": [{"is_truncated", "embedding": {token: weight}}, …]}`.

    No engine reports whether a text was cut.
    """
    items = (b'{"is_truncated":false,"embedding":%b}' % item for item in vectors.items)
    return b'{"sparse_embedding":[%b]}' % b",".join(items)


def _render_chunks(items: Sequence[Sequence[EmbeddedChunk]], kind: ElementType) -> bytes:
    """`{"text_embedding": [{"chunks": [{"start_offset", "end_offset", "text", "embedding"}, …]}, …]}`.

    Offsets are in UTF-16 code units, as in Elasticsearch.
    """
    return b"".join(_chunk_parts(items, kind))


def _chunk_parts(items: Sequence[Sequence[EmbeddedChunk]], kind: ElementType) -> Iterator[bytes]:
    before = b'{"%b":[{"chunks":[' % kind.encode()
    for chunks in items:
        yield before
        yield b",".join(_render_chunk(chunk, kind) for chunk in chunks)
        before = b']},{"chunks":['
    yield b"]}]}"


def _render_chunk(chunk: EmbeddedChunk, kind: ElementType) -> bytes:
    return b'{"start_offset":%d,"end_offset":%d,"text":%b,"embedding":%b}' % (
        chunk.place.start_utf16,
        chunk.place.end_utf16,
        msgspec.json.encode(chunk.text),
        _element_value(chunk.vector, kind),
    )
