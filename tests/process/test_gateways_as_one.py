"""Three gateways on one database look like one: behind a load balancer, in reports, and to commands elsewhere."""

from __future__ import annotations

import secrets
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from console_client import ConsoleClient
from lookalikes import lookalike
from running_gateway import eventually
from screen import NEEDS_CHROMIUM, screen
from servers.load_balancer import LoadBalancer

from hubgate.service.keys.limits import MAX_WRONG_KEYS
from hubgate.web.console.models.form import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command
    from lookalikes import LookAlike
    from playwright.sync_api import Browser
    from running_gateway import Reply, RunningGateway
    from servers.trio import Trio

    from hubgate.settings import Settings

PAGES = ("/ui/models", "/ui/models/new", "/ui/keys", "/ui/usage", "/ui/audit", "/ui/settings")


@pytest.fixture(scope="module")
def balancer(trio: Trio) -> Iterator[LoadBalancer]:
    with LoadBalancer([gateway.url for gateway in trio.gateways], trio.admin) as running:
        yield running


def as_gateway(balancer: LoadBalancer) -> RunningGateway:
    """To a client of the console it looks like one."""
    return cast("RunningGateway", balancer)


@pytest.fixture
def console(balancer: LoadBalancer) -> ConsoleClient:
    console = ConsoleClient(as_gateway(balancer))
    assert console.sign_in().status == 303
    return console


def answering(balancer: LoadBalancer, request: str) -> int:
    """How many gateways have answered requests that start so."""
    return len({gateway for asked, gateway in balancer.answers if asked.startswith(request)})


def test_sign_in_at_one_gateway_holds_at_all(balancer: LoadBalancer, console: ConsoleClient) -> None:
    for _ in range(3):
        assert [console.get(path).status for path in PAGES] == [200] * len(PAGES)
        assert console.post("/ui/paste", {"paste": "org/model"}).status == 200, "a form of another gateway"
    assert [answering(balancer, f"GET {path}") for path in PAGES] == [3] * len(PAGES)


def test_sign_out_at_one_gateway_ends_the_session_at_all(console: ConsoleClient) -> None:
    copy = dict(console.cookies)
    assert console.post("/ui/sign-out").headers["location"] == "/ui/sign-in"
    console.cookies = copy
    assert [console.get("/ui/models").status for _ in range(3)] == [303] * 3


def test_wrong_keys_are_counted_at_all_gateways_together(balancer: LoadBalancer) -> None:
    stranger = ConsoleClient(as_gateway(balancer))
    statuses = [
        stranger.post("/ui/sign-in", {"key": f"wrong {number}"}).status
        for number in range(MAX_WRONG_KEYS + 3)
    ]
    assert statuses.count(401) <= MAX_WRONG_KEYS, "and not at each gateway"
    assert statuses[-3:] == [429] * 3
    assert stranger.sign_in().status == 303, "a valid key is accepted at once"


def test_connection_test_is_shown_by_every_gateway(balancer: LoadBalancer, console: ConsoleClient) -> None:
    with lookalike("tei", name="intfloat/e5-small-v2") as server:
        page = console.post(
            "/ui/models/test", {**EMPTY, "name": "e5", "url": server.url, "connection": ""}, hx_request="true"
        )
        path = page.text.partition('hx-get="')[2].partition('"')[0]
        assert path.startswith("/ui/trials/"), page.words
        for _ in range(3):
            eventually(lambda: "The model answers." in console.get(path, hx_request="true").words)
    assert answering(balancer, f"GET {path}") == 3
    assert "no longer available" in console.get("/ui/trials/unknown", hx_request="true").words


@NEEDS_CHROMIUM
def test_browser_adds_a_model_through_the_load_balancer(browser: Browser, balancer: LoadBalancer) -> None:
    with (
        screen(browser, as_gateway(balancer)) as opened,
        lookalike("tei", name="intfloat/e5-small-v2") as server,
    ):
        page = opened.page
        opened.sign_in()
        opened.go(f"models/new?paste={server.url}")
        page.fill("#name", "e5")
        page.get_by_role("button", name="Test").click()
        page.get_by_text("The model answers.").wait_for()
        opened.go("keys")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/ui/sign-in")
        assert opened.errors == []


