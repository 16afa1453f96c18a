"""A vector that only one text gets: it fails that call, over sockets, and no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from lookalikes.server import LookAlike, Servers, lookalike
from running_gateway import Reply, RunningGateway, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings

KNOWN_TEXT = ["how big"]


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    with RunningGateway(settings) as running:
        yield running


def embed(gateway: RunningGateway, *texts: str) -> Reply:
    return gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": list(texts)})


def cause(reply: Reply) -> str | None:
    return reply.headers["X-Hubgate-Cause"]


def state(gateway: RunningGateway) -> str:
    shown = gateway.request("GET", "/api/endpoints/e5").json()
    assert isinstance(shown["state"], str)
    return shown["state"]


class TestOtherSize:
    @pytest.mark.parametrize("engine", ["tei", "vllm"])
    def test_of_one_text_fails_that_call_and_has_the_known_text_checked(
        self, gateway: RunningGateway, engine: str
    ) -> None:
        with lookalike(engine) as server:
            gateway.add("e5", url=server.url)
            server.fail("odd-text")
            refused = embed(gateway, "an odd text")
            assert (refused.status, cause(refused)) == (502, "dimensions_changed")
            assert "4 dimensions; the endpoint was registered with 8" in refused.json()["error"]["message"]
            server.wait_until(lambda server: server.batches.count(KNOWN_TEXT) == 2)  # the first registered it
            for number in range(20):
                assert cause(embed(gateway, f"odd text {number}")) == "dimensions_changed"
                assert embed(gateway, f"good text {number}").status == 200
            assert server.batches.count(KNOWN_TEXT) < 10, "a check for each call"
            assert state(gateway) == "running"

    def test_of_all_texts_stops_the_endpoint(self, gateway: RunningGateway) -> None:
        with Servers(["tei"]) as servers:
            gateway.add("e5", url=servers.urls[0])
            servers.stop(0)
            servers.start(0, dimensions=16)
            assert cause(embed(gateway, "one")) == "dimensions_changed"
            eventually(lambda: state(gateway) == "changed")
            asked = len(servers.all[0].posts)
            refused = embed(gateway, "two")
            assert (refused.status, cause(refused)) == (424, "model_changed")
            assert "its dimensions was 8 and is 16" in refused.json()["error"]["message"]
            assert len(servers.all[0].posts) == asked

    def test_stops_no_replica(self, gateway: RunningGateway) -> None:
        with Servers(["tei", "tei"]) as servers:
            gateway.add("e5", urls=servers.urls, rate_limit={"requests_per_minute": 60_000})
            for server in servers.all:
                server.fail("odd-text")
            for number in range(5):
                assert cause(embed(gateway, f"odd text {number}")) == "dimensions_changed"
                assert embed(gateway, f"good text {number}").status == 200
            shown = gateway.request("GET", "/api/endpoints/e5").json()
            assert shown["state"] == "running"
            assert [replica.get("state", "running") for replica in shown["replicas"]] == ["running"] * 2

    def test_of_all_texts_at_one_replica_stops_that_one(self, gateway: RunningGateway) -> None:
        with Servers(["tei", "tei"]) as servers:
            gateway.add("e5", urls=servers.urls, rate_limit={"requests_per_minute": 60_000})
            servers.all[0].fail("other-dimensions", method="POST")
            numbers = iter(range(100_000))

            def is_stopped() -> bool:
                assert embed(gateway, f"text {next(numbers)}").status == 200
                replicas = gateway.request("GET", "/api/endpoints/e5").json()["replicas"]
                return [replica["state"] for replica in replicas] == ["changed", "running"]

            eventually(is_stopped)


class TestZeros:
    def test_fail_the_call_that_shared_a_request_and_are_not_cached(self, gateway: RunningGateway) -> None:
        with lookalike("tei") as server:
            gateway.add("e5", url=server.url, rate_limit={"max_concurrent_requests": 1})
            self.check_shared_request(gateway, server)
            server.heal()
            assert embed(gateway, "zero").status == 200

    def check_shared_request(self, gateway: RunningGateway, server: LookAlike) -> None:
        queue = gateway.service.live.find("e5").pipeline.queue
        assert queue is not None
        texts = ["one", "zero", "two"]
        before = len(server.posts)
        server.fail("hang", times=1)
        with ThreadPoolExecutor(4) as callers:
            held = callers.submit(embed, gateway, "held")
            server.wait_until(lambda server: len(server.posts) > before)
            server.fail("zero-text")
            shared = [callers.submit(embed, gateway, text) for text in texts]
            eventually(lambda: queue.queued_calls == len(texts))
            server.release()
            assert held.result().status == 200
            replies = dict(zip(texts, [each.result() for each in shared], strict=True))
        assert sorted(server.batches[-1]) == sorted(texts), "they were sent together"
        assert {text: reply.status for text, reply in replies.items()} == {
            "one": 200,
            "zero": 502,
            "two": 200,
        }
        assert "a vector of zeros for text 0" in replies["zero"].json()["error"]["message"]
        asked = len(server.posts)
        for text in texts:
            assert embed(gateway, text).status == replies[text].status
        assert server.batches[asked:] == [["zero"]], "the others are cached"
