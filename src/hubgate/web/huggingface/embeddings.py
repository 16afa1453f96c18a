"""text-embeddings-inference's (TEI's) `/embed`, `/similarity` and `POST /`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from hubgate.core.off_loop import off_loop, total
from hubgate.core.vectors import cosines, in_encoding
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.asgi import Scope, decode, respond
from hubgate.web.openai.embeddings import EmbeddingsForm, handle_embeddings
from hubgate.web.schemas.validation import convert
from hubgate.web.shared.embeddings import Inputs, embed, joined, parse_input_type, parse_texts, vector_headers
from hubgate.web.shared.exchange import Exchange


class _Options(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    normalize: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    encoding_format: Literal["float", "base64", "not_set"] | None = None
    input_type: str | None = None
    """hubgate's own."""


class _EmbedForm(_Options, forbid_unknown_fields=True, kw_only=True):
    """TEI's body, or OpenAI's, which has `input`."""

    inputs: Inputs | dict[str, Any] | None = None
    parameters: _Options | None = None
    """Where clients of 2023 put the options."""
    options: Any = None
    """`wait_for_model` and `use_cache`, of a service that no longer exists; ignored."""
    input: Inputs | None = None
    model: Any = None
    """Ignored, since the path names the endpoint. Clients send `dummy`, `tgi` or a URL."""
    user: Any = None


class _Comparison(msgspec.Struct):
    """The value of `inputs` for `/similarity`."""

    source_sentence: str
    sentences: list[Any]


_EMBED = msgspec.json.Decoder(_EmbedForm)


async def handle_embed(exchange: Exchange, scope: Scope, body: bytes) -> None:
    """Embed texts, or compare a sentence with others, depending on `inputs`."""
    form = decode(body, _EMBED)
    if isinstance(form.inputs, dict):
        await _compare(exchange, form, form.inputs)
    elif form.inputs is None and form.input is not None:
        name, send = exchange.endpoint.name, exchange.send
        await handle_embeddings(exchange.gateway, scope, send, name, _as_openai(form, form.input))
    else:
        vectors = await embed(
            exchange.gateway, exchange.context, exchange.endpoint.name, _call(exchange, form)
        )
        reply = await off_loop(total(vectors.items), _render_vectors, vectors)
        await respond(exchange.send, 200, reply, headers=vector_headers(vectors))


async def _compare(exchange: Exchange, form: _EmbedForm, inputs: dict[str, Any]) -> None:
    """The cosine of each sentence with the source. All texts have the same input type."""
    try:
        comparison = convert(inputs, _Comparison, field="inputs")
    except InvalidRequest as error:
        raise InvalidRequest(
            error.message,
            remedy="Send a string, a list of strings, or {source_sentence, sentences}.",
        ) from None
    sentences = parse_texts(comparison.sentences, "inputs.sentences")
    texts = [*parse_texts(comparison.source_sentence, "inputs.source_sentence"), *sentences]
    options = form if form.parameters is None else _both(form, form.parameters)
    call = Embed(
        texts=texts,
        input_type=InputType.CLUSTERING,
        prompt_name=options.prompt_name,
        truncate=options.truncate,
        truncate_left=_truncate_left(options),
        context=exchange.context.call_context(),
    )
    vectors = await embed(exchange.gateway, exchange.context, exchange.endpoint.name, call)
    reply = await asyncio.to_thread(_render_cosines, vectors)
    await respond(exchange.send, 200, reply, headers=vector_headers(vectors))


def _render_cosines(vectors: Vectors) -> bytes:
    source, *others = in_encoding(vectors, Encoding.F32).items
    return msgspec.json.encode(cosines(source, others))


def _render_vectors(vectors: Vectors) -> bytes:
    return joined(b"[", in_encoding(vectors, Encoding.JSON).items, b",", b"]")


def _call(exchange: Exchange, form: _EmbedForm) -> Embed:
    options = form if form.parameters is None else _both(form, form.parameters)
    return Embed(
        texts=_texts(form, options),
        input_type=parse_input_type(options.input_type) or exchange.input_type,
        prompt_name=options.prompt_name,
        dimensions=options.dimensions,
        normalize=options.normalize,
        truncate=options.truncate,
        truncate_left=_truncate_left(options),
        encoding=Encoding.JSON,
        context=exchange.context.call_context(),
    )


def _both(form: _Options, parameters: _Options) -> _Options:
    """All options. Those at the root take precedence."""
    first, second = (msgspec.structs.asdict(each) for each in (form, parameters))
    return _Options(**{name: value if first[name] is None else first[name] for name, value in second.items()})


def _truncate_left(options: _Options) -> bool | None:
    direction = options.truncation_direction
    return None if direction is None else direction.lower() == "left"


def _texts(form: _EmbedForm, options: _Options) -> Sequence[str]:
    if options.encoding_format == "base64":
        raise InvalidRequest(
            "[encoding_format] cannot be base64 here: the response is a list of lists of numbers.",
            remedy="Use /v1/embeddings under the same base URL, which supports base64.",
        )
    if form.inputs is None or isinstance(form.inputs, dict):
        raise InvalidRequest("[inputs] is required.", remedy="Send a string or a list of strings.")
    return parse_texts(form.inputs, "inputs")


def _as_openai(form: _EmbedForm, texts: Inputs) -> EmbeddingsForm:
    return EmbeddingsForm(
        input=texts,
        encoding_format=form.encoding_format,
        dimensions=form.dimensions,
        input_type=form.input_type,
    )
