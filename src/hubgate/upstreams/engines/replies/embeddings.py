"""Reads embeddings in every format that a server is known to send, whichever server it is.

    [d]                                  one text, sentence-transformers behind hf-inference
    [n][d]                               TEI
    [1][tokens][d]                       one text, feature-extraction without pooling
    [n][tokens][d], [n][1][tokens][d]    several texts, the same
    {"embeddings": any of the above}     Hugging Face's toolkit
    {"data": [{"index", "embedding"}]}   OpenAI's route; an embedding is an array or base64
    [{"index", "embedding"}]             llama.cpp's own routes

`split_json` or msgspec validates and splits the JSON; the text of the numbers is passed on unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import orjson

from hubgate.core.vector_codec import from_base64, split_json
from hubgate.core.vectors import base64_to_f32, dimensions, json_dimensions, mean_pooled, not_a_number
from hubgate.domain.calls import Encoding
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.http.messages import HttpReply


@dataclass(frozen=True, slots=True)
class Reading:
    """The content of a reply: one vector per text, in the order of the texts."""

    items: Sequence[bytes]
    encoding: Encoding
    tokens: int | None
    """As the server reports them."""
    pooled: bool
    """The server sent one vector per token, which were averaged here."""
    dimensions: int


class _Item(msgspec.Struct):
    embedding: msgspec.Raw
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)] | None = None


class _Reply(msgspec.Struct):
    data: list[_Item] | None = None
    embeddings: msgspec.Raw = msgspec.Raw()
    usage: _Usage | None = None


_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[_Item])
_OBJECT = msgspec.json.Decoder(_Reply)
_WHITE = b" \t\r\n"


def read_embeddings(reply: HttpReply, count: int) -> Reading:
    """The vectors of `count` texts.

    Raises:
        UpstreamUnreadable: HTML, invalid JSON, no embeddings, the wrong number of them, different lengths, or a
            number that is not finite.
    """
    body = reply.body
    if reply.is_html:
        raise UpstreamUnreadable(
            "The server sent a web page instead of vectors.",
            remedy="Check the URL: it must be the model server's own, not a page about it or a login page.",
            cause=Cause.NOT_AN_API,
        )
    try:
        reading = _from_object(body, count) if body.lstrip(_WHITE)[:1] == b"{" else _from_array(body, count)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if any(word in body for word in (b"NaN", b"Infinity")):
            raise not_a_number() from error
        raise _no_embeddings() from error
    return reading


def _from_object(body: bytes, count: int) -> Reading:
    reply = _OBJECT.decode(body)
    tokens = reply.usage.prompt_tokens if reply.usage else None
    if reply.data is not None:
        return _from_items(reply.data, count, tokens)
    embeddings = bytes(reply.embeddings)
    if not embeddings:
        raise _no_embeddings()
    return _from_array(embeddings, count)


def _from_array(body: bytes, count: int) -> Reading:
    rows = split_json(body)
    if rows and rows[1]:
        items, size = rows
        _check_count(len(items), count)
        return Reading(items, Encoding.JSON, None, pooled=False, dimensions=size)
    parts = _ARRAY.decode(body)
    first = bytes(parts[0]).lstrip(_WHITE)[:1] if parts else b""
    if first == b"{":
        return _from_items(_ITEMS.decode(body), count, None)
    if count == 1 and first and first != b"[":
        return _reading([body.strip(_WHITE)], None)
    _check_count(len(parts), count)
    return _reading([bytes(part).strip(_WHITE) for part in parts], None)


def _from_items(items: list[_Item], count: int, tokens: int | None) -> Reading:
    _check_count(len(items), count)
    if any(item.index is not None for item in items):
        by_index = {item.index: item for item in items}
        if set(by_index) != set(range(count)):
            raise UpstreamUnreadable("The server numbered its vectors with gaps or duplicates.")
        items = [by_index[index] for index in range(count)]
    decoded = from_base64([item.embedding for item in items])
    if decoded:
        return Reading(decoded[0], Encoding.F32, tokens, pooled=False, dimensions=decoded[1])
    return _reading([bytes(item.embedding).strip(_WHITE) for item in items], tokens)


def _reading(items: list[bytes], tokens: int | None) -> Reading:
    encoding, pooled = Encoding.F32, False
    lengths: set[int | None] = set()
    if items[0][:1] == b'"':
        items = [_from_base64(item) for item in items]
    else:
        lengths = set(map(json_dimensions, items))
        if None not in lengths:
            encoding = Encoding.JSON
        elif any(b"null" in item for item in items):
            raise not_a_number()
        else:
            per_text = [_token_rows(item) for item in items]
            pooled = any(len(rows) > 1 for rows in per_text)
            items = [mean_pooled(rows) for rows in per_text]
    if encoding is Encoding.F32:
        lengths = {dimensions(item, encoding) for item in items}
    length = lengths.pop() if len(lengths) == 1 else None
    if not length:
        raise UpstreamUnreadable("The server sent vectors of different lengths, or empty ones.")
    return Reading(items, encoding, tokens, pooled, length)


def _from_base64(item: bytes) -> bytes:
    if item[:1] != b'"':
        raise _no_embeddings()
    return base64_to_f32(item)


def _token_rows(item: bytes) -> list[list[float]]:
    """One row per token, from `[tokens][d]` or `[1][tokens][d]`."""
    rows = orjson.loads(item)
    if isinstance(rows, list) and len(rows) == 1 and _is_matrix(rows[0]):
        rows = rows[0]
    if not _is_matrix(rows):
        raise _no_embeddings()
    return rows  # type: ignore[no-any-return] # checked to be a matrix; its numbers are checked when they are added


def _is_matrix(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, list) for row in value)


def _check_count(got: int, expected: int) -> None:
    if got != expected:
        raise UpstreamUnreadable(
            f"The server sent {got} vectors for {expected} texts.",
            remedy="A proxy or a custom handler may drop or merge inputs; call the server directly to compare.",
            cause=Cause.WRONG_COUNT,
        )


def _no_embeddings() -> UpstreamUnreadable:
    return UpstreamUnreadable(
        "The server's reply contains no embeddings in any known format.",
        remedy="Check that its model makes sentence embeddings; a custom handler must reply as one of the servers does.",
    )
