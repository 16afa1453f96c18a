"""Cohere's `/v1/embed` and `/v2/embed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from hubgate.core.off_loop import off_loop, total
from hubgate.core.quantization import VectorFormat, work_size
from hubgate.domain.calls import Embed, Vectors
from hubgate.domain.endpoint import Endpoint, OutputDtype
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.asgi import respond
from hubgate.web.shared.embeddings import (
    embed,
    estimate_tokens,
    joined,
    parse_input_type,
    parse_texts,
    vector_headers,
)
from hubgate.web.shared.exchange import Exchange

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class EmbedForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of both versions; `/v1` does not use `inputs`, `output_dimension` and `max_tokens`."""

    model: str | None = None
    texts: list[Any] | None = None
    inputs: list[Any] | None = None
    """Version 2: `[{"content": [{"type": "text", "text"}]}]`."""
    images: list[Any] | None = None
    input_type: str | None = None
    embedding_types: list[EmbeddingType] | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    output_dimension: int | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    priority: Any = None
    """Of Cohere's own queue; ignored."""


_FORMATS: dict[EmbeddingType, VectorFormat] = {
    "float": VectorFormat(),
    "int8": VectorFormat(OutputDtype.INT8),
    "uint8": VectorFormat(OutputDtype.UINT8),
    "binary": VectorFormat(OutputDtype.BINARY),
    "ubinary": VectorFormat(OutputDtype.UBINARY),
    "base64": VectorFormat(as_base64=True),
}
EMBED = msgspec.json.Decoder(EmbedForm)


async def handle_embed(exchange: Exchange, form: EmbedForm, version: int) -> None:
    _refuse_unsupported(form, exchange.endpoint)
    texts = _texts(form)
    # Version 1 has embeddings without a type unless types are requested.
    types: Sequence[EmbeddingType] = form.embedding_types or (("float",) if version > 1 else ())
    call = Embed(
        texts=texts,
        input_type=parse_input_type(form.input_type) or exchange.input_type,
        dimensions=form.output_dimension,
        truncate=None if form.truncate is None else form.truncate != "NONE",
        truncate_left=True if form.truncate == "START" else None,
        encoding=_FORMATS[types[0]].source if types else None,
        context=exchange.context.call_context(),
    )
    vectors = await embed(exchange.gateway, exchange.context, exchange.endpoint.name, call)
    head = {"id": exchange.context.request_id, "texts": texts, "meta": _meta(texts, vectors, version)}
    size = sum(work_size(vectors, _FORMATS[kind].dtype) for kind in types) or total(vectors.items)
    body = await off_loop(size, _render, vectors, types, head)
    await respond(exchange.send, 200, body, headers=vector_headers(vectors))


def _texts(form: EmbedForm) -> Sequence[str]:
    if form.texts is not None and form.inputs is not None:
        raise InvalidRequest("[texts] and [inputs] cannot be sent together.", remedy="Send only one.")
    if form.inputs is not None:
        return parse_texts([_text_of(item, index) for index, item in enumerate(form.inputs)], "inputs")
    if form.texts is None:
        raise InvalidRequest("[texts] is required.", remedy="Send a list of strings.")
    return parse_texts(form.texts, "texts")


def _text_of(item: Any, index: int) -> Any:
    match item:
        case {"content": [{"type": "text", "text": text}]}:
            return text
    raise InvalidRequest(
        f"[inputs[{index}]] is not supported: hubgate embeds one text each.",
        remedy='Send {"content": [{"type": "text", "text": "…"}]}.',
    )


def _refuse_unsupported(form: EmbedForm, endpoint: Endpoint) -> None:
    if form.images:
        raise InvalidRequest("[images] is not supported.", remedy="Send texts.")
    limit = endpoint.token_limit
    if form.max_tokens is not None and (limit is None or form.max_tokens < limit):
        raise InvalidRequest(
            f"[max_tokens] cannot be {form.max_tokens}: texts are only truncated to the model's own limit.",
            remedy="Omit it, or send shorter texts.",
        )


def _meta(texts: Sequence[str], vectors: Vectors, version: int) -> dict[str, Any]:
    """Cohere's `meta`, and hubgate's `estimated` and `truncated_inputs` where they apply."""
    tokens = estimate_tokens(texts) if vectors.tokens is None else vectors.tokens
    meta: dict[str, Any] = {
        "api_version": {"version": str(version)},
        "billed_units": {"input_tokens": tokens},
    }
    if not vectors.exact:
        meta["estimated"] = True
    if vectors.truncated:
        meta["truncated_inputs"] = vectors.truncated
    return meta


def _render(vectors: Vectors, types: Sequence[EmbeddingType], head: dict[str, Any]) -> bytes:
    end = b",%b" % msgspec.json.encode(head)[1:]
    start = b'{"response_type":"embeddings_floats","embeddings":['
    if not types:
        return joined(start, _FORMATS["float"].values(vectors), b",", b"]" + end)
    start = b'{"response_type":"embeddings_by_type","embeddings":{'
    *others, last = dict.fromkeys(types)
    for kind in others:
        start = joined(start + b'"%b":[' % kind.encode(), _FORMATS[kind].values(vectors), b",", b"],")
    return joined(start + b'"%b":[' % last.encode(), _FORMATS[last].values(vectors), b",", b"]}" + end)
