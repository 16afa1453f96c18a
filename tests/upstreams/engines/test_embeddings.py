"""Embedding requests to each kind of server, and how its recorded replies are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubgate.core.vectors import dimensions, floats, in_encoding
from hubgate.domain.calls import Embed, Encoding, Tokenize
from hubgate.domain.endpoint import Engine
from hubgate.domain.errors import Cause, InvalidRequest, UpstreamUnreadable
from hubgate.upstreams.engines.embeddings import POOLED_BY_HUBGATE, EmbedRoute
from hubgate.upstreams.engines.specs import SPECS
from hubgate.upstreams.engines.token_routes import TokenizeRoute
from hubgate.upstreams.http.messages import HttpReply

ENGINES = Path(__file__).parents[2] / "data" / "engines"
TOKENIZE = TokenizeRoute(path="/tokenize")


def route(engine: Engine) -> EmbedRoute:
    found = SPECS[engine].embed
    assert found is not None
    return found


def recorded(engine: str, label: str) -> HttpReply:
    exchanges = json.loads((ENGINES / f"{engine}.json").read_text("utf-8"))
    response = next(e["response"] for e in exchanges if e["label"] == label)
    return HttpReply(status=response["status"], headers=response["headers"], body=response["body"].encode())


def body_of(engine: Engine, call: Embed, model: str | None = None) -> dict[str, Any]:
    request = route(engine).request("http://host/route", model, call)
    assert (request.method, request.url) == ("POST", "http://host/route")
    body = json.loads(request.body)
    assert isinstance(body, dict)
    return body


def test_tei_truncates_unless_disabled_by_caller() -> None:
    assert body_of(Engine.TEI, Embed(texts=["a"])) == {"inputs": ["a"], "truncate": True}
    assert body_of(Engine.TEI, Embed(texts=["a"], truncate=False))["truncate"] is False


def test_tei_receives_every_option_it_supports() -> None:
    call = Embed(texts=["a"], normalize=False, prompt_name="query", dimensions=64, truncate_left=True)
    assert body_of(Engine.TEI, call) == {
        "inputs": ["a"],
        "truncate": True,
        "truncation_direction": "Left",
        "normalize": False,
        "prompt_name": "query",
        "dimensions": 64,
    }


def test_vllm_request_has_served_model_name_base64_and_truncation() -> None:
    assert body_of(Engine.VLLM, Embed(texts=["a"]), "minilm") == {
        "model": "minilm",
        "input": ["a"],
        "encoding_format": "base64",
        "truncate_prompt_tokens": -1,
    }
    assert "truncate_prompt_tokens" not in body_of(Engine.VLLM, Embed(texts=["a"], truncate=False))


@pytest.mark.parametrize("engine", [Engine.SGLANG, Engine.LLAMACPP, Engine.INFINITY, Engine.OPENAI])
def test_every_openai_route_requests_base64(engine: Engine) -> None:
    assert body_of(engine, Embed(texts=["a"])) == {"input": ["a"], "encoding_format": "base64"}


def test_dimensions_are_forwarded_where_supported() -> None:
    assert body_of(Engine.OPENAI, Embed(texts=["a"], dimensions=64))["dimensions"] == 64


def test_toolkit_receives_only_the_texts() -> None:
    call = Embed(texts=["a"], normalize=True, truncate=True)
    assert body_of(Engine.TOOLKIT, call, "model") == {"inputs": ["a"]}


@pytest.mark.parametrize(
    ("engine", "call"),
    [
        (Engine.VLLM, Embed(texts=["a"], prompt_name="query")),
        (Engine.TOOLKIT, Embed(texts=["a"], dimensions=64)),
        (Engine.LLAMACPP, Embed(texts=["a"], dimensions=64)),
        (Engine.INFINITY, Embed(texts=["a"], truncate_left=True)),
    ],
)
def test_unsupported_option_that_affects_vectors_is_rejected(engine: Engine, call: Embed) -> None:
    with pytest.raises(InvalidRequest, match="cannot be honoured"):
        body_of(engine, call)


def test_lone_surrogate_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        body_of(Engine.TEI, Embed(texts=["\ud800"]))


TWO = Embed(texts=["hello", "world"])
ONE = Embed(texts=["hello"])


def test_recorded_vllm_and_infinity_vectors_agree() -> None:
    vllm = route(Engine.VLLM).read(TWO, recorded("vllm-0.32.0-embed", "emb /v1/embeddings"))
    infinity = route(Engine.INFINITY).read(TWO, recorded("infinity-0.0.78-embed", "emb /v1/embeddings"))
    for left, right in zip(vllm.items, infinity.items, strict=True):
        assert json.loads(left) == pytest.approx(json.loads(right), abs=1e-6)
        assert dimensions(left, Encoding.JSON) == 384


@pytest.mark.parametrize(
    ("engine", "recording"),
    [(Engine.VLLM, "vllm-0.32.0-embed"), (Engine.INFINITY, "infinity-0.0.78-embed")],
)
def test_recorded_base64_matches_recorded_floats(engine: Engine, recording: str) -> None:
    packed = route(engine).read(ONE, recorded(recording, "emb b64 /v1/embeddings"))
    plain = route(engine).read(TWO, recorded(recording, "emb /v1/embeddings"))
    assert packed.encoding is Encoding.F32
    assert floats(packed.items[0]) == pytest.approx(
        floats(in_encoding(plain, Encoding.F32).items[0]), abs=1e-6
    )


def test_vllm_counts_tokens_exactly() -> None:
    vectors = route(Engine.VLLM).read(TWO, recorded("vllm-0.32.0-embed", "emb /v1/embeddings"))
    assert (vectors.tokens, vectors.exact) == (6, True)


def test_infinity_character_count_is_not_reported_as_tokens() -> None:
    vectors = route(Engine.INFINITY).read(TWO, recorded("infinity-0.0.78-embed", "emb /v1/embeddings"))
    assert (vectors.tokens, vectors.exact) == (None, False)


def plain(body: object, **headers: str) -> HttpReply:
    return HttpReply(status=200, headers=headers, body=json.dumps(body).encode())


def test_tei_token_count_is_read_from_a_header() -> None:
    vectors = route(Engine.TEI).read(ONE, plain([[1.0]], **{"x-compute-tokens": "3"}))
    assert (vectors.tokens, vectors.exact) == (3, True)


@pytest.mark.parametrize("headers", [{}, {"x-compute-tokens": "many"}])
def test_no_token_count_is_reported_when_server_sends_none(headers: dict[str, str]) -> None:
    vectors = route(Engine.TEI).read(ONE, plain([[1.0]], **headers))
    assert (vectors.tokens, vectors.exact) == (None, False)


def test_token_count_of_generic_openai_server_is_not_exact() -> None:
    body = {"data": [{"index": 0, "embedding": [1]}], "usage": {"prompt_tokens": 7}}
    vectors = route(Engine.OPENAI).read(ONE, plain(body))
    assert (vectors.tokens, vectors.exact) == (7, False)


def test_vectors_are_normalized_locally_when_server_cannot() -> None:
    call = Embed(texts=["a"], normalize=True)
    assert floats(route(Engine.TOOLKIT).read(call, plain([[3, 4]])).items[0]) == pytest.approx((0.6, 0.8))
    assert route(Engine.TEI).read(call, plain([[3, 4]])).items == [b"[3, 4]"]


def test_option_ignored_by_server_gives_a_warning() -> None:
    call = Embed(texts=["a"], normalize=False, truncate=False)
    assert route(Engine.TEI).read(call, plain([[1]])).warnings == ()
    told = route(Engine.INFINITY).read(call, plain([[1]])).warnings
    assert ["normalize" in told[0], "truncate" in told[1]] == [True, True]


def test_local_pooling_gives_a_warning_with_a_remedy() -> None:
    vectors = route(Engine.TOOLKIT).read(ONE, plain([[[[1.0], [2.0]]]]))
    assert vectors.warnings == (POOLED_BY_HUBGATE,)
    assert "sentence-embeddings" in POOLED_BY_HUBGATE


def test_tokenize_uses_tei_format() -> None:
    call = Tokenize(texts=["hi"], add_special_tokens=False)
    assert json.loads(TOKENIZE.request("http://host/tokenize", None, call).body) == {
        "inputs": ["hi"],
        "add_special_tokens": False,
    }
    reply = plain(
        [
            [
                {"id": 101, "text": "[CLS]", "special": True},
                {"id": 7, "text": "hi", "special": False, "start": 0, "stop": 2},
            ]
        ]
    )
    first, second = TOKENIZE.read(call, reply).items[0]
    assert (first.id, first.special, first.start) == (101, True, None)
    assert (second.text, second.start, second.stop) == ("hi", 0, 2)


@pytest.mark.parametrize(
    ("body", "cause"), [([[], []], Cause.WRONG_COUNT), ({"a": 1}, Cause.UNREADABLE_REPLY)]
)
def test_token_reply_of_wrong_shape_is_rejected(body: object, cause: Cause) -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        TOKENIZE.read(Tokenize(texts=["a"]), plain(body))
    assert caught.value.cause is cause
