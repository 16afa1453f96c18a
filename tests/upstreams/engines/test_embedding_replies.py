"""Every known format of embedding replies, and the replies that are rejected."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from hubgate.core.vectors import floats
from hubgate.domain.calls import Encoding
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.replies.embeddings import Reading, read_embeddings
from hubgate.upstreams.http.messages import HttpReply


def reply(body: object, content_type: str = "application/json") -> HttpReply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status=200, headers={"content-type": content_type}, body=raw)


def numbers(reading: Reading) -> list[list[float]]:
    if reading.encoding is Encoding.F32:
        return [list(floats(item)) for item in reading.items]
    return [json.loads(item) for item in reading.items]


def b64(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


PLAIN = {
    "1-D, one text": ([1, 2], [[1, 2]]),
    "2-D, one text": ([[1, 2]], [[1, 2]]),
    "2-D": ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    "toolkit, one text": ({"embeddings": [1, 2]}, [[1, 2]]),
    "toolkit": ({"embeddings": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]]),
    "OpenAI": (
        {"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [3, 4]}]},
        [[1, 2], [3, 4]],
    ),
    "OpenAI, out of order": (
        {"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]},
        [[1, 2], [3, 4]],
    ),
    "OpenAI without an index": ({"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}, [[1, 2], [3, 4]]),
    "llama.cpp": ([{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}], [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize(("body", "expected"), PLAIN.values(), ids=PLAIN)
def test_one_vector_per_text_is_read_in_order(body: object, expected: list[list[float]]) -> None:
    reading = read_embeddings(reply(body), len(expected))
    assert numbers(reading) == expected
    assert reading.dimensions == 2
    assert not reading.pooled


def test_json_numbers_are_passed_through_verbatim() -> None:
    reading = read_embeddings(reply(b" [ [ 1.50 , -2E-3],\n[0.1,3]]"), 2)
    assert reading.items == [b"[ 1.50 , -2E-3]", b"[0.1,3]"]
    assert reading.encoding is Encoding.JSON


@pytest.mark.parametrize("escape", [False, True], ids=["plain", "with escaped slashes"])
def test_base64_is_decoded_to_f32(escape: bool) -> None:
    text = json.dumps({"data": [{"index": 0, "embedding": b64(*[1.5, -2.0] * 40, 1e30)}]})
    body = text.replace("/", "\\/") if escape else text
    reading = read_embeddings(reply(body.encode()), 1)
    assert reading.encoding is Encoding.F32
    assert numbers(reading)[0][:2] == [1.5, -2.0]
    assert reading.dimensions == 81


TOKENS = {
    "3-D, one text": ([[[1, 2], [3, 6]]], [[2, 4]]),
    "3-D, several texts": ([[[1, 2], [3, 6]], [[1, 1], [1, 1], [4, 4]]], [[2, 4], [2, 2]]),
    "4-D, one text": ([[[[1, 2], [3, 6]]]], [[2, 4]]),
    "4-D, ragged": ([[[[1, 2], [3, 6]]], [[[1, 1], [1, 1], [4, 4]]]], [[2, 4], [2, 2]]),
    "llama.cpp without pooling": ([{"index": 0, "embedding": [[1, 2], [3, 6]]}], [[2, 4]]),
}


@pytest.mark.parametrize(("body", "expected"), TOKENS.values(), ids=TOKENS)
def test_one_vector_per_token_is_mean_pooled_and_flagged(body: object, expected: list[list[float]]) -> None:
    reading = read_embeddings(reply(body), len(expected))
    assert numbers(reading) == expected
    assert reading.pooled


def test_single_row_is_the_vector_without_pooling() -> None:
    reading = read_embeddings(reply([{"index": 0, "embedding": [[1, 2]]}]), 1)
    assert numbers(reading) == [[1, 2]]
    assert not reading.pooled


def test_token_usage_is_read_from_reply() -> None:
    body = {"data": [{"index": 0, "embedding": [1]}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    assert read_embeddings(reply(body), 1).tokens == 7


REFUSED = {
    "too few": ([[1, 2]], 2, Cause.WRONG_COUNT),
    "too many": ([[1, 2], [3, 4], [5, 6]], 2, Cause.WRONG_COUNT),
    "one flat vector for two texts": ([1, 2, 3], 2, Cause.WRONG_COUNT),
    "none": ([], 1, Cause.WRONG_COUNT),
    "too few, OpenAI": ({"data": [{"index": 0, "embedding": [1]}]}, 2, Cause.WRONG_COUNT),
    "the same number twice": (
        {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]},
        2,
        Cause.UNREADABLE_REPLY,
    ),
    "a gap": (
        {"data": [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [2]}]},
        2,
        Cause.UNREADABLE_REPLY,
    ),
    "half numbered": (
        {"data": [{"index": 0, "embedding": [1]}, {"embedding": [2]}]},
        2,
        Cause.UNREADABLE_REPLY,
    ),
    "null inside": ([[1, None]], 1, Cause.NOT_A_NUMBER),
    "NaN inside": (b"[[1.0, NaN]]", 1, Cause.NOT_A_NUMBER),
    "infinity inside": (b'{"embeddings": [[-Infinity]]}', 1, Cause.NOT_A_NUMBER),
    "too large for a float": (b"[[0.5, 1e999]]", 1, Cause.NOT_A_NUMBER),
    "too large for single precision": (b"[[0.5, 1E39]]", 1, Cause.NOT_A_NUMBER),
    "NaN in base64": ({"data": [{"index": 0, "embedding": b64(1.0, float("nan"))}]}, 1, Cause.NOT_A_NUMBER),
    "NaN in a token": (b"[[[1.0, 2.0], [NaN, 1.0]]]", 1, Cause.NOT_A_NUMBER),
    "ragged": ([[1, 2], [3]], 2, Cause.UNREADABLE_REPLY),
    "ragged base64": (
        {"data": [{"embedding": b64(1)}, {"embedding": b64(1, 2)}]},
        2,
        Cause.UNREADABLE_REPLY,
    ),
    "empty base64": ({"data": [{"embedding": ""}]}, 1, Cause.UNREADABLE_REPLY),
    "tokens of different models": ([[[1, 2], [3, 4]], [[1], [2]]], 2, Cause.UNREADABLE_REPLY),
    "empty vectors": ([[], []], 2, Cause.UNREADABLE_REPLY),
    "text inside": ([["a", "b"]], 1, Cause.UNREADABLE_REPLY),
    "true inside": ([[True, 1]], 1, Cause.UNREADABLE_REPLY),
    "base64 and numbers mixed": (
        {"data": [{"index": 0, "embedding": b64(1)}, {"index": 1, "embedding": [1]}]},
        2,
        Cause.UNREADABLE_REPLY,
    ),
    "five dimensions deep": ([[[[[1, 2], [3, 4]], [[1, 2], [3, 4]]]]], 1, Cause.UNREADABLE_REPLY),
    "classes": ([{"label": "joy", "score": 0.5}], 1, Cause.UNREADABLE_REPLY),
    "generated text": ([{"generated_text": "hello"}], 1, Cause.UNREADABLE_REPLY),
    "an error with status 200": ({"error": "no"}, 1, Cause.UNREADABLE_REPLY),
    "not JSON": (b"Ok", 1, Cause.UNREADABLE_REPLY),
    "nothing": (b"", 1, Cause.UNREADABLE_REPLY),
    "a number": (b"3", 1, Cause.UNREADABLE_REPLY),
    "cut off": (b"[[1.0, 2.0], [3.0", 2, Cause.UNREADABLE_REPLY),
    "nested without end": (b"[" * 100_000, 1, Cause.UNREADABLE_REPLY),
    "invalid UTF-8 in a vector": (b'{"data": [{"embedding": "\xff\xfe"}]}', 1, Cause.UNREADABLE_REPLY),
    "a page without a type": (b"\n<!doctype html><p>Sign in", 1, Cause.NOT_AN_API),
}


@pytest.mark.parametrize(("body", "count", "cause"), REFUSED.values(), ids=REFUSED)
def test_invalid_embedding_reply_is_rejected_with_its_cause(body: object, count: int, cause: Cause) -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        read_embeddings(reply(body), count)
    assert caught.value.cause is cause


def test_web_page_is_recognized_by_content_type() -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        read_embeddings(reply(b"", "text/html; charset=utf-8"), 1)
    assert caught.value.cause is Cause.NOT_AN_API


def test_json_is_read_whatever_its_content_type() -> None:
    """Flask sends what a handler returns as a text with `text/html`."""
    assert len(read_embeddings(reply([[0.5, 1.0]], "text/html; charset=utf-8"), 1).items) == 1
