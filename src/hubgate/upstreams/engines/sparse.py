"""Sparse vectors: TEI's `/embed_sparse`, and custom handlers that answer `[{"token": weight}]`.

TEI tells places in the vocabulary, not words: its tokens are named by those numbers. They serve an index as well as
words do, as long as documents and queries are embedded by the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec
import orjson

from hubgate.domain.calls import SparseEmbed, SparseVectors
from hubgate.domain.endpoint import Engine
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.embedders import header_count, json_request
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

SPARSE_ROUTES: Mapping[Engine, str] = {Engine.TEI: "/embed_sparse", Engine.TOOLKIT: ""}


class _Value(msgspec.Struct):
    index: int
    value: float


_Words: TypeAlias = dict[str, float]
_TEXTS = msgspec.json.Decoder(list[msgspec.Raw])
_PLACES = msgspec.json.Decoder(list[_Value])
_WORDS = msgspec.json.Decoder(_Words)


def sparse_request(engine: Engine, url: str, call: SparseEmbed) -> HttpRequest:
    """The request for one call to the route at `url`."""
    body: dict[str, object] = {"inputs": list(call.texts)}
    if engine is Engine.TEI:
        body["truncate"] = call.truncate is not False
    return json_request(url, body)


def read_sparse(engine: Engine, call: SparseEmbed, reply: HttpReply) -> SparseVectors:
    """The sparse vectors of a call, out of the server's reply.

    Raises:
        UpstreamUnreadable: the reply does not hold them.
    """
    try:
        vectors = _vectors(engine, reply.body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamUnreadable(
            "The server's reply holds no sparse vectors.",
            remedy='Check that its model makes them; a custom handler must answer [{"token": weight}].',
            cause=Cause.NOT_AN_API if reply.is_html else None,
        ) from error
    if len(vectors) != len(call.texts):
        raise UpstreamUnreadable(
            f"The server sent {len(vectors)} sparse vectors for {len(call.texts)} texts.",
            cause=Cause.WRONG_COUNT,
        )
    tokens = header_count(reply)
    return SparseVectors(
        items=[_item(vector) for vector in vectors],
        tokens=tokens,
        exact=tokens is not None,
        quota=quota(reply.headers),
    )


def _vectors(engine: Engine, body: bytes) -> list[_Words]:
    """Text by text: one call for all of a large reply would hold up the event loop even from another thread."""
    texts = _TEXTS.decode(body)
    if engine is Engine.TEI:
        return [{str(value.index): value.value for value in _PLACES.decode(text)} for text in texts]
    return [_WORDS.decode(text) for text in texts]


def _item(vector: _Words) -> bytes:
    return orjson.dumps(dict(sorted(vector.items(), key=lambda weight: -weight[1])))