def state_at(trio: Trio, number: int, name: str) -> dict[str, Any]:
    """The state of an endpoint as this gateway reports it."""
    state: dict[str, Any] = trio.request(number, "GET", f"/api/endpoints/{name}").json()
    return state


def test_states_are_summed_over_all_gateways(trio: Trio, console: ConsoleClient) -> None:
    with lookalike("tei", name="intfloat/e5-small-v2") as server, ThreadPoolExecutor(2) as threads:
        trio.register("slow", source="dedicated", url=server.url, cache=False)
        assert state_at(trio, 1, "slow")["in_flight"] == 0
        server.fail("hang")
        calls = [
            threads.submit(trio.gateways[number].embed, "slow", f"text {number}", key=trio.admin)
            for number in (1, 2)
        ]
        for number in (1, 2, 3):
            eventually(lambda number=number: state_at(trio, number, "slow")["in_flight"] == 2)  # type: ignore[misc]
        parts = state_at(trio, 1, "slow")["gateways"]
        assert {name: part["in_flight"] for name, part in parts.items()} == {
            "gate-1": 0,
            "gate-2": 1,
            "gate-3": 1,
        }
        page = console.get("/ui/models/slow/overview").words
        assert "2 requests in flight" in page
        assert "Gateways gate-1 Running gate-2 Running 1 request in flight" in page
        server.heal()
        assert [call.result().status for call in calls] == [200, 200]


def test_failure_at_one_gateway_is_shown_by_all(trio: Trio) -> None:
    with lookalike("tei", name="intfloat/e5-small-v2") as server:
        trio.register("paused", source="dedicated", url=server.url, cache=False)
        server.fail("paused")
        while state_at(trio, 2, "paused")["gateways"]["gate-2"]["state"] != "paused":
            trio.gateways[1].embed("paused", "a text", key=trio.admin)
        eventually(lambda: state_at(trio, 3, "paused").get("cause") == "paused")


def test_usage_and_audit_are_of_all_gateways_and_metrics_tell_them_apart(trio: Trio) -> None:
    trio.register("words")
    assert trio.statuses("words", trio.admin) == [200] * 3

    def requests() -> list[int]:
        return [
            trio.request(number, "GET", "/api/usage?by=endpoint&endpoint=words").json()["rows"][0]["requests"]
            for number in (1, 2, 3)
        ]

    eventually(lambda: requests() == [3] * 3)
    for number in (1, 2, 3):
        change = trio.request(number, "GET", "/api/audit?limit=100").json()["changes"]
        assert ("endpoint.add", "words") in {(each["verb"], each["subject"]) for each in change}
        metrics = trio.request(number, "GET", "/metrics").body.decode()
        assert f'hubgate_build_info{{gateway="gate-{number}",version=' in metrics


