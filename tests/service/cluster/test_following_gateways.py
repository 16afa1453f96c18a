"""Three gateways on one PostgreSQL database: what is changed at one is known to all when the call returns."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
from lookalikes.server import Servers
from running_gateway import eventually

if TYPE_CHECKING:
    from servers.trio import Trio


def test_endpoint_is_registered_changed_and_removed_at_all_when_the_call_returns(trio: Trio) -> None:
    for number in range(3):
        name = f"words{number}"
        trio.register(name, 1, dimensions=4)
        assert trio.statuses(name, trio.admin) == [200] * 3
        trio.change(2, "PATCH", f"/api/endpoints/{name}", {"rate_limit": {"burst": 7}})
        for gateway in (1, 2, 3):
            shown = trio.request(gateway, "GET", f"/api/endpoints/{name}").json()
            assert shown["rate_limit"]["burst"] == 7
        trio.change(3, "DELETE", f"/api/endpoints/{name}")
        assert trio.statuses(name, trio.admin) == [404] * 3
    assert trio.late < trio.changes, "most changes are followed by all when they are answered"
    put = {"service": "hugging_face", "service_settings": {"url": "http://127.0.0.1:9"}}
    refused = trio.request(1, "PUT", "/_inference/text_embedding/words", put)
    assert refused.status >= 400, "nothing answers there"
    assert refused.headers["X-Hubgate-Pending"] is None


def test_endpoint_of_the_same_name_with_other_settings_replaces_the_removed_one(trio: Trio) -> None:
    for dimensions in (4, 6):
        trio.register("reused", dimensions=dimensions)
        for gateway in trio.gateways:
            (one,) = gateway.embed("reused", "a text", key=trio.admin).json()["data"]
            assert len(one["embedding"]) == dimensions
        trio.change(2, "DELETE", "/api/endpoints/reused")


def test_revoked_key_is_refused_by_all_when_the_call_returns(trio: Trio) -> None:
    trio.register("keyed")
    for number in range(10):
        key = trio.change(1 + number % 3, "POST", "/api/keys", {"name": "app"})["key"]
        assert trio.statuses("keyed", key) == [200] * 3
        trio.change(1 + (number + 1) % 3, "DELETE", "/api/keys/app")
        trio.check_refused("keyed", key)


def test_revoked_key_is_refused_by_all_when_notifications_are_lost(trio: Trio) -> None:
    trio.register("polled")
    for _ in range(3):
        key = trio.change(1, "POST", "/api/keys", {"name": "app"})["key"]
        eventually(lambda: _cut_listeners(trio.url) > 0)
        trio.change(2, "DELETE", "/api/keys/app")
        trio.check_refused("polled", key)


def test_limit_of_a_key_holds_for_all_together(trio: Trio) -> None:
    """A gateway that the database does not answer in time allows its share: under load, another key may be needed."""
    trio.register("limited")

    def is_limited() -> bool:
        made = trio.change(1, "POST", "/api/keys", {"name": "app", "requests_per_minute": 4})
        statuses = [status for _ in range(3) for status in trio.statuses("limited", made["key"])]
        trio.change(1, "DELETE", "/api/keys/app")
        return statuses == [200] * 4 + [429] * 5

    eventually(is_limited)


def test_token_of_a_connection_is_replaced_at_all(trio: Trio) -> None:
    trio.change(1, "POST", "/api/connections", {"name": "hf", "token": "hf_first0000"})
    trio.change(2, "PATCH", "/api/connections/hf", {"token": "hf_second1111"})
    for number in (1, 2, 3):
        (shown,) = trio.request(number, "GET", "/api/connections").json()["connections"]
        assert "1111" in str(shown)
    trio.change(3, "DELETE", "/api/connections/hf")
    for number in (1, 2, 3):
        assert trio.request(number, "GET", "/api/connections").json()["connections"] == []


def test_vector_cache_is_cleared_at_all(trio: Trio) -> None:
    trio.register("cached")
    for _ in range(2):  # memory may hold only what is asked for again
        assert trio.statuses("cached", trio.admin) == [200] * 3
    assert trio.request(2, "GET", "/api/cache").json()["memory"]["entries"] > 0
    trio.change(1, "DELETE", "/api/cache")
    for number in (1, 2, 3):
        assert trio.request(number, "GET", "/api/cache").json()["memory"]["entries"] == 0


def test_concurrent_edits_at_three_gateways_are_all_kept(trio: Trio) -> None:
    names = [f"edited{number}" for number in range(5)]
    for name in names:
        trio.register(name)
    assert trio.check_concurrent_edits(names, rounds=2) > 20


def test_model_that_one_gateway_finds_changed_is_refused_by_all_and_by_later_ones(trio: Trio) -> None:
    with Servers(["tei"], dimensions=8) as servers:
        trio.register("e5", 1, source="dedicated", url=servers.urls[0])
        assert trio.statuses("e5", trio.admin) == [200] * 3
        servers.stop(0)
        servers.start(0, dimensions=16)
        found = trio.gateways[1].embed("e5", "another text", key=trio.admin)
        assert found.headers["X-Hubgate-Cause"] == "dimensions_changed"
        trio.gateways[1].wait_for("endpoint e5 takes no calls: ")
        asked = len(servers.all[0].posts)
        for gateway in (trio.gateways[0], trio.gateways[2]):
            gateway.wait_for("endpoint e5 takes no calls, as another gateway found")
            refused = gateway.embed("e5", "a text", key=trio.admin)
            assert refused.headers["X-Hubgate-Cause"] == "model_changed"
        with trio.home("gate-later").serve() as later:
            refused = later.embed("e5", "a text", key=trio.admin)
            assert refused.headers["X-Hubgate-Cause"] == "model_changed"
            later.signal(signal.SIGTERM)
            later.wait()
        assert len(servers.all[0].posts) == asked, "nobody asked the other model again"
        trio.change(3, "POST", "/api/endpoints/e5/accept")
        assert trio.statuses("e5", trio.admin) == [200] * 3


def test_stopped_and_killed_gateways_delay_changes_only_until_they_are_silent(trio: Trio) -> None:
    with trio.home("gate-4").serve() as fourth:
        assert "gate-4" in [gate["name"] for gate in trio.gates()]
        fourth.signal(signal.SIGSTOP)
        late = trio.request(1, "POST", "/api/endpoints", {"name": "late", "source": "fake"})
        assert late.status == 201
        assert "gate-4" in late.headers["X-Hubgate-Pending"]
        trio.gateways[0].wait_for(r"not yet followed by .*gate-4")
        eventually(lambda: trio.statuses("late", trio.admin) == [200] * 3)
        eventually(lambda: ("gate-4", "silent") in [(gate["name"], gate["state"]) for gate in trio.gates()])
        unheard = trio.request(2, "POST", "/api/endpoints", {"name": "unheard", "source": "fake"})
        assert unheard.status == 201
        assert "gate-4" in unheard.headers["X-Hubgate-Pending"], "it may only be held up"
        fourth.signal(signal.SIGKILL)
        fourth.wait()
    for name in ("late", "unheard"):
        trio.change(2, "DELETE", f"/api/endpoints/{name}")


def test_gateway_that_stops_says_goodbye(trio: Trio) -> None:
    with trio.home("gate-5").serve() as fifth:
        listed = trio.home("gate-5").run("gates").out
        assert "gate-5" in listed
        assert "serving" in listed
        fifth.signal(signal.SIGTERM)
        assert fifth.wait() == 0
    assert "gate-5" not in [gate["name"] for gate in trio.gates()]
    metrics = trio.request(1, "GET", "/metrics").body.decode()
    (stale,) = [line for line in metrics.splitlines() if line.startswith("hubgate_stale_seconds ")]
    assert float(stale.split()[1]) < 60


def _cut_listeners(url: str) -> int:
    """Close the connections on which gateways listen; returns how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        cut = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ~ '^(LISTEN|SELECT version FROM feed|UPDATE gateways)'"
        )
        return cut.rowcount


