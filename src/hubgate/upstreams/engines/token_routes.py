"""Routes whose replies are about tokens: sparse vectors, and tokenization.

TEI's `/embed_sparse` returns indices of the vocabulary, not words; the gateway names its tokens by those numbers. An
index works with numbers as well as with words, as long as documents and queries are embedded by the same model.
Custom handlers return `[{"token": weight}]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import orjson

from hubgate.domain.calls import SparseEmbed, SparseVectors, Token, Tokenize, Tokens
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.engines.routes import REPLY_OVERHEAD, ReportedTokens, counted_tokens, json_request
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

_BYTES_PER_SPARSE_VECTOR = 2 * 1024 * 1024
"""40,000 words with their weights."""
_BYTES_PER_TOKEN = 128
"""One token for each byte of a request: no token is shorter than a byte."""


class _Weight(msgspec.Struct):
    index: int
    value: float


class _Token(msgspec.Struct):
    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


_Weights: TypeAlias = dict[str, float]
# Replies are decoded text by text: one decoder call for a large reply would block the event loop even from another
# thread, as it holds the GIL.
_TEXTS = msgspec.json.Decoder(list[msgspec.Raw])
_INDEXED_WEIGHTS = msgspec.json.Decoder(list[_Weight])
_WEIGHTS = msgspec.json.Decoder(_Weights)
_TOKENS = msgspec.json.Decoder(list[_Token])


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRoute:
    """One route for sparse vectors. Implements `TextRoute`."""

    path: str
    tei: bool = False
    """It truncates on request and returns `[{"index", "value"}]` for each text, as TEI does."""

    def request(self, url: str, model: str | None, call: SparseEmbed) -> HttpRequest:
        del model
        body: dict[str, object] = {"inputs": list(call.texts)}
        if self.tei:
            body["truncate"] = call.truncate is not False
        return json_request(url, body)

    def max_reply_bytes(self, call: SparseEmbed, request: HttpRequest, dimensions: int | None) -> int:
        del request, dimensions
        return REPLY_OVERHEAD + len(call.texts) * _BYTES_PER_SPARSE_VECTOR

    def read(self, call: SparseEmbed, reply: HttpReply) -> SparseVectors:
        try:
            vectors = [self._weights(text) for text in _TEXTS.decode(reply.body)]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamUnreadable(
                "The server's reply contains no sparse vectors.",
                remedy='Check that its model makes them; a custom handler must reply [{"token": weight}].',
                cause=Cause.NOT_AN_API if reply.is_html else None,
            ) from error
        if len(vectors) != len(call.texts):
            raise UpstreamUnreadable(
                f"The server sent {len(vectors)} sparse vectors for {len(call.texts)} texts.",
                cause=Cause.WRONG_COUNT,
            )
        tokens, exact = counted_tokens(reply, None, ReportedTokens.EXACT)
        items = [
            orjson.dumps(dict(sorted(weights.items(), key=lambda item: -item[1]))) for weights in vectors
        ]
        return SparseVectors(items=items, tokens=tokens, exact=exact, quota=quota(reply.headers))

    def _weights(self, text: msgspec.Raw) -> _Weights:
        if self.tei:
            return {str(weight.index): weight.value for weight in _INDEXED_WEIGHTS.decode(text)}
        return _WEIGHTS.decode(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRoute:
    """TEI's `/tokenize`: the only route of any server that takes many texts and returns offsets. Implements `TextRoute`."""

    path: str

    def request(self, url: str, model: str | None, call: Tokenize) -> HttpRequest:
        del model
        return json_request(url, {"inputs": list(call.texts), "add_special_tokens": call.add_special_tokens})

    def max_reply_bytes(self, call: Tokenize, request: HttpRequest, dimensions: int | None) -> int:
        del call, dimensions
        return REPLY_OVERHEAD + len(request.body) * _BYTES_PER_TOKEN

    def read(self, call: Tokenize, reply: HttpReply) -> Tokens:
        try:
            texts = [_TOKENS.decode(text) for text in _TEXTS.decode(reply.body)]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamUnreadable("The server's reply to /tokenize contains no tokens.") from error
        if len(texts) != len(call.texts):
            raise UpstreamUnreadable(
                f"The server sent the tokens of {len(texts)} texts for {len(call.texts)} texts.",
                cause=Cause.WRONG_COUNT,
            )
        return Tokens([[Token(t.id, t.text, t.special, t.start, t.stop) for t in tokens] for tokens in texts])
