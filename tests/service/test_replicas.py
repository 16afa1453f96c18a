"""Several servers of one model behind one endpoint, over sockets."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from lookalikes.model import vector_of
from lookalikes.server import Servers
from running_gateway import Reply, RunningGateway, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings


FAST = {"requests_per_minute": 60_000}


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers(["tei", "tei", "tei"]) as running:
        yield running


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    with RunningGateway(settings) as running:
        yield running


def embed(gateway: RunningGateway, *texts: str) -> Reply:
    return gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": list(texts)})


def vectors(reply: Reply) -> list[list[float]]:
    assert reply.status == 200, reply.body
    return [one["embedding"] for one in reply.json()["data"]]


def expected(text: str) -> list[float]:
    return pytest.approx(list(vector_of(text, 8)), abs=1e-6)  # type: ignore[return-value]


class TestRegistration:
    def test_lists_the_urls_and_each_replica(self, gateway: RunningGateway, servers: Servers) -> None:
        shown = gateway.add("e5", urls=servers.urls)
        assert shown["urls"] == servers.urls
        assert "url" not in shown
        assert shown["dimensions"] == 8

    def test_accepts_one_url_in_the_list(self, gateway: RunningGateway, servers: Servers) -> None:
        assert gateway.add("e5", urls=servers.urls[:1])["url"] == servers.urls[0]

    def test_refuses_a_server_of_another_model_by_name(
        self, gateway: RunningGateway, servers: Servers
    ) -> None:
        servers.stop(1)
        servers.start(1, seed="another ")
        reply = gateway.request("POST", "/api/endpoints", {"name": "e5", "urls": servers.urls})
        assert reply.status == 400
        message = reply.json()["error"]["message"]
        assert f"{servers.urls[1]} does not run the same model as {servers.urls[0]}" in message
        assert "it returns another vector for a known text (cosine " in message

    def test_names_a_server_that_does_not_answer(self, gateway: RunningGateway, servers: Servers) -> None:
        servers.stop(2)
        reply = gateway.request("POST", "/api/endpoints", {"name": "e5", "urls": servers.urls})
        assert servers.urls[2] in reply.json()["error"]["message"]

    @pytest.mark.parametrize(
        "urls", [["http://a.test", "http://a.test/"], ["http://a.test", "http://a.test/v1"]]
    )
    def test_refuses_the_same_server_twice(self, gateway: RunningGateway, urls: list[str]) -> None:
        reply = gateway.request("POST", "/api/endpoints", {"name": "e5", "urls": urls})
        assert reply.status == 400
        assert "twice" in reply.json()["error"]["message"]

    def test_accepts_different_engines_of_one_model(self, gateway: RunningGateway) -> None:
        with Servers(["tei", "vllm", "infinity"]) as servers:
            gateway.add("e5", urls=servers.urls)
            assert vectors(embed(gateway, "one"))[0] == expected("one")


class Load:
    """Callers that embed texts of their own, one after the other, until they are stopped."""

    def __init__(self, gateway: RunningGateway, callers: int = 6) -> None:
        self._gateway = gateway
        self._going = True
        self.done = 0
        self.failures: list[bytes] = []
        self.wrong = 0
        self._pool = ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call, caller) for caller in range(callers)]

    def _call(self, caller: int) -> None:
        number = 0
        while self._going:
            number += 1
            text = f"text {number} of {caller}"
            reply = embed(self._gateway, text)
            if reply.status != 200:
                self.failures.append(reply.body)
                time.sleep(0.05)
            elif vectors(reply)[0] != expected(text):
                self.wrong += 1
            self.done += 1

    def goes_on(self, calls: int = 30) -> None:
        """Wait until this many further calls are answered."""
        target = self.done + calls
        eventually(lambda: self.done >= target)

    def stop(self) -> None:
        self._going = False
        for caller in self._callers:
            caller.result()
        self._pool.shutdown()


@pytest.fixture
def load(gateway: RunningGateway, servers: Servers) -> Iterator[Load]:
    gateway.add("e5", urls=servers.urls, rate_limit=FAST)
    running = Load(gateway)
    yield running
    running.stop()


class TestUnderLoad:
    def test_killed_replica_fails_no_call_and_is_used_again(self, load: Load, servers: Servers) -> None:
        load.goes_on()
        servers.stop(0)
        load.goes_on(60)
        back = servers.start(0)
        eventually(lambda: len(back.posts) > 3)
        load.stop()
        assert load.failures == []
        assert load.wrong == 0

    def test_no_vector_of_a_swapped_model_is_served(
        self, load: Load, servers: Servers, gateway: RunningGateway
    ) -> None:
        load.goes_on()
        servers.stop(1)
        swapped = servers.start(1, seed="another ")
        eventually(lambda: len(swapped.posts) > 1)
        load.goes_on(60)
        load.stop()
        assert load.failures == []
        assert load.wrong == 0
        check = gateway.request("POST", "/api/endpoints/e5/check")
        assert f"{swapped.url} runs another model" in check.json()["error"]["message"]

    def test_replicas_share_the_calls(self, load: Load, servers: Servers) -> None:
        eventually(lambda: min(len(server.posts) for server in servers.all) > 10)
        load.stop()

    def test_edit_adds_and_removes_replicas(
        self, load: Load, servers: Servers, gateway: RunningGateway
    ) -> None:
        path = "/api/endpoints/e5"
        load.goes_on()
        assert gateway.request("PATCH", path, {"urls": servers.urls[:2]}).status == 200
        load.goes_on()
        removed = Counter(servers.all[2].batches[-1])
        calls = len(servers.all[2].posts)
        assert gateway.request("PATCH", path, {"url": servers.urls[0]}).json()["url"] == servers.urls[0]
        load.goes_on()
        assert len(servers.all[2].posts) == calls, removed
        assert gateway.request("PATCH", path, {"urls": servers.urls}).status == 200
        load.goes_on()
        load.stop()
        assert load.failures == []
        assert load.wrong == 0


class TestProof:
    def test_model_swapped_while_idle_is_found_before_its_first_vector(
        self, gateway: RunningGateway, servers: Servers
    ) -> None:
        gateway.add("e5", urls=servers.urls, rate_limit=FAST)
        vectors(embed(gateway, "one"))
        servers.stop(0)
        swapped = servers.start(0, seed="another ")
        assert vectors(embed(gateway, "two"))[0] == expected("two")
        assert [batch for batch in swapped.batches if batch != ["two"]] == [["how big"]]

    def test_connection_opened_by_a_diagnosis_is_not_trusted(
        self, gateway: RunningGateway, servers: Servers
    ) -> None:
        gateway.add("e5", urls=servers.urls, rate_limit=FAST)
        vectors(embed(gateway, "one"))
        servers.stop(0)
        servers.start(0, seed="another ")
        gateway.request("POST", "/api/diagnose", {"name": "new", "url": servers.urls[0]})
        assert vectors(embed(gateway, "two"))[0] == expected("two")

    def test_endpoint_is_refused_when_all_run_another_model(
        self, gateway: RunningGateway, servers: Servers
    ) -> None:
        gateway.add("e5", urls=servers.urls)
        for index in range(3):
            servers.stop(index)
            servers.start(index, seed="another ")
        reply = embed(gateway, "one")
        assert reply.status >= 400
        assert "runs another model" in reply.json()["error"]["message"]
        assert gateway.request("GET", "/api/endpoints/e5").json()["state"] == "changed"

    def test_other_dimensions_are_not_served(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", urls=servers.urls)
        servers.all[0].fail("other-dimensions", method="POST")
        assert vectors(embed(gateway, "one"))[0] == expected("one")
        check = gateway.request("POST", "/api/endpoints/e5/check")
        assert servers.urls[0] in check.json()["error"]["message"]
        servers.all[0].heal()
        assert gateway.request("POST", "/api/endpoints/e5/check").status == 200

    def test_server_that_keeps_no_connection_serves(self, gateway: RunningGateway) -> None:
        with Servers(["tei", "tei"], keep_alive=False) as servers:
            gateway.add("e5", urls=servers.urls, rate_limit=FAST)
            for text in ("one", "two"):
                assert vectors(embed(gateway, text))[0] == expected(text)
            assert gateway.request("POST", "/api/endpoints/e5/check").status == 200

    def test_connection_that_stays_is_proven_once(self, gateway: RunningGateway, servers: Servers) -> None:
        gateway.add("e5", urls=servers.urls)
        before = sum(server.batches.count(["how big"]) for server in servers.all)
        for number in range(5):
            vectors(embed(gateway, f"text {number}"))
        asked = [text for server in servers.all for batch in server.batches for text in batch]
        assert asked.count("how big") - before <= len(servers.all)
