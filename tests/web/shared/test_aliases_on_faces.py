"""An alias is used like an endpoint's name on every face, and each answer says which endpoint and model it is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from elasticsearch import ApiError, Elasticsearch, NotFoundError
from huggingface_hub import InferenceClient
from lookalikes import lookalike
from running_gateway import RunningGateway, eventually

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = ["a text"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Aliases `search` of `words-1` and `ranks` of `ranker`; tests move them back."""
    folder = tmp_path_factory.mktemp("aliases")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGateway(settings) as running:
        running.add("words-1", dimensions=4, model="org/one")
        running.add("words-2", dimensions=4, model="org/two")
        running.add("wide", dimensions=8, model="org/wide")
        running.add("ranker", task="text-ranking", model="org/ranker")
        running.request("PUT", "/api/aliases/search", {"endpoint": "words-1"})
        running.request("PUT", "/api/aliases/ranks", {"endpoint": "ranker"})
        yield running


def move(gateway: RunningGateway, endpoint: str, *, accept: bool = False) -> dict[str, Any]:
    form = {"endpoint": endpoint, **({"accept_new_vectors": True} if accept else {})}
    reply = gateway.request("PUT", "/api/aliases/search", form)
    assert reply.status == 200, reply.body
    moved: dict[str, Any] = reply.json()
    return moved


