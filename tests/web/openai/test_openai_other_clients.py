"""Fields on the OpenAI face for clients of Cohere, Jina, Voyage and Xinference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add, add_generator

from hubgate.domain.calls import Scores
from hubgate.domain.endpoint import InputType, Task

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

RANKED: dict[str, Any] = {"model": "ranker", "query": "q", "documents": ["a", "ccc", "bb"]}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add(scripted, "ranker", Task.RERANK)
    return scripted


async def rerank(gateway: ScriptedGateway, **more: Any) -> Any:
    reply = await gateway.request("POST", "/v1/rerank", {**RANKED, **more})
    assert reply.status == 200, reply.body
    return reply.json()


async def test_rerank_with_top_k_has_voyages_shape(gateway: ScriptedGateway) -> None:
    reply = await rerank(gateway, top_k=2, truncation=True, return_documents=True)
    assert reply == {
        "object": "list",
        "data": [
            {"index": 1, "relevance_score": 0.3, "document": "ccc"},
            {"index": 2, "relevance_score": 0.2, "document": "bb"},
        ],
        "model": "ranker",
        "usage": {"total_tokens": 21},
    }
    # Voyage's client sends null for all documents.
    assert [one["index"] for one in (await rerank(gateway, top_k=None))["data"]] == [1, 2, 0]
    gateway.script.answer = lambda _: Scores(items=[0.5] * 3)
    assert (await rerank(gateway, top_k=None))["usage"]["estimated"] is True


async def test_rerank_accepts_what_xinferences_client_always_sends(gateway: ScriptedGateway) -> None:
    sent = {"top_n": None, "max_chunks_per_doc": None, "return_documents": True, "return_len": None}
    reply = await rerank(gateway, **sent, kwargs="{}")
    assert reply["results"][0]["document"] == {"text": "ccc"}
    refused = await gateway.request("POST", "/v1/rerank", {**RANKED, "kwargs": '{"instruct":"x"}'})
    assert (refused.status, "[kwargs] is not supported" in refused.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("name", "kind", "ability"),
    [("e5", "embedding", "embed"), ("ranker", "rerank", "rerank"), ("llm", "LLM", "chat")],
)
async def test_one_model_has_the_fields_of_xinference_and_cohere(
    gateway: ScriptedGateway, name: str, kind: str, ability: str
) -> None:
    await add_generator(gateway)
    reply = (await gateway.request("GET", f"/v1/models/{name}")).json()
    assert (reply["model_type"], reply["model_ability"], reply["endpoints"]) == (kind, [ability], [ability])
    assert (reply["name"], reply["model_name"], reply["max_tokens"]) == (name, "org/model", 256)


async def test_coheres_clients_get_a_list_of_models_in_their_format(gateway: ScriptedGateway) -> None:
    headers = {"x-fern-sdk-name": "cohere"}
    for path, names in (("/v1/models", ["e5", "ranker"]), ("/v1/models?endpoint=rerank", ["ranker"])):
        reply = (await gateway.request("GET", path, more_headers=headers)).json()
        assert [model["name"] for model in reply["models"]] == names


async def test_xinferences_clients_learn_without_a_key_that_one_is_required(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("GET", "/v1/cluster/auth", key=None)
    assert (reply.status, reply.json()) == (200, {"auth": True})


async def embed(gateway: ScriptedGateway, **more: Any) -> Any:
    return await gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": ["a"], **more})


async def test_embeddings_accept_voyages_fields(scripted: ScriptedGateway) -> None:
    reply = await embed(
        scripted,
        input_type="document",
        truncation=False,
        output_dimension=2,
        output_dtype=None,
        encoding_format="base64",
    )
    assert isinstance(reply.json()["data"][0]["embedding"], str)
    call = scripted.script.embedded
    assert (call.input_type, call.truncate) == (InputType.INGEST, False)
    assert (await embed(scripted, output_dimension=1)).status == 400


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("retrieval.query", InputType.SEARCH),
        ("retrieval.passage", InputType.INGEST),
        ("text-matching", InputType.CLUSTERING),
        ("separation", InputType.CLUSTERING),
        ("classification", InputType.CLASSIFICATION),
    ],
)
async def test_embeddings_accept_jinas_fields(scripted: ScriptedGateway, task: str, kind: InputType) -> None:
    reply = await embed(
        scripted,
        input=[{"text": "a"}, "b"],
        task=task,
        normalized=True,
        truncate=True,
        late_chunking=False,
        embedding_type="base64",
    )
    assert [isinstance(one["embedding"], str) for one in reply.json()["data"]] == [True, True]
    call = scripted.script.embedded
    assert (call.texts, call.input_type, call.normalize, call.truncate) == (["a", "b"], kind, True, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"late_chunking": True}, "[late_chunking] is not supported"),
        ({"task": "code.query"}, "[task] is not supported: 'code.query'"),
        ({"input": [{"image": "x"}]}, "[input[0]] must be a string, not an object"),
        ({"input": [{"text": "a", "image": "x"}]}, "[input[0]] must be a string, not an object"),
    ],
)
async def test_options_that_would_change_the_vectors_are_rejected(
    scripted: ScriptedGateway, change: dict[str, Any], expected: str
) -> None:
    reply = await embed(scripted, **change)
    assert (reply.status, reply.json()["detail"][: len(expected)]) == (400, expected)
