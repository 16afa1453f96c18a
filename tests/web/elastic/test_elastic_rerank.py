"""Reranking and sparse vectors on the Elasticsearch face, and the settings that PUT accepts for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add, by_length

from hubgate.domain.endpoint import Source, Task

if TYPE_CHECKING:
    from scripted_gateway import Reply, ScriptedGateway

RERANK = "/_inference/rerank/ranker"
PLACE = {"url": "http://127.0.0.1:9", "api_key": "t"}
TEXTS = ["a", "ccc", "bb"]


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add(scripted, "ranker", Task.RERANK)
    await add(scripted, "sparse", Task.SPARSE_EMBEDDING)
    return scripted


async def put(gateway: ScriptedGateway, task: str, **body: Any) -> Reply:
    return await gateway.request("PUT", f"/_inference/{task}/new", {"service": "hugging_face", **body})


@pytest.mark.parametrize("path", [RERANK, "/_inference/ranker", "/_inference/text-ranking/ranker"])
async def test_rerank_results_have_the_best_first(gateway: ScriptedGateway, path: str) -> None:
    reply = await gateway.request("POST", path, {"query": "q", "input": TEXTS})
    assert reply.json() == {
        "rerank": [
            {"index": 1, "relevance_score": 0.3},
            {"index": 2, "relevance_score": 0.2},
            {"index": 0, "relevance_score": 0.1},
        ]
    }
    assert 'hubgate_texts_total{endpoint="ranker"} 3.0' in "".join(gateway.meter.lines())


async def test_top_n_and_return_documents_at_the_root_take_precedence(gateway: ScriptedGateway) -> None:
    settings = {"url": "http://127.0.0.1:9", "api_key": "t"}
    reply = await put(
        gateway, "rerank", service_settings=settings, task_settings={"top_n": 2, "return_documents": True}
    )
    assert reply.json()["task_settings"] == {"top_n": 2, "return_documents": True}
    asked: dict[str, Any] = {"query": "q", "input": TEXTS}
    ranks = (await gateway.request("POST", "/_inference/new", asked)).json()["rerank"]
    assert [(rank["index"], rank["text"]) for rank in ranks] == [(1, "ccc"), (2, "bb")]
    asked |= {"top_n": 1, "return_documents": False, "task_settings": {"top_n": 3}}
    reply = await gateway.request("POST", "/_inference/new", asked)
    assert reply.json()["rerank"] == [{"index": 1, "relevance_score": 0.3}]
    assert "task_settings were ignored" in reply.headers["warning"]
    changed = await gateway.request("PUT", "/_inference/rerank/new/_update", {"task_settings": {"top_n": 1}})
    assert changed.json()["task_settings"] == {"top_n": 1, "return_documents": True}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"input": "a"}, "Field [query] cannot be null for task type [rerank]"),
        ({"input": "a", "query": ""}, "Field [query] cannot be empty for task type [rerank]"),
        ({"query": "q"}, "Field [input] cannot be null"),
        ({"input": "a", "query": "q", "top_n": 0}, "[top_n] must be a positive integer"),
        (
            {"input": "a", "query": "q", "input_type": "search"},
            "Field [input_type] cannot be specified for task type [rerank]",
        ),
        (
            {"input": "a", "query": "q", "chunking_settings": {}},
            "Field [chunking_settings] cannot be specified for task type [rerank]",
        ),
    ],
)
async def test_an_invalid_rerank_is_a_400_with_the_reason(
    gateway: ScriptedGateway, body: object, reason: str
) -> None:
    reply = await gateway.request("POST", RERANK, body)
    assert (reply.status, reply.json()["error"]["type"]) == (400, "action_request_validation_exception")
    assert reason in reply.json()["error"]["reason"]


async def test_sparse_vectors_are_returned_as_the_engine_sent_them(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/_inference/sparse_embedding/sparse", {"input": ["a", "b"]})
    weights = {"is_truncated": False, "embedding": {"gate": 0.5, "17": 0.25}}
    assert reply.json() == {"sparse_embedding": [weights, weights]}


async def test_rerank_and_sparse_embeddings_are_not_streamed(gateway: ScriptedGateway) -> None:
    for name, task in (("ranker", Task.RERANK), ("sparse", Task.SPARSE_EMBEDDING)):
        reply = await gateway.request("POST", f"/_inference/{name}/_stream", {"input": "a"})
        assert reply.status == 405
        assert f"and task [{task}]. Supported tasks: [completion,chat_completion]" in reply.body.decode()


@pytest.mark.parametrize(
    ("task", "given", "source", "shown"),
    [
        ("completion", {"url": "http://127.0.0.1:9", "model_id": "m"}, Source.DEDICATED, "m"),
        ("chat_completion", {"model_id": "org/m"}, Source.ROUTER, "org/m"),
        ("conversational", {"model_id": "org/m"}, Source.ROUTER, "org/m"),
        (
            "chat_completion",
            {"url": "https://router.huggingface.co/v1/chat/completions", "model_id": "org/m:groq"},
            Source.ROUTER,
            "org/m:groq",
        ),
        (
            "text_embedding",
            {"url": "https://router.huggingface.co/hf-inference/models/org/m/pipeline/feature-extraction"},
            Source.ROUTER,
            "org/m",
        ),
    ],
)
async def test_put_infers_the_source_from_the_url_or_the_model(
    gateway: ScriptedGateway, task: str, given: dict[str, str], source: Source, shown: str
) -> None:
    gateway.script.answer = by_length
    reply = await put(gateway, task, service_settings={**given, "api_key": "t"})
    assert reply.status == 200, reply.body
    endpoint = gateway.service.registry.find("new")
    assert (endpoint.source, endpoint.model) == (source, shown)
    assert reply.json()["service_settings"]["model_id"] == shown


async def test_put_returns_only_the_settings_of_the_task(gateway: ScriptedGateway) -> None:
    reply = await put(gateway, "completion", service_settings={"url": "http://127.0.0.1:9", "api_key": "t"})
    assert reply.json() == {
        "inference_id": "new",
        "task_type": "completion",
        "service": "hugging_face",
        "service_settings": {"url": "http://127.0.0.1:9", "rate_limit": {"requests_per_minute": 3000}},
    }


@pytest.mark.parametrize(
    ("task", "body", "expected"),
    [
        ("completion", {"service_settings": {**PLACE, "similarity": "cosine"}}, "similarity=…"),
        ("rerank", {"service_settings": {**PLACE, "max_input_tokens": 9}}, "max_input_tokens=…"),
        ("completion", {"chunking_settings": {"strategy": "none"}}, "chunking_settings=…"),
        ("completion", {"task_settings": {"top_n": 1}}, "top_n=…"),
        ("rerank", {"task_settings": {"top_n": 0}}, "[top_n] must be a positive integer"),
        ("rerank", {"task_settings": {"return_documents": "yes"}}, "converted to a [Boolean]"),
        ("chat_completion", {"service_settings": {"model_id": "m"}}, "required setting [api_key]"),
        ("chat_completion", {"service_settings": {}}, "required setting [url]"),
        (
            "chat_completion",
            {"service_settings": {"url": "https://router.huggingface.co/v1", "api_key": "t"}},
            "required setting [model_id]",
        ),
        ("song", {}, "Unknown task_type [song]"),
    ],
)
async def test_put_rejects_settings_of_other_tasks(
    gateway: ScriptedGateway, task: str, body: dict[str, Any], expected: str
) -> None:
    if "task_settings" in body or "chunking_settings" in body:
        body["service_settings"] = PLACE
    reply = await put(gateway, task, **body)
    assert reply.status == 400
    assert expected in reply.json()["error"]["reason"]


async def test_update_rejects_settings_of_other_tasks(gateway: ScriptedGateway) -> None:
    reply = await gateway.request(
        "PUT", "/_inference/rerank/ranker/_update", {"service_settings": {"max_input_tokens": 5}}
    )
    assert "max_input_tokens=…" in reply.json()["error"]["reason"]
