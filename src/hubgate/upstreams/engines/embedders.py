"""The servers that embed, one row each: their route, what they understand, and how far their counts can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

import orjson

from hubgate.core.vectors import in_encoding, l2_normalize
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.endpoint import Engine
from hubgate.domain.errors import InvalidRequest
from hubgate.upstreams.engines.replies import bounds
from hubgate.upstreams.engines.replies.embeddings import read_embeddings
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.engines.requests import embeddings as bodies
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

POOLED_HERE = (
    "The server sends one vector a token; hubgate averages them, padding and special tokens included, which is only "
    "close to the model's own sentence embedding. Deploy it with the task sentence-embeddings, or behind TEI."
)


class Counts(Enum):
    """What a server's number of tokens is worth."""

    EXACT = auto()
    CLAIMED = auto()
    WRONG = auto()
    """infinity counts characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of server."""

    route: str
    """Of its embeddings, below the base URL."""
    body: Callable[[Embed, str | None], dict[str, object]]
    understands: frozenset[str] = frozenset()
    """The options of `Embed` that its route takes."""
    cuts_silently: bool = False
    """Texts that are too long are cut whatever the caller wants."""
    counts: Counts = Counts.CLAIMED
    max_batch_texts: int | None = None
    """Its fixed limit of texts in a request; `None` if it has none or tells it itself."""
    token_vectors: bool = False
    """It may send a vector for each token, so nobody can tell how long its reply is."""
    tokenizes: bool = False
    """It has a route that cuts many texts into tokens, with their places."""


DIALECTS: Mapping[Engine, Dialect] = {
    Engine.TEI: Dialect(
        route="/embed",
        body=bodies.tei,
        understands=frozenset({"normalize", "prompt_name", "dimensions", "truncate_left"}),
        counts=Counts.EXACT,
        tokenizes=True,
    ),
    Engine.VLLM: Dialect(
        route="/v1/embeddings", body=bodies.vllm, understands=frozenset({"dimensions"}), counts=Counts.EXACT
    ),
    Engine.SGLANG: Dialect(route="/v1/embeddings", body=bodies.openai, understands=frozenset({"dimensions"})),
    Engine.LLAMACPP: Dialect(route="/v1/embeddings", body=bodies.openai, counts=Counts.EXACT),
    Engine.INFINITY: Dialect(
        route="/v1/embeddings",
        body=bodies.openai,
        understands=frozenset({"dimensions"}),
        cuts_silently=True,
        counts=Counts.WRONG,
        max_batch_texts=2048,
    ),
    Engine.TOOLKIT: Dialect(route="", body=bodies.toolkit, cuts_silently=True, token_vectors=True),
    Engine.OPENAI: Dialect(route="/v1/embeddings", body=bodies.openai, understands=frozenset({"dimensions"})),
}


def embed_request(dialect: Dialect, url: str, model: str | None, call: Embed) -> HttpRequest:
    """The request for one call to the route at `url`.

    Raises:
        InvalidRequest: the call needs something that this server does not do.
    """
    for option, what in (
        ("prompt_name", "has no named prompts"),
        ("dimensions", "cannot shorten its vectors"),
        ("truncate_left", "cannot cut texts at their beginning"),
    ):
        if getattr(call, option) and option not in dialect.understands:
            raise InvalidRequest(
                f"This endpoint's server {what}, so [{option}] cannot be honoured.",
                remedy=f"Leave [{option}] out.",
            )
    return json_request(url, dialect.body(call, model))


def vectors_bound(dialect: Dialect, call: Embed, dimensions: int | None) -> int | None:
    """Bytes that the reply may have, if that can be told; `dimensions` are the model's, if they are known."""
    return None if dialect.token_vectors else bounds.vectors(len(call.texts), dimensions)


def json_request(url: str, body: Mapping[str, object]) -> HttpRequest:
    """A POST of a JSON body.

    Raises:
        InvalidRequest: a text holds half of a surrogate pair, which no encoding can carry.
    """
    try:
        data = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(
            "A text is not valid Unicode: it holds half of a surrogate pair.", remedy="Repair the text."
        ) from error
    return HttpRequest(method="POST", url=url, headers={"Content-Type": "application/json"}, body=data)


def read_vectors(dialect: Dialect, call: Embed, reply: HttpReply) -> Vectors:
    """The vectors of a call, out of the server's reply.

    Raises:
        UpstreamUnreadable: the reply does not hold them.
    """
    reading = read_embeddings(reply, len(call.texts))
    counted = reading.tokens if reading.tokens is not None else header_count(reply)
    tokens = None if dialect.counts is Counts.WRONG else counted
    vectors = Vectors(
        items=reading.items,
        encoding=reading.encoding,
        tokens=tokens,
        exact=tokens is not None and dialect.counts is Counts.EXACT,
        warnings=_warnings(dialect, call, pooled=reading.pooled),
        quota=quota(reply.headers),
        dimensions=reading.dimensions,
    )
    if not call.normalize or "normalize" in dialect.understands:
        return vectors
    singles = in_encoding(vectors, Encoding.F32)
    return replace(singles, items=[l2_normalize(item) for item in singles.items])


def header_count(reply: HttpReply) -> int | None:
    """TEI says on its own routes how many tokens it read in a header."""
    value = reply.headers.get("x-compute-tokens", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _warnings(dialect: Dialect, call: Embed, *, pooled: bool) -> tuple[str, ...]:
    said = []
    if pooled:
        said.append(POOLED_HERE)
    if call.normalize is False and "normalize" not in dialect.understands:
        said.append(
            "The server decides itself whether vectors are normalised; [normalize: false] was not passed on."
        )
    if call.truncate is False and dialect.cuts_silently:
        said.append(
            "The server cuts texts that are too long without saying so; [truncate: false] was not passed on."
        )
    return tuple(said)