CALLS: dict[str, tuple[str, object]] = {
    "OpenAI's embeddings": ("/v1/embeddings", {"model": "search", "input": TEXT}),
    "OpenAI's embeddings of queries": ("/v1/embeddings", {"model": "search:query", "input": TEXT}),
    "OpenAI's chunks": ("/v1/embeddings", {"model": "search", "input": TEXT, "chunking_settings": {}}),
    "Cohere's v1": ("/v1/embed", {"model": "search", "texts": TEXT}),
    "Cohere's v2": ("/v2/embed", {"model": "search", "texts": TEXT, "input_type": "search_query"}),
    "rerank": ("/v1/rerank", {"model": "ranks", "query": "a", "documents": TEXT}),
    "Elasticsearch's": ("/_inference/text_embedding/search", {"input": TEXT}),
    "Elasticsearch's without a task": ("/_inference/search", {"input": TEXT}),
    "Elasticsearch's rerank": ("/_inference/rerank/ranks", {"input": TEXT, "query": "a"}),
    "Hugging Face's": ("/hf/search", {"inputs": TEXT}),
    "TEI's": ("/hf/search/embed", {"inputs": TEXT}),
    "TEI's tokenize": ("/hf/search/tokenize", {"inputs": TEXT}),
    "TEI's rerank": ("/hf/ranks/rerank", {"query": "a", "texts": TEXT}),
    "OpenAI's below hf": ("/hf/search/v1/embeddings", {"input": TEXT}),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_face_answers_calls_to_an_alias_and_names_the_source(
    gateway: RunningGateway, call: str
) -> None:
    path, body = CALLS[call]
    reply = gateway.request("POST", path, body)
    assert reply.status == 200, reply.body
    endpoint, model = ("ranker", "org/ranker") if "ranks" in str(CALLS[call]) else ("words-1", "org/one")
    assert (reply.headers["X-Hubgate-Endpoint"], reply.headers["X-Hubgate-Model"]) == (endpoint, model)


def test_openais_client_reads_the_endpoint_behind_the_alias(gateway: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client:
        assert client.embeddings.create(model="search", input=TEXT).model == "words-1"
        assert client.embeddings.create(model="search:query", input=TEXT).model == "words-1:query"
        listed = {one.id: one.model_dump() for one in client.models.list()}
        assert [*listed] == ["ranker", "wide", "words-1", "words-2", "ranks", "search"]
        assert (listed["search"]["alias_of"], listed["search"]["model"]) == ("words-1", "org/one")
        assert "alias_of" not in listed["words-1"]
        shown = client.models.retrieve("search")
        assert (shown.id, shown.model_dump()["alias_of"]) == ("search", "words-1")
        with pytest.raises(openai.NotFoundError, match=r"Did you mean \[search\]"):
            client.embeddings.create(model="serch", input=TEXT)


def test_elasticsearchs_client_uses_an_alias_and_cannot_change_what_is_behind_it(
    gateway: RunningGateway,
) -> None:
    with Elasticsearch(gateway.url, api_key=gateway.admin_key, max_retries=0, request_timeout=240) as client:
        (shown,) = client.inference.get(inference_id="search")["endpoints"]
        assert (shown["inference_id"], shown["task_type"]) == ("search", "text_embedding")
        assert shown["service_settings"]["dimensions"] == 4
        listed = {one["inference_id"] for one in client.inference.get()["endpoints"]}
        assert {"search", "ranks", "words-1"} <= listed
        embedded = client.inference.inference(inference_id="search", input=TEXT)
        assert len(embedded["text_embedding"][0]["embedding"]) == 4
        with pytest.raises(ApiError, match=r"\[search\] is an alias of endpoint \[words-1\]"):
            client.inference.delete(inference_id="search")
        with pytest.raises(ApiError, match="is behind the alias search"):
            client.inference.delete(inference_id="words-1")
        settings = {"url": "http://127.0.0.1:9", "api_key": "hf_x"}
        for name in ("search", "ranks"):
            with pytest.raises(ApiError, match=rf"\[{name}\] is an alias"):
                client.inference.put_hugging_face(
                    task_type="text_embedding",
                    huggingface_inference_id=name,
                    service="hugging_face",
                    service_settings=settings,
                )
        with pytest.raises(NotFoundError):
            client.inference.get(inference_id="missing")


def test_hugging_faces_client_uses_an_alias(gateway: RunningGateway) -> None:
    client = InferenceClient(f"{gateway.url}/hf/search", token=gateway.admin_key)
    assert client.feature_extraction("a text").shape == (1, 4)


def test_move_with_new_vectors_is_a_conflict_until_it_is_accepted(gateway: RunningGateway) -> None:
    refused = gateway.request("PUT", "/api/aliases/search", {"endpoint": "wide"})
    assert refused.status == 409
    error = refused.json()["error"]
    assert error["cause"] == "new_vectors"
    assert "its dimensions are 8, not 4" in error["message"]
    moved = move(gateway, "wide", accept=True)
    assert (moved["endpoint"], moved["former"], moved["model"]) == ("wide", "words-1", "org/wide")
    reply = gateway.request("POST", "/v1/embeddings", {"model": "search", "input": TEXT})
    assert len(reply.json()["data"][0]["embedding"]) == 8
    assert reply.headers["X-Hubgate-Model"] == "org/wide"
    assert move(gateway, "words-1", accept=True)["new_vectors"]


def test_usage_counts_for_the_endpoint_behind_the_alias(gateway: RunningGateway) -> None:
    gateway.request("POST", "/v1/embeddings", {"model": "search", "input": TEXT})

    def counted() -> set[str]:
        rows = gateway.request("GET", "/api/usage?by=endpoint").json()["rows"]
        return {row["endpoint"] for row in rows if row["requests"]}

    eventually(lambda: "words-1" in counted())
    assert "search" not in counted()


def test_key_may_use_an_alias_by_its_name_or_by_the_endpoint_behind_it(gateway: RunningGateway) -> None:
    by_alias = gateway.create_key("by-alias", endpoints=["search"], default_endpoint="search")
    by_endpoint = gateway.create_key("by-endpoint", endpoints=["words-1"])
    other = gateway.create_key("other", endpoints=["wide"])

    def statuses(key: str) -> list[int]:
        return [
            gateway.request("POST", "/v1/embeddings", {"model": model, "input": TEXT}, key=key).status
            for model in ("search", "words-1", "words-2")
        ]

    def listed(key: str) -> list[str]:
        return [one["id"] for one in gateway.request("GET", "/v1/models", key=key).json()["data"]]

    assert statuses(by_alias) == [200, 404, 404]
    assert statuses(by_endpoint) == [200, 200, 404]
    assert statuses(other) == [404, 404, 404]
    assert (listed(by_alias), listed(by_endpoint), listed(other)) == (
        ["search"],
        ["words-1", "search"],
        ["wide"],
    )
    assert gateway.request("POST", "/embed", {"inputs": TEXT}, key=by_alias).status == 200, "as its default"
    moved = move(gateway, "words-2")
    assert moved["keys"] == {"follow": ["by-alias"], "lose": ["by-endpoint"]}
    assert statuses(by_alias) == [200, 404, 404]
    assert statuses(by_endpoint) == [404, 200, 404], "a move gives no key another endpoint"
    move(gateway, "words-1")
    in_use = gateway.request("DELETE", "/api/aliases/search")
    assert (in_use.status, in_use.json()["error"]["cause"]) == (409, "in_use")
    for name in ("by-alias", "by-endpoint", "other"):
        gateway.request("DELETE", f"/api/keys/{name}")


def test_answer_of_a_fallback_names_the_fallback(gateway: RunningGateway) -> None:
    with lookalike("tei", name="org/one") as server, lookalike("tei", name="org/one") as spare:
        gateway.add("spare", url=spare.url)
        gateway.add("main", url=server.url, fallback="spare", cache=False)
        gateway.request("PUT", "/api/aliases/both", {"endpoint": "main"})
        body = {"model": "both", "input": TEXT}
        assert gateway.request("POST", "/v1/embeddings", body).headers["X-Hubgate-Endpoint"] == "main"
        server.fail("failing")
        reply = gateway.request("POST", "/v1/embeddings", body)
        assert (reply.status, reply.headers["X-Hubgate-Endpoint"]) == (200, "spare")
        for path in ("aliases/both", "endpoints/main", "endpoints/spare"):
            assert gateway.request("DELETE", f"/api/{path}").status == 204
