"""Reranking on the OpenAI face, in the format of Cohere and Jina."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add

from hubgate.domain.calls import Call, Rerank, Scores
from hubgate.domain.endpoint import Task

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

DOCUMENTS = ["a", "ccc", {"text": "bb"}]
ASKED: dict[str, Any] = {"model": "ranker", "query": "q", "documents": DOCUMENTS}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add(scripted, "ranker", Task.RERANK)
    return scripted


@pytest.mark.parametrize(
    "path", ["/v1/rerank", "/v2/rerank", "/rerank", "/hf/ranker/v1/rerank", "/hf/ranker/rerank"]
)
async def test_rerank_has_coheres_and_jinas_shape(gateway: ScriptedGateway, path: str) -> None:
    reply = await gateway.request("POST", path, ASKED)
    ranking = reply.json()
    assert ranking["results"] == [
        {"index": 1, "relevance_score": 0.3},
        {"index": 2, "relevance_score": 0.2},
        {"index": 0, "relevance_score": 0.1},
    ]
    assert ranking["model"] == "ranker"
    assert ranking["usage"] == {"prompt_tokens": 21, "total_tokens": 21}
    tokens = {"input_tokens": 21, "output_tokens": 0}
    assert ranking["meta"] == {"api_version": {"version": "2"}, "tokens": tokens}
    assert ranking["id"] == f"rerank-{reply.headers['x-request-id']}"


async def test_top_n_limits_results_and_return_documents_returns_the_texts(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/v1/rerank", {**ASKED, "top_n": 2, "return_documents": True})
    assert reply.json()["results"] == [
        {"index": 1, "relevance_score": 0.3, "document": {"text": "ccc"}},
        {"index": 2, "relevance_score": 0.2, "document": {"text": "bb"}},
    ]


async def test_equal_scores_keep_the_order_of_the_texts(gateway: ScriptedGateway) -> None:
    gateway.script.answer = lambda call: Scores(items=[0.5] * len(_texts(call)))
    ranking = (await gateway.request("POST", "/v1/rerank", ASKED)).json()
    assert [result["index"] for result in ranking["results"]] == [0, 1, 2]


async def test_uncounted_tokens_are_estimated_and_warnings_are_returned(gateway: ScriptedGateway) -> None:
    gateway.script.answer = lambda call: Scores(items=[0.5] * len(_texts(call)), warnings=("It was cut.",))
    ranking = (await gateway.request("POST", "/v1/rerank", ASKED)).json()
    assert ranking["usage"]["estimated"] is True
    assert ranking["usage"]["total_tokens"] > 0
    assert ranking["meta"]["warnings"] == ["It was cut."]


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"query": ""}, 400, "[query] is an empty string"),
        ({"query": None}, 400, "[query] must be a string, not null."),
        ({"documents": []}, 400, "[documents] is an empty list"),
        ({"documents": [{"image": "x"}]}, 400, "[documents[0]] must be a string"),
        ({"documents": ["a"] * 2049}, 413, "2049 texts"),
        ({"top_n": 0}, 400, "[top_n] must be at least 1, not 0"),
        ({"rank_fields": ["title"]}, 400, "[rank_fields] is not supported"),
        ({"colour": "red"}, 400, "Unknown field [colour]."),
        ({"model": "e5"}, 400, "serves text_embedding, not rerank"),
        ({"model": "none"}, 404, "[none]"),
        ({"model": None}, 400, "[model] is required"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_an_invalid_rerank_is_an_error_with_a_message_and_never_reaches_the_model(
    gateway: ScriptedGateway, path: str, change: dict[str, Any], status: int, expected: str
) -> None:
    asked = len(gateway.script.calls)
    reply = await gateway.request("POST", path, {**ASKED, **change})
    assert reply.status == status
    assert expected in reply.json()["error"]["message"]
    assert len(gateway.script.calls) == asked


def _texts(call: Call) -> Any:
    assert isinstance(call, Rerank)
    return call.texts
