"""What the faces share: the texts they are given, and what they tell of the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from hubgate.domain.calls import Embed, Encoding, InputType, Vectors
from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import BodyTooLarge, InvalidRequest
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunked import Chunked, embed_chunks
from hubgate.web.http.errors import EmptyBatch
from hubgate.web.http.request_context import RequestContext

MAX_TEXTS = 2048
"""In one request; OpenAI's own bound."""

Inputs: TypeAlias = str | list[Any]
"""As decoded from JSON; `parse_texts` finds what is no text."""

# How other APIs that serve asymmetric models call a document and a query.
_INPUT_TYPE_OF = {"passage": "document", "search_document": "document", "search_query": "query"}
_JSON_WORD: dict[type, str] = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null"}
_TOLD_WAIT = 0.001
# Between English prose (4 to 5 bytes a token) and Chinese (3 to 4), as BERT's and XLM-R's tokenizers cut them.
_BYTES_PER_TOKEN = 4


def parse_texts(inputs: Inputs, field: str) -> Sequence[str]:
    """The texts of a request.

    Args:
        inputs: what stood in the request.
        field: where it stood, for the error.

    Raises:
        InvalidRequest: one of them is empty, or no text.
        BodyTooLarge: they are too many.
    """
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not texts:
        raise EmptyBatch(f"[{field}] is an empty list.", remedy="Send at least one text.")
    if len(texts) > MAX_TEXTS:
        raise BodyTooLarge(
            f"[{field}] has {len(texts)} texts; one request takes at most {MAX_TEXTS}.",
            remedy="Send them in several requests.",
        )
    if set(map(type, texts)) != {str}:
        raise _not_a_text(texts, field)
    if "" in texts:
        where = field if isinstance(inputs, str) else f"{field}[{texts.index('')}]"
        raise InvalidRequest(f"[{where}] is an empty string.", remedy="Leave empty texts out.")
    return texts


def parse_input_type(word: str | None) -> InputType | None:
    """What the texts are for, in the words that clients use.

    Raises:
        InvalidRequest: a word that is not known.
    """
    if word is None:
        return None
    folded = word.lower()
    try:
        return InputType.parse(_INPUT_TYPE_OF.get(folded, folded))
    except ValueError:
        raise InvalidRequest(
            f"[input_type] cannot be '{word[:100]}'.",
            remedy="Use document, query, classification or clustering, or leave it out.",
        ) from None


def resolve_endpoint(
    gateway: Gateway, context: RequestContext, said: str
) -> tuple[Endpoint, InputType | None]:
    """The endpoint that a client names, and what its texts are if it does not say so with each call.

    `e5:query` and `e5:document` name endpoint e5 too: for clients that can say nothing but a model's name. For those
    that cannot say even that, a key may have a word of its own.

    Raises:
        EndpointNotFound: no endpoint has this name.
        InvalidRequest: the word after the colon is not known.
    """
    name, colon, word = said.partition(":")
    endpoint = gateway.registry.find(name)
    context.endpoint = name
    default = context.key.input_type if context.key else None
    return endpoint, parse_input_type(word) if colon else default


async def embed(
    gateway: Gateway, context: RequestContext, name: str, call: Embed, *, counts: bool = False
) -> Vectors:
    """Answer a call, and write on the context what was done.

    Args:
        gateway: what embeds.
        context: the request's.
        name: of the endpoint.
        call: what is asked.
        counts: whether the answer is to say of each text how many tokens the model did not read.

    Raises:
        HubgateError: it cannot be answered.
    """
    if not context.cached:
        call = replace(call, cached=False)
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
    given: dict[str, Any],
    *,
    counts: bool = False,
    encoding: Encoding = Encoding.JSON,
) -> Chunked:
    """Answer a call whose texts are to be cut, and write on the context what was done: its texts are the chunks.

    Args:
        gateway: what embeds.
        context: the request's.
        endpoint: that is called.
        call: of the texts as they are.
        given: the `chunking_settings` of the request; empty for the endpoint's own.
        counts: as of `embed`.
        encoding: of the vectors in the answer.

    Raises:
        InvalidChunking: the settings cannot be used.
        HubgateError: it cannot be answered.
    """
    settings = parse_chunking_settings(given) if given else endpoint.chunking
    ask = partial(embed, gateway, context, endpoint.name, counts=counts)
    count = partial(
        gateway.inference.count_tokens, endpoint.name, kind=call.input_type, limit=endpoint.token_limit
    )
    return await embed_chunks(endpoint, settings, call, ask, count=count, encoding=encoding)


def usage_object(texts: Sequence[str], vectors: Vectors) -> dict[str, int | bool]:
    """OpenAI's `usage`; `estimated` and `truncated_inputs`, hubgate's own, stand in it only when there is cause."""
    tokens = estimate_tokens(texts) if vectors.tokens is None else vectors.tokens
    usage: dict[str, int | bool] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if not vectors.exact:
        usage["estimated"] = True
    if vectors.truncated:
        usage["truncated_inputs"] = vectors.truncated
    return usage


def estimate_tokens(texts: Sequence[str]) -> int:
    """About how many tokens texts have, where nobody counts them."""
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    return len(texts) + size // _BYTES_PER_TOKEN


def vector_headers(vectors: Vectors) -> list[tuple[bytes, bytes]]:
    """What no body has a place for, each left out when there is nothing to tell.

    `X-Hubgate-Truncated` is how many texts were cut to the model's limit, `X-Hubgate-Waited` how many seconds the
    call stood in the gate's queue.
    """
    headers = []
    if vectors.truncated:
        headers.append((b"x-hubgate-truncated", b"%d" % vectors.truncated))
    return [*headers, *waited_header(vectors.waited)]


def waited_header(seconds: float) -> list[tuple[bytes, bytes]]:
    """How long the call stood in the gate's queue, if it did."""
    return [(b"x-hubgate-waited", b"%.3f" % seconds)] if seconds >= _TOLD_WAIT else []


def _not_a_text(texts: Sequence[object], field: str) -> InvalidRequest:
    first = texts[0][0] if isinstance(texts[0], list) and texts[0] else texts[0]
    if type(first) is int:
        return InvalidRequest(
            f"[{field}] holds token ids; the gate takes texts, because ids mean something to one tokenizer only.",
            remedy="With langchain-openai, set check_embedding_ctx_length=False.",
        )
    index, culprit = next((i, text) for i, text in enumerate(texts) if not isinstance(text, str))
    word = _JSON_WORD.get(type(culprit), "a number")
    return InvalidRequest(f"[{field}[{index}]] must be a string, not {word}.")
