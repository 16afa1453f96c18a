"""What faces share about embeddings: reading texts, calling the endpoint, and reporting usage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from msgspec.structs import replace

from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import Endpoint, InputType
from hubgate.domain.errors import BodyTooLarge, InvalidRequest
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunks import Chunked, embed_chunks
from hubgate.web.http.errors import EmptyBatch
from hubgate.web.http.request_context import RequestContext

MAX_TEXTS = 2048
"""Per request: OpenAI's own limit."""

Inputs: TypeAlias = str | list[Any]
"""As decoded from JSON; `parse_texts` checks that all are texts."""

# Names in the APIs of other servers.
_INPUT_TYPE_ALIASES = {"passage": "document", "search_document": "document", "search_query": "query"}
_JSON_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    bool: "a boolean",
    type(None): "null",
}
_TEXT = {str}
_FEW_TEXTS = 2
"""The reply to so few is small."""
_MANY_DIMENSIONS = 4096
_REPLY_BYTES_PER_NUMBER = 24
"""In memory: 4 as f32 or up to 20 as the server's JSON, and 11 to 20 in the response."""
_MIN_REPORTED_WAIT_SECONDS = 0.001
# Between English prose (4 to 5 bytes a token) and Chinese (3 to 4), as BERT's and XLM-R's tokenizers cut them.
_BYTES_PER_TOKEN = 4


def parse_texts(inputs: Inputs, field: str, *, text_of: Callable[[Any], Any] | None = None) -> Sequence[str]:
    """The texts of a request.

    Args:
        inputs: the field's value.
        field: its name, for errors.
        text_of: returns the text of an item that is not one, if it has one.

    Raises:
        InvalidRequest: an item is empty or not a text.
        BodyTooLarge: there are too many.
    """
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not texts:
        raise EmptyBatch(f"[{field}] is an empty list.", remedy="Send at least one text.")
    if len(texts) > MAX_TEXTS:
        raise BodyTooLarge(
            f"[{field}] has {len(texts)} texts; one request takes at most {MAX_TEXTS}.",
            remedy="Send them in several requests.",
        )
    if set(map(type, texts)) != _TEXT:
        texts = list(map(text_of, texts)) if text_of else texts
        if set(map(type, texts)) != _TEXT:
            raise _not_a_text(texts, field)
    if "" in texts:
        where = field if isinstance(inputs, str) else f"{field}[{texts.index('')}]"
        raise InvalidRequest(f"[{where}] is an empty string.", remedy="Omit empty texts.")
    return texts


def parse_input_type(word: str | None) -> InputType | None:
    if word is None:
        return None
    folded = word.lower()
    try:
        return InputType.parse(_INPUT_TYPE_ALIASES.get(folded, folded))
    except ValueError:
        raise InvalidRequest(
            f"[input_type] is not valid: '{word[:100]}'.",
            remedy="Use document, query, classification or clustering, or omit it.",
        ) from None


def resolve_endpoint(
    gateway: Gateway, context: RequestContext, model: str
) -> tuple[Endpoint, InputType | None]:
    """The endpoint that a client names, also by an alias, and the default input type of its texts.

    For clients that send only a model name, `e5:query` and `e5:document` select endpoint e5 with an input type; a key
    can have a default input type as well.

    Raises:
        EndpointNotFound: no endpoint has this name.
        InvalidRequest: the input type after the colon is not valid.
    """
    name, colon, word = model.partition(":")
    live = gateway.live.resolve(name)
    context.use(live.endpoint, name, live.model_version)
    default = context.key.input_type if context.key else None
    return live.endpoint, parse_input_type(word) if colon else default