def test_alias_is_moved_at_all_when_the_call_returns(trio: Trio) -> None:
    def answering() -> list[str]:
        replies = [gateway.embed("find", "a text", key=trio.admin) for gateway in trio.gateways]
        return [reply.headers["X-Hubgate-Endpoint"] for reply in replies]

    for name in ("first", "second"):
        trio.register(name, dimensions=4)
    for number in range(12):
        endpoint = ("first", "second")[number % 2]
        trio.change(1 + number % 3, "PUT", "/api/aliases/find", {"endpoint": endpoint})
        assert answering() == [endpoint] * 3
    for number in (1, 2, 3):
        taken = trio.request(number, "POST", "/api/endpoints", {"name": "find", "source": "fake"})
        assert (taken.status, taken.json()["error"]["cause"]) == (409, "endpoint_exists")
        assert trio.request(number, "DELETE", "/api/endpoints/second").json()["error"]["cause"] == "in_use"
    trio.change(3, "DELETE", "/api/aliases/find")
    assert trio.statuses("find", trio.admin) == [404] * 3


def test_of_an_alias_and_an_endpoint_of_one_name_only_the_first_is_stored(trio: Trio) -> None:
    trio.register("target", dimensions=4)
    made = [0, 0]
    with ThreadPoolExecutor(2) as threads:
        for number in range(10):
            name = f"name-{number}"
            alias = threads.submit(trio.request, 1, "PUT", f"/api/aliases/{name}", {"endpoint": "target"})
            endpoint = threads.submit(
                trio.request, 2, "POST", "/api/endpoints", {"name": name, "source": "fake"}
            )
            statuses = (alias.result().status, endpoint.result().status)
            assert statuses in {(200, 409), (409, 201)}
            made[statuses[0] == 409] += 1
    assert sum(made) == 10
