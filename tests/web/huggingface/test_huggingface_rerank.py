"""Reranking, similarity and sparse vectors on the Hugging Face face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add

from hubgate.domain.calls import Call, Embed, Encoding, Rerank, SparseEmbed, SparseVectors, Vectors
from hubgate.domain.endpoint import InputType, Task

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

TEXTS = ["a", "ccc", "bb"]
RANKS = [{"index": 1, "score": 0.3}, {"index": 2, "score": 0.2}, {"index": 0, "score": 0.1}]


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add(scripted, "ranker", Task.RERANK)
    await add(scripted, "sparse", Task.SPARSE_EMBEDDING)
    return scripted


@pytest.mark.parametrize("path", ["/hf/ranker/rerank", "/hf/ranker", "/hf/ranker/v1"])
async def test_rerank_has_teis_shape_with_the_best_first(gateway: ScriptedGateway, path: str) -> None:
    reply = await gateway.request("POST", path, {"query": "q", "texts": TEXTS})
    assert reply.json() == RANKS
    reply = await gateway.request(
        "POST", path, {"query": "q", "texts": TEXTS, "return_text": True, "top_n": 1}
    )
    assert reply.json() == [{"index": 1, "score": 0.3, "text": "ccc"}]


async def test_rerank_accepts_the_body_of_the_inference_toolkit(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/hf/ranker", {"inputs": {"query": "q", "texts": TEXTS}})
    assert reply.json() == RANKS


async def test_rerank_options_reach_the_engine(gateway: ScriptedGateway) -> None:
    body = {
        "query": "q",
        "texts": TEXTS,
        "raw_scores": True,
        "truncate": True,
        "truncation_direction": "Right",
    }
    await gateway.request("POST", "/hf/ranker/rerank", body)
    call = gateway.script.calls[-1]
    assert isinstance(call, Rerank)
    assert (call.query, call.texts, call.raw_scores, call.truncate) == ("q", TEXTS, True, True)


async def test_a_bare_rerank_with_texts_is_tei_and_uses_the_default_endpoint_of_the_key(
    gateway: ScriptedGateway,
) -> None:
    _, key = await gateway.access.create("app", default_endpoint="ranker")
    reply = await gateway.request("POST", "/rerank", {"query": "q", "texts": TEXTS}, key=key)
    assert reply.json() == RANKS
    reply = await gateway.request("POST", "/rerank", {"query": "q", "texts": []}, key=key)
    assert (reply.status, reply.json()["error_type"]) == (400, "Empty")
    reply = await gateway.request("POST", "/rerank", {"query": "q", "documents": TEXTS}, key=key)
    assert [result["index"] for result in reply.json()["results"]] == [1, 2, 0]


async def test_each_pair_has_the_score_of_its_only_class(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/hf/ranker/predict", {"inputs": ["q", "ccc"]})
    assert reply.json() == [{"score": 0.3, "label": "LABEL_0"}]
    pairs = [["q", "ccc"], ["r", "a"], ["q", "bb"]]
    reply = await gateway.request("POST", "/hf/ranker/predict", {"inputs": pairs, "raw_scores": False})
    assert [scores[0]["score"] for scores in reply.json()] == [0.3, 0.1, 0.2]
    assert [(call.query, len(call.texts)) for call in map(_as_rerank, gateway.script.calls[1:])] == [
        ("q", 2),
        ("r", 1),
    ]


@pytest.mark.parametrize("inputs", ["a", [], ["a", "b", "c"], [["a"]], [["a", 3]]])
async def test_invalid_pairs_are_rejected(gateway: ScriptedGateway, inputs: Any) -> None:
    reply = await gateway.request("POST", "/hf/ranker/predict", {"inputs": inputs})
    assert reply.status == 422
    assert "a pair of texts" in reply.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "status", "expected"),
    [
        (["q", ""], 422, "[inputs[1]] is an empty string."),
        ([["q", "a"], ["r", ""]], 422, "[inputs[1]] is an empty string."),
        ([["q", "a"], ["", "b"]], 422, "[inputs[1]] is an empty string."),
        ([[f"q{place}", "a"] for place in range(2049)], 413, "[inputs] has 2049 texts"),
        ([["q", 3]] * 2049, 413, "[inputs] has 2049 texts"),
    ],
    ids=["text", "text of a pair", "query of a pair", "too many", "too many, before each is read"],
)
async def test_invalid_pairs_are_rejected_before_any_is_scored(
    gateway: ScriptedGateway, inputs: Any, status: int, expected: str
) -> None:
    asked = len(gateway.script.calls)
    reply = await gateway.request("POST", "/hf/ranker/predict", {"inputs": inputs})
    assert (reply.status, len(gateway.script.calls)) == (status, asked)
    assert reply.json()["error"].startswith(expected)


@pytest.mark.parametrize("body", [{"query": "q"}, {"texts": ["a"]}, {"query": "", "texts": ["a"]}])
async def test_rerank_requires_a_query_and_texts(gateway: ScriptedGateway, body: object) -> None:
    reply = await gateway.request("POST", "/hf/ranker", body)
    assert (reply.status, reply.json()["error_type"]) == (422, "Validation")


async def test_sparse_vectors_are_elasticsearchs_at_the_base_url_and_teis_below(
    gateway: ScriptedGateway,
) -> None:
    reply = await gateway.request("POST", "/hf/sparse", {"inputs": ["a", "b"]})
    assert reply.json() == [{"gate": 0.5, "17": 0.25}] * 2
    reply = await gateway.request("POST", "/hf/sparse/embed_sparse", {"inputs": "a", "truncate": True})
    assert reply.json() == [[{"index": "gate", "value": 0.5}, {"index": 17, "value": 0.25}]]
    call = gateway.script.calls[-1]
    assert isinstance(call, SparseEmbed)
    assert call.truncate is True


async def test_similarity_is_the_cosine_of_the_vectors(gateway: ScriptedGateway) -> None:
    def vectors(call: Call) -> Vectors:
        items = [b"[1,0]", b"[2,0]", b"[0,3]", b"[-1,0]", b"[0,0]", b"[1,1]"]
        return Vectors(items=items, encoding=Encoding.JSON, tokens=9)

    gateway.script.answer = vectors
    inputs = {"source_sentence": "a", "sentences": ["b", "c", "d", "e", "f"]}
    for path in ("/hf/e5", "/hf/e5/similarity"):
        reply = await gateway.request("POST", path, {"inputs": inputs, "parameters": {"truncate": True}})
        assert reply.json() == pytest.approx([1.0, 0.0, -1.0, 0.0, 0.7071068])
    call = gateway.script.calls[-1]
    assert isinstance(call, Embed)
    assert (call.texts, call.input_type, call.truncate) == (
        ["a", "b", "c", "d", "e", "f"],
        InputType.CLUSTERING,
        True,
    )


async def test_info_of_a_reranker_and_of_a_sparse_model_are_teis(gateway: ScriptedGateway) -> None:
    info = (await gateway.request("GET", "/hf/ranker/info")).json()
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert (info["max_input_length"], info["max_client_batch_size"]) == (256, 32)
    info = (await gateway.request("GET", "/hf/sparse/info")).json()
    assert info["model_type"] == {"embedding": {"pooling": "splade"}}


async def test_the_sparse_vector_of_an_empty_text_is_empty(gateway: ScriptedGateway) -> None:
    gateway.script.answer = lambda _: SparseVectors(items=[b"{}"])
    assert (await gateway.request("POST", "/hf/sparse/embed_sparse", {"inputs": "a"})).json() == [[]]


def _as_rerank(call: Call) -> Rerank:
    assert isinstance(call, Rerank)
    return call