@pytest.fixture
def visit(trio: Trio, hubgate: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs commands on another machine, where no gateway runs."""
    env = trio.home("laptop").env
    for name in ("HUBGATE_DATABASE_URL", "HUBGATE_SECRET_KEY"):
        monkeypatch.setenv(name, env[name])
    with ThreadPoolExecutor(1) as thread:  # a browser may occupy this thread's event loop
        yield lambda *arguments: thread.submit(hubgate, *arguments).result()


def test_commands_on_a_machine_without_a_gateway_change_all(
    trio: Trio, visit: Command, settings: Settings
) -> None:
    def run(*arguments: str) -> str:
        result = visit(*arguments)
        assert (result.status, result.err) == (0, "")
        return result.out

    run("add", "visited", "--fake", "--dimensions", "8")
    key = run("key", "create", "visitor", "--endpoint", "visited").strip()
    assert trio.statuses("visited", key) == [200] * 3
    assert "visited" in run("list")
    assert [line.split()[0] for line in run("gates").splitlines()[1:]] == ["gate-1", "gate-2", "gate-3"]
    run("edit", "visited", "--burst", "7")
    limits = [state_at(trio, number, "visited")["rate_limit"]["burst"] for number in (1, 2, 3)]
    assert limits == [7] * 3
    run("cache", "clear")
    assert "cache.clear" in run("audit", "--limit", "1")
    refused = visit("cache", "stats")
    assert (refused.status, "machine of a gateway" in refused.err) == (1, True)
    eventually(lambda: "visited" in run("usage"))
    run("key", "revoke", "visitor")
    assert set(trio.statuses("visited", key)) <= {401, 429}  # 429 after another test's wrong keys
    run("remove", "visited")
    assert [trio.request(number, "GET", "/api/endpoints/visited").status for number in (1, 2, 3)] == [404] * 3
    assert not settings.vectors.exists()


def test_keys_that_others_lack_are_refused_at_the_start(
    trio: Trio, visit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = trio.home("laptop").env["HUBGATE_SECRET_KEY"], secrets.token_urlsafe(32)
    for keys in (new, f"{new},{old}"):
        monkeypatch.setenv("HUBGATE_SECRET_KEY", keys)
        refused = visit("list")
        assert (refused.status, "have different secret keys" in refused.err) == (1, True)
    monkeypatch.setenv("HUBGATE_SECRET_KEY", f"{old},{new}")
    assert visit("list").status == 0
    started = trio.home("gate-4").run("serve", HUBGATE_SECRET_KEY=f"{new},{old}")
    assert (started.status, "behind the old one at every gateway" in started.err) == (1, True)


@contextmanager
def sleeping(trio: Trio, name: str) -> Iterator[LookAlike]:
    """A server that sleeps, and its endpoint."""
    with lookalike("tgi") as server:
        trio.register(name, source="dedicated", url=server.url, task="completion")
        server.fail("waking-503")
        yield server
        trio.change(1, "DELETE", f"/api/endpoints/{name}")


def call_each(trio: Trio, name: str, callers: ThreadPoolExecutor, *numbers: int) -> list[Future[Reply]]:
    """Call the endpoint at these gateways, whose texts tell them apart."""
    path = f"/_inference/completion/{name}?timeout=240s"
    return [
        callers.submit(trio.request, number, "POST", path, {"input": f"from {number}"}) for number in numbers
    ]


def wait_until_all_know(trio: Trio, name: str) -> None:
    """Wait until each gateway reports that the server is waking up."""

    def states() -> list[str]:
        return [state["state"] for state in state_at(trio, 1, name)["gateways"].values()]

    eventually(lambda: states() == ["waking"] * 3)


def test_one_gateway_wakes_a_server_for_all(trio: Trio) -> None:
    with sleeping(trio, "asleep") as server, ThreadPoolExecutor(3) as callers:
        calls = call_each(trio, "asleep", callers, 1)
        wait_until_all_know(trio, "asleep")
        calls += call_each(trio, "asleep", callers, 2, 3)
        eventually(lambda: state_at(trio, 2, "asleep")["in_flight"] == 3)
        sent = len(server.posts)
        server.wait_until(lambda it: len(it.posts) >= sent + 2)
        assert {text for asked in server.posts[-2:] for text in asked.texts} == {"from 1"}
        server.heal()
        assert [call.result().status for call in calls] == [200] * 3


def test_calls_that_find_a_server_asleep_at_once_are_sent_once_each(trio: Trio) -> None:
    with sleeping(trio, "asleep-too") as server, ThreadPoolExecutor(3) as callers:
        calls = call_each(trio, "asleep-too", callers, 1, 2, 3)
        wait_until_all_know(trio, "asleep-too")
        sent = len(server.posts)
        server.wait_until(lambda it: len(it.posts) >= sent + 2)
        times = Counter(text for asked in server.posts for text in asked.texts if text.startswith("from"))
        assert sum(count > 1 for count in times.values()) <= 1, "one gateway goes on"
        server.heal()
        assert [call.result().status for call in calls] == [200] * 3
