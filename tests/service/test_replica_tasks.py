"""Replicas of each task, a hosted one, and how they are shown, exported and stored."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.hub_api import HubApi
from lookalikes.model import Answer, vector_of
from lookalikes.server import Servers
from running_gateway import RunningGateway, eventually

from hubgate.domain.endpoint import Endpoint, Source, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command
    from lookalikes.site import Seen

    from hubgate.settings import Settings

FAST = {"requests_per_minute": 60_000}


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    with RunningGateway(settings) as running:
        yield running


def post(gateway: RunningGateway, path: str, **body: Any) -> Any:
    reply = gateway.request("POST", path, body)
    assert reply.status == 200, reply.body
    return reply


def states(gateway: RunningGateway, name: str) -> list[str]:
    return [one["state"] for one in gateway.request("GET", f"/api/endpoints/{name}").json()["replicas"]]


class TestRerank:
    def test_killed_replica_fails_no_call(self, gateway: RunningGateway) -> None:
        with Servers(["tei", "vllm"], kind="reranker") as servers:
            gateway.add("ranker", urls=servers.urls, task="rerank", rate_limit=FAST)
            servers.stop(0)
            for _ in range(4):
                ranked = post(gateway, "/v1/rerank", model="ranker", query="a b", documents=["a b", "c"])
                assert ranked.json()["results"][0]["index"] == 0
            assert states(gateway, "ranker") == ["failing", "running"]

    def test_refuses_another_model_by_its_scores(self, gateway: RunningGateway) -> None:
        with Servers(["tei", "tei"], kind="reranker") as servers:
            servers.stop(1)
            servers.start(1, seed="as another model would ")
            form = {"name": "ranker", "urls": servers.urls, "task": "rerank"}
            reply = gateway.request("POST", "/api/endpoints", form)
            assert "it scores known pairs" in reply.json()["error"]["message"]


class TestGeneratedText:
    CHAT = {"model": "llm", "messages": [{"role": "user", "content": "one two three"}]}  # noqa: RUF012

    def test_stream_moves_before_its_first_event(self, gateway: RunningGateway) -> None:
        with Servers(["vllm", "vllm"], kind="llm") as servers:
            gateway.add("llm", urls=servers.urls, task="chat_completion", rate_limit=FAST)
            servers.stop(0)
            for _ in range(3):
                body = post(gateway, "/v1/chat/completions", **self.CHAT, stream=True).body
                assert b"[DONE]" in body
            assert post(gateway, "/v1/chat/completions", **self.CHAT).json()["choices"]
            assert states(gateway, "llm") == ["failing", "running"]

    def test_stream_that_breaks_ends_with_an_error_and_is_not_repeated(self, gateway: RunningGateway) -> None:
        with Servers(["vllm", "vllm"], kind="llm") as servers:
            gateway.add("llm", urls=servers.urls, task="chat_completion", rate_limit=FAST)
            for server in servers.all:
                server.fail("cut", times=1, method="POST")
            sent = sum(len(server.posts) for server in servers.all)
            body = post(gateway, "/v1/chat/completions", **self.CHAT, stream=True).body
            assert b"[DONE]" not in body
            assert b"error" in body
            assert sum(len(server.posts) for server in servers.all) == sent + 1

    def test_refuses_a_server_that_reports_another_model(self, gateway: RunningGateway) -> None:
        with Servers(["vllm", "vllm"], kind="llm") as servers:
            servers.stop(1)
            servers.start(1, name="another/model")
            form = {"name": "llm", "urls": servers.urls, "task": "chat_completion"}
            message = gateway.request("POST", "/api/endpoints", form).json()["error"]["message"]
            assert f"{servers.urls[1]} does not run the same model" in message
            assert "its model is another/model, not look/alike" in message

    def test_swapped_model_writes_nothing(self, gateway: RunningGateway) -> None:
        with Servers(["vllm", "vllm"], kind="llm") as servers:
            gateway.add("llm", urls=servers.urls, task="chat_completion", rate_limit=FAST)
            servers.stop(0)
            servers.start(0, name="another/model")
            for _ in range(3):
                post(gateway, "/v1/chat/completions", **self.CHAT)
            assert states(gateway, "llm")[0] in {"changed", "failing"}


class ServingHub(HubApi):
    """A Hub that lists the model as served by hf-inference."""

    def reply(self, seen: Seen) -> Answer:
        serving = {
            "provider": "hf-inference",
            "task": "feature-extraction",
            "status": "live",
            "providerId": "org/model",
        }
        return Answer(200, {"id": "org/model", "inferenceProviderMapping": [serving]})


def test_hosted_model_takes_over_for_a_dedicated_server(settings: Settings) -> None:
    hub = ServingHub()
    with (
        hub.running(),
        Servers(["tei"], name="org/model") as servers,
        lookalike("router", name="org/model") as router,
        RunningGateway(replace(settings, hf_endpoint=hub.url, router_url=router.url)) as gateway,
    ):
        shown = gateway.add("e5", url=servers.urls[0], model="org/model", provider="auto", rate_limit=FAST)
        assert [one["name"] for one in shown["replicas"]] == [servers.urls[0], "hosted"]
        asked = len(router.posts)
        servers.stop(0)
        reply = post(gateway, "/v1/embeddings", model="e5", input="one").json()
        assert reply["data"][0]["embedding"] == pytest.approx(vector_of("one", 8), abs=1e-6)
        assert len(router.posts) > asked


def test_provider_that_an_earlier_version_stored_without_a_model_has_no_effect() -> None:
    stored = Endpoint(
        name="e5", task=Task.TEXT_EMBEDDING, source=Source.DEDICATED, url="http://a.test", provider="auto"
    )
    assert stored.replicas == (stored,)


def test_hosted_replica_needs_a_model(gateway: RunningGateway) -> None:
    reply = gateway.request(
        "POST", "/api/endpoints", {"name": "e5", "url": "http://a.test", "provider": "auto"}
    )
    assert "A hosted replica requires a model" in reply.json()["error"]["message"]


class TestOperation:
    @pytest.fixture
    def servers(self) -> Iterator[Servers]:
        with Servers(["tei", "vllm"]) as running:
            yield running

    def test_endpoint_with_one_url_has_no_balancer(self, gateway: RunningGateway, servers: Servers) -> None:
        shown = gateway.add("e5", url=servers.urls[0])
        health = gateway.service.pipelines()["e5"].health
        assert health is not None
        assert health.balancer is None
        assert "replicas" not in shown

    def test_each_replica_is_diagnosed(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", urls=servers.urls)
        servers.stop(1)
        servers.start(1, seed="another ")
        steps = gateway.request("POST", "/api/endpoints/e5/diagnose").json()["steps"]
        assert [step["replica"] for step in steps] == [
            url for url in servers.urls for _ in range(len(steps) // 2)
        ]
        assert [step["replica"] for step in steps if step["outcome"] == "failed"] == [servers.urls[1]]
        assert f"{servers.urls[1]} runs another model" in steps[-1]["message"]

    def test_metrics_have_each_replica(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", urls=servers.urls)
        servers.stop(0)
        post(gateway, "/v1/embeddings", model="e5", input="one")
        metrics = gateway.request("GET", "/metrics").body.decode()
        assert f'hubgate_replica_up{{endpoint="e5",replica="{servers.urls[1]}"}} 1.0' in metrics
        assert f'hubgate_replica_in_flight{{endpoint="e5",replica="{servers.urls[0]}"}} 0.0' in metrics

    def test_configuration_round_trip(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", urls=servers.urls)
        text = gateway.request("GET", "/api/config").body.decode()
        assert "url:" not in text
        assert gateway.request("POST", "/api/config", {"yaml": text}).json()["steps"] == []
        gateway.request("DELETE", "/api/endpoints/e5")
        steps = gateway.request("POST", "/api/config", {"yaml": text}).json()["steps"]
        assert [step["action"] for step in steps] == ["add"]
        assert gateway.request("GET", "/api/endpoints/e5").json()["urls"] == servers.urls

    def test_audit_log_has_the_urls(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", url=servers.urls[0])
        gateway.request("PATCH", "/api/endpoints/e5", {"urls": servers.urls})
        change = gateway.request("GET", "/api/audit?limit=1").json()["changes"][0]
        assert change["changes"]["urls"] == [[], servers.urls]

    def test_replica_that_is_away_stays_when_another_is_added(
        self, gateway: RunningGateway, servers: Servers
    ) -> None:
        with lookalike("tei") as third:
            gateway.add("e5", urls=servers.urls, rate_limit=FAST)
            servers.stop(0)
            urls = [*servers.urls, third.url]
            reply = gateway.request("PATCH", "/api/endpoints/e5", {"urls": urls})
            assert reply.status == 200, reply.body
            assert "did not answer" in str(reply.json()["facts"]["warnings"])
            post(gateway, "/v1/embeddings", model="e5", input="one")
            servers.start(0)
            numbers = count()

            def is_back() -> bool:
                post(gateway, "/v1/embeddings", model="e5", input=str(next(numbers)))
                return states(gateway, "e5")[0] == "running"

            eventually(is_back)

    def test_stored_token_is_not_sent_to_a_new_host(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", url=servers.urls[0], token="hf_0123456789")
        reply = gateway.request("PATCH", "/api/endpoints/e5", {"urls": servers.urls})
        assert reply.json()["error"]["cause"] == "token_needed"
        form = {"urls": servers.urls, "token": "hf_0123456789"}
        assert gateway.request("PATCH", "/api/endpoints/e5", form).status == 200


def test_replicas_survive_a_restart_and_are_proven_again(settings: Settings) -> None:
    with Servers(["tei", "tei"]) as servers:
        with RunningGateway(settings) as gateway:
            gateway.add("e5", urls=servers.urls, rate_limit=FAST)
            key = gateway.create_key()
        servers.stop(0)
        swapped = servers.start(0, seed="another ")
        with RunningGateway(settings) as gateway:
            assert swapped.requests == []  # the start contacts nobody
            reply = gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "one"}, key=key)
            assert reply.json()["data"][0]["embedding"] == pytest.approx(vector_of("one", 8), abs=1e-6)


def test_commands_register_show_and_change_replicas(gateway: RunningGateway, hubgate: Command) -> None:
    with Servers(["tei", "tei"]) as servers:
        first, second = servers.urls
        assert hubgate("add", "e5", "--url", first, "--url", second).status == 0
        shown = hubgate("show", "e5").out
        assert f"{first}  running tei, 0 requests" in shown
        assert f"{first} {second}" in hubgate("list").out
        assert hubgate("doctor", "e5").out.count("answer") == 2
        assert hubgate("edit", "e5", "--url", first).status == 0
        assert "replica" not in hubgate("show", "e5").out
