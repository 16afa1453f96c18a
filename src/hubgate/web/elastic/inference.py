"""How each task's POST on the Elasticsearch face is answered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from hubgate.core.off_loop import off_loop, total
from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import Context, Encoding, GenerationCall, Vectors
from hubgate.domain.endpoint import GENERATION_TASKS, Task
from hubgate.domain.errors import HubgateError
from hubgate.web.elastic.endpoint_requests import SERVICE
from hubgate.web.elastic.errors import describe_call_error, status_exception
from hubgate.web.elastic.generation import ElasticEncoder, chat_body, completion_body
from hubgate.web.elastic.inference_requests import InferenceForm, read_chat, read_inference
from hubgate.web.elastic.options import RequestOptions, Timeout
from hubgate.web.elastic.responses import chunks_body, embeddings_body, ranks_body, sparse_body
from hubgate.web.http.asgi import Headers, respond
from hubgate.web.shared.embeddings import embed, embed_in_chunks, vector_headers, waited_header
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import generate, stream
from hubgate.web.shared.rerank import rerank

_NOT_IN_HEADERS = re.compile(r"[\x00-\x1f\x7f]+")
_IGNORED = "task_settings were ignored: a request says at its root what it wants otherwise than its endpoint."


class _Told(NamedTuple):
    """An answer."""

    body: bytes
    headers: Headers = ()
    warnings: tuple[str, ...] = ()


async def handle_inference(exchange: Exchange, options: RequestOptions, body: bytes) -> None:
    """Answer `POST /_inference/{task}?/{id}`.

    Raises:
        HubgateError: it cannot be answered.
    """
    endpoint = exchange.endpoint
    form = None if endpoint.task is Task.CHAT_COMPLETION else read_inference(body)
    timeout = options.timeout(form.timeout if form else None, task=endpoint.task)
    call_context = _call_context(exchange, timeout)
    try:
        if form is None:
            told = await _chat(exchange, body, call_context)
        else:
            told = await _ANSWERS[endpoint.task](exchange, form, call_context)
    except HubgateError as error:
        raise describe_call_error(error, endpoint.name, timeout.text) from None
    if form and form.task_settings:
        told = told._replace(warnings=(*told.warnings, _IGNORED))
    headers = [*told.headers, *map(warning_header, told.warnings)]
    spelled = await off_loop(len(told.body), options.spelled, told.body)
    await respond(exchange.send, 200, spelled, options.media_type, headers)


async def stream_inference(exchange: Exchange, options: RequestOptions, body: bytes) -> None:
    """Answer `POST /_inference/{task}?/{id}/_stream`.

    Raises:
        HubgateError: it cannot be answered.
    """
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
        call = form.complete(endpoint, _call_context(exchange, timeout))
    try:
        events = await stream(exchange, call)
        fault = partial(describe_call_error, name=endpoint.name, timeout=timeout.text)
        await exchange.send_stream(events, ElasticEncoder(endpoint.task, events.wire_format, fault))
    except HubgateError as error:
        raise describe_call_error(error, endpoint.name, timeout.text) from None


def warning_header(text: str) -> tuple[bytes, bytes]:
    """The header that Elasticsearch's clients show to their user; what Hugging Face says may have several lines."""
    quoted = _NOT_IN_HEADERS.sub(" ", text).replace('"', "'").replace("\\", "/")
    return b"warning", b'299 hubgate "' + quoted.encode("ascii", "replace") + b'"'


def _call_context(exchange: Exchange, timeout: Timeout) -> Context:
    return exchange.context.call_context(time.monotonic() + timeout.seconds)


async def _embed(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Told:
    gateway, context, endpoint = exchange.gateway, exchange.context, exchange.endpoint
    call = form.embed(call_context, exchange.kind)
    if form.chunking_settings is None:
        vectors = await embed(gateway, context, endpoint.name, call)
        told = await off_loop(total(vectors.items), _vectors_body, vectors)
        return _Told(told, vector_headers(vectors), _warnings(vectors))
    chunked = await embed_in_chunks(gateway, context, endpoint, call, form.chunking_settings)
    body = await asyncio.to_thread(chunks_body, chunked.items)
    return _Told(body, vector_headers(chunked.vectors), tuple(chunked.warnings))


def _vectors_body(vectors: Vectors) -> bytes:
    return embeddings_body(in_encoding(vectors, Encoding.JSON).items)


async def _embed_sparse(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Told:
    call = form.embed_sparse(call_context)
    vectors = await exchange.gateway.inference.embed_sparse(exchange.endpoint.name, call)
    exchange.note(texts=len(call.texts), tokens=vectors.tokens, waited=vectors.waited)
    told = await off_loop(total(vectors.items), sparse_body, vectors.items)
    return _Told(told, waited_header(vectors.waited))


async def _rerank(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Told:
    call = form.rerank(call_context)
    scores = await rerank(exchange, call)
    body = ranks_body(exchange.endpoint, form, call, scores)
    return _Told(body, waited_header(scores.waited), tuple(scores.warnings))


async def _complete(exchange: Exchange, form: InferenceForm, call_context: Context) -> _Told:
    generated = await generate(exchange, form.complete(exchange.endpoint, call_context))
    told = await off_loop(len(generated.body), completion_body, generated)
    return _Told(told, waited_header(generated.waited))


async def _chat(exchange: Exchange, body: bytes, call_context: Context) -> _Told:
    generated = await generate(exchange, read_chat(body, call_context))
    told = await off_loop(len(generated.body), chat_body, generated)
    return _Told(told, waited_header(generated.waited))


_ANSWERS: dict[Task, Callable[[Exchange, InferenceForm, Context], Awaitable[_Told]]] = {
    Task.TEXT_EMBEDDING: _embed,
    Task.SPARSE_EMBEDDING: _embed_sparse,
    Task.RERANK: _rerank,
    Task.COMPLETION: _complete,
}


def _warnings(vectors: Vectors) -> tuple[str, ...]:
    if not vectors.truncated:
        return vectors.warnings
    cut = (
        f"{vectors.truncated} of {len(vectors.items)} inputs were longer than the model reads, and were cut."
    )
    return (*vectors.warnings, cut)