async def embed(
    gateway: Gateway, context: RequestContext, name: str, call: Embed, *, counts: bool = False
) -> Vectors:
    """Embed texts, and record the usage. With `counts`, the result has `text_unread`."""
    if not context.cached:
        call = replace(call, cached=False)
    if len(call.texts) > _FEW_TEXTS:
        dimensions = gateway.live.find(name).endpoint.facts.dimensions or _MANY_DIMENSIONS
        await context.reserve(len(call.texts) * dimensions * _REPLY_BYTES_PER_NUMBER)
    vectors = await gateway.inference.embed(name, call)
    context.texts = len(call.texts)
    context.tokens = vectors.tokens or 0
    context.waited = vectors.waited
    context.truncated = vectors.truncated or 0
    return await gateway.inference.with_unread(name, call, vectors) if counts else vectors


async def embed_in_chunks(
    gateway: Gateway,
    context: RequestContext,
    endpoint: Endpoint,
    call: Embed,
    chunking_settings: dict[str, Any],
    *,
    counts: bool = False,
    encoding: Encoding = Encoding.JSON,
) -> Chunked:
    """Embed the chunks of texts, and record the usage, which counts chunks as texts.

    Args:
        gateway: the gateway.
        context: the request's.
        endpoint: to call.
        call: with the texts before chunking.
        chunking_settings: from the request; empty for the endpoint's own.
        counts: as in `embed`.
        encoding: of the resulting vectors.

    Raises:
        InvalidChunking: the settings are not valid.
    """
    settings = parse_chunking_settings(chunking_settings) if chunking_settings else endpoint.chunking
    embed_texts = partial(embed, gateway, context, endpoint.name, counts=counts)
    count = partial(
        gateway.inference.count_tokens, endpoint.name, kind=call.input_type, limit=endpoint.token_limit
    )
    return await embed_chunks(endpoint, settings, call, embed_texts, count=count, encoding=encoding)


def joined(start: bytes, values: Sequence[bytes], between: bytes, end: bytes) -> bytes:
    """Vectors and what is around them. They are copied only once."""
    parts = [between] * (2 * len(values) + 1)
    parts[0], parts[1::2], parts[-1] = start, values, end
    return b"".join(parts)


def usage_object(texts: Sequence[str], vectors: Vectors) -> dict[str, int | bool]:
    """OpenAI's `usage`, and hubgate's `estimated` and `truncated_inputs` where they apply."""
    tokens = estimate_tokens(texts) if vectors.tokens is None else vectors.tokens
    usage: dict[str, int | bool] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if not vectors.exact:
        usage["estimated"] = True
    if vectors.truncated:
        usage["truncated_inputs"] = vectors.truncated
    return usage


def estimate_tokens(texts: Sequence[str]) -> int:
    """For servers that do not count tokens."""
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    return len(texts) + size // _BYTES_PER_TOKEN


def vector_headers(vectors: Vectors) -> list[tuple[bytes, bytes]]:
    """`X-Hubgate-Truncated` (texts cut to the model's limit) and `X-Hubgate-Waited`, each only where it applies."""
    headers = waited_header(vectors.waited) if vectors.waited else []
    if vectors.truncated:
        headers.insert(0, (b"x-hubgate-truncated", b"%d" % vectors.truncated))
    return headers


def waited_header(seconds: float) -> list[tuple[bytes, bytes]]:
    """Seconds that the call waited in hubgate's queue."""
    return [(b"x-hubgate-waited", b"%.3f" % seconds)] if seconds >= _MIN_REPORTED_WAIT_SECONDS else []


def _not_a_text(texts: Sequence[object], field: str) -> InvalidRequest:
    first = texts[0][0] if isinstance(texts[0], list) and texts[0] else texts[0]
    if type(first) is int:
        return InvalidRequest(
            f"[{field}] has token ids; hubgate accepts only texts, because token ids depend on the tokenizer.",
            remedy="With langchain-openai, set check_embedding_ctx_length=False.",
        )
    index, first = next((i, text) for i, text in enumerate(texts) if not isinstance(text, str))
    type_name = _JSON_TYPE_NAMES.get(type(first), "a number")
    return InvalidRequest(f"[{field}[{index}]] must be a string, not {type_name}.")
