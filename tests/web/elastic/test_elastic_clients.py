"""The claims of web/elastic/CONTRACT.md about the official client, over real sockets with real upstreams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from elasticsearch import (
    ApiError,
    AsyncElasticsearch,
    AuthenticationException,
    AuthorizationException,
    BadRequestError,
    Elasticsearch,
    ElasticsearchWarning,
    NotFoundError,
)
from lookalikes import lookalike, vector_of
from running_gateway import RunningGateway

from hubgate.settings import Settings

# The tokens of these look-alikes nobody can count, and the Hub does not have their model.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*may be cut without notice:elasticsearch.ElasticsearchWarning"),
    pytest.mark.filterwarnings("ignore:No prefix is added:elasticsearch.ElasticsearchWarning"),
]

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hf_a-token-nobody-may-see"
TASK = "text_embedding"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """One gateway for the whole module; each test registers its own endpoints."""
    folder = tmp_path_factory.mktemp("elastic")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGateway(settings) as running:
        running.add("fake")
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[Elasticsearch]:
    """The official client with retries disabled."""
    with Elasticsearch(gateway.url, api_key=gateway.admin_key, max_retries=0, request_timeout=240) as client:
        yield client


def put(client: Elasticsearch, name: str, url: str, **fields: Any) -> Any:
    """Register a server."""
    return client.inference.put_hugging_face(
        task_type=TASK,
        huggingface_inference_id=name,
        service="hugging_face",
        service_settings={"url": url, "api_key": TOKEN},
        **fields,
    ).body


def reason_of(error: ApiError) -> str:
    """The innermost reason of the error, having checked that the body contains no token."""
    assert TOKEN not in json.dumps(error.body)
    failure = error.body["error"]
    reason: str = failure.get("caused_by", failure)["reason"]
    return reason


def test_endpoint_lifecycle_from_put_to_delete(client: Elasticsearch) -> None:
    with lookalike("tei", dimensions=8) as server:
        chunking = {"strategy": "recursive", "max_chunk_size": 200, "separators": ["\n\n", "\n"]}
        made = put(client, "whole-life", server.url, chunking_settings=chunking)
        assert made["service_settings"] == {
            "url": server.url,
            "similarity": "cosine",
            "dimensions": 8,
            "rate_limit": {"requests_per_minute": 3000},
        }
        assert made["chunking_settings"] == chunking
        assert client.inference.get(inference_id="whole-life").body == {"endpoints": [made]}
        assert made in client.inference.get(task_type=TASK, inference_id="_all").body["endpoints"]

        texts = ["one text", "another"]
        answer = client.inference.text_embedding(inference_id="whole-life", input=texts, timeout="5s").body
        assert [one["embedding"] for one in answer["text_embedding"]] == [
            list(vector_of(t, 8)) for t in texts
        ]
        assert server.posts[-1].headers["authorization"] == f"Bearer {TOKEN}"
        same = client.inference.inference(inference_id="whole-life", task_type=TASK, input=texts).body
        assert same == answer

        changed = client.inference.update(
            inference_id="whole-life",
            task_type=TASK,
            inference_config={"service_settings": {"rate_limit": {"requests_per_minute": 60}}},
        ).body
        assert changed["service_settings"]["rate_limit"] == {"requests_per_minute": 60}

        dry = client.inference.delete(inference_id="whole-life", dry_run=True).body
        assert dry["acknowledged"] is False
        assert client.inference.delete(inference_id="whole-life", task_type=TASK).body["acknowledged"] is True
        with pytest.raises(NotFoundError) as missing:
            client.inference.get(inference_id="whole-life")
        assert str(missing.value) == (
            "NotFoundError(404, 'resource_not_found_exception', 'Inference endpoint not found [whole-life]')"
        )


async def test_the_async_client_works_the_same(gateway: RunningGateway) -> None:
    async with AsyncElasticsearch(gateway.url, api_key=gateway.admin_key, request_timeout=240) as client:
        answer = await client.inference.text_embedding(inference_id="fake", input="a text")
        assert len(answer["text_embedding"][0]["embedding"]) == 384
        assert answer.meta.headers["content-type"] == "application/vnd.elasticsearch+json;compatible-with=9"
        with pytest.raises(BadRequestError, match="Field \\[input\\] cannot be an empty array"):
            await client.inference.inference(inference_id="fake", input=[])


def test_a_fake_or_local_endpoint_is_shown_with_its_model_id(
    gateway: RunningGateway, client: Elasticsearch
) -> None:
    gateway.add("with-model", model="org/some-model")
    (shown,) = client.inference.get(inference_id="with-model").body["endpoints"]
    assert shown["service"] == "hugging_face"
    assert shown["service_settings"] == {
        "model_id": "org/some-model",
        "similarity": "cosine",
        "dimensions": 384,
        "rate_limit": {"requests_per_minute": 3000},
    }


def test_the_client_accepts_hubgate_as_elasticsearch(gateway: RunningGateway, client: Elasticsearch) -> None:
    assert client.ping() is True
    assert client.info()["tagline"] == "You Know, for Search"
    assert client.options(bearer_auth=gateway.admin_key).ping() is True
    assert client.options(basic_auth=("anyone", gateway.admin_key)).ping() is True


def test_wrong_key_and_missing_permission_raise_the_clients_own_errors(
    gateway: RunningGateway, client: Elasticsearch
) -> None:
    with pytest.raises(AuthenticationException):
        client.options(api_key="wrong").inference.get()
    app = client.options(api_key=gateway.create_key("only-calls"))
    assert app.inference.text_embedding(inference_id="fake", input="a")["text_embedding"]
    with pytest.raises(AuthorizationException, match="cluster:admin/xpack/inference/delete"):
        app.inference.delete(inference_id="fake")


def test_unsupported_stream_raises_405(client: Elasticsearch) -> None:
    with pytest.raises(ApiError) as refused:
        client.perform_request(
            "POST",
            "/_inference/text_embedding/fake/_stream",
            headers={"content-type": "application/json", "accept": "text/event-stream"},
            body={"input": "a"},
        )
    assert refused.value.meta.status == 405
    assert "Streaming is not allowed for service [hugging_face]" in str(refused.value.body)


def test_a_warning_of_hubgate_is_an_elasticsearch_warning(client: Elasticsearch) -> None:
    with pytest.warns(ElasticsearchWarning, match="task_settings were ignored"):
        client.inference.text_embedding(inference_id="fake", input="a", task_settings={"x": 1})


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("paused", "The endpoint is paused."),
        ("wrong-token", "Received an authentication error status code"),
        ("no-right", "Received an unsuccessful status code"),
        ("too-many", "Received a rate limit status code"),
        ("waking-503", "Received a rate limit status code"),
        ("failing", "Received a server error status code"),
        ("html", ""),
        ("not-json", ""),
        ("close", ""),
        ("half", ""),
        ("nan", ""),
        ("echo", ""),
    ],
)
def test_put_of_a_broken_server_is_a_400_with_its_cause_and_stores_nothing(
    client: Elasticsearch, fault: str, expected: str
) -> None:
    with lookalike("tei") as server:
        server.fail(fault, method="POST")
        with pytest.raises(BadRequestError) as refused:
            put(client, "broken", server.url)
    assert refused.value.error == "status_exception"
    assert "validation call to service threw an exception" in refused.value.body["error"]["reason"]
    assert expected in reason_of(refused.value)
    with pytest.raises(NotFoundError):
        client.inference.get(inference_id="broken")


@pytest.mark.parametrize(
    "url",
    ["no url", "file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "ftp://host/", "http://"],
)
def test_put_of_a_forbidden_address_is_a_400(client: Elasticsearch, url: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        put(client, "nowhere", url)
    assert reason_of(refused.value)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("paused", 400),
        ("wrong-token", 401),
        ("too-many", 429),
        ("loading", 400),
        ("failing", 400),
        ("backend", 424),
        ("html", 400),
        ("close", 400),
        ("half", 400),
        ("fewer", 400),
        ("more", 400),
        ("nan", 400),
        ("redirect", 400),
    ],
)
def test_a_server_that_fails_after_put_has_elasticsearchs_status(
    client: Elasticsearch, fault: str, status: int
) -> None:
    # "too-many" asks for a pause of 7 s and "loading" for 20 s: less time than that leaves no second try.
    timeout = {"too-many": "6s", "loading": "19s"}.get(fault, "60s")
    with lookalike("tei") as server:
        put(client, f"later-{fault}", server.url)
        server.fail(fault)
        with pytest.raises(ApiError) as failed:
            client.inference.text_embedding(inference_id=f"later-{fault}", input="a", timeout=timeout)
        assert failed.value.meta.status == status
        assert failed.value.body["status"] == status
        assert reason_of(failed.value)
        client.inference.delete(inference_id=f"later-{fault}")


def test_a_call_to_a_server_that_hangs_ends_at_the_timeout(client: Elasticsearch) -> None:
    with lookalike("tei") as server:
        put(client, "hanging", server.url)
        server.fail("hang")
        with pytest.raises(ApiError) as late:
            client.inference.text_embedding(inference_id="hanging", input="a", timeout="50ms")
        assert (late.value.meta.status, late.value.error) == (429, "timeout_exception")
        assert reason_of(late.value).startswith("Request timed out after [50ms] for inference id [hanging]")
        with pytest.raises(BadRequestError) as refused:
            put(client, "hanging-too", server.url, timeout="50ms")
        assert "Request timed out after [50ms] for inference id [hanging-too]" in reason_of(refused.value)


def test_every_response_has_the_product_header_and_a_request_id(gateway: RunningGateway) -> None:
    for method, path, body in (
        ("GET", "/_inference/fake", None),
        ("GET", "/_inference/missing", None),
        ("POST", "/_inference/fake", b"{"),
        ("POST", "/_inference/fake", {"input": "a"}),
        ("PATCH", "/_inference/fake", None),
        ("GET", "/_inference/a/b/c", None),
    ):
        reply = gateway.request(method, path, body)
        assert reply.headers["x-elastic-product"] == "Elasticsearch"
        assert reply.headers["x-request-id"]


def test_a_body_over_the_limit_is_a_413_in_elasticsearchs_shape(client: Elasticsearch) -> None:
    with pytest.raises(ApiError) as refused:
        client.inference.text_embedding(inference_id="fake", input="a" * 50_000_000)
    assert (refused.value.meta.status, refused.value.error) == (413, "status_exception")
    assert "HUBGATE_MAX_BODY_BYTES" in reason_of(refused.value)


def test_the_client_completes_ranks_and_reads_raw_streams(client: Elasticsearch) -> None:
    with lookalike("vllm", kind="llm") as writer, lookalike("tei", kind="reranker") as ranker:
        settings = {"api_key": TOKEN, "url": writer.url}
        for task in ("completion", "chat_completion"):
            body = {"service": "hugging_face", "service_settings": settings}
            client.inference.put(task_type=task, inference_id=task.replace("_", "-"), inference_config=body)
        client.inference.put_hugging_face(
            task_type="rerank",
            huggingface_inference_id="ranker",
            service="hugging_face",
            service_settings={"api_key": TOKEN, "url": ranker.url},
        )
        completed = client.inference.completion(inference_id="completion", input="good morning")
        assert completed["completion"] == [{"result": "You said: good morning"}]
        ranked = client.inference.rerank(inference_id="ranker", query="a", input=["b", "a a"])["rerank"]
        assert sorted(rank["index"] for rank in ranked) == [0, 1]
        messages = [{"role": "user", "content": "good morning"}]
        asked: dict[str, Any] = {
            "completion": {"input": "good morning"},
            "chat-completion": {"messages": messages},
        }
        for name, question in asked.items():
            response = client.perform_request(
                "POST",
                f"/_inference/{name}/_stream",
                headers={"accept": "text/event-stream", "content-type": "application/json"},
                body=question,
            )
            assert str(response.body).startswith("event: message\ndata: {")
            assert str(response.body).endswith("event: message\ndata: [DONE]\n\n")
            assert "morning" in str(response.body)
