"""The console of three gateways behind a load balancer that sends every request to the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from cluster.gateways import shared_gateways
from console_client import ConsoleClient
from lookalikes import lookalike
from running_gateway import eventually
from screen import NEEDS_CHROMIUM, screen

from hubgate.service.keys.limits import MAX_WRONG_KEYS
from hubgate.web.console.models.form import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.gateways import SharedGateways
    from cluster.load_balancer import LoadBalancer
    from playwright.sync_api import Browser
    from postgres.databases import Databases
    from running_gateway import RunningGateway

PAGES = ("/ui/models", "/ui/models/new", "/ui/keys", "/ui/usage", "/ui/audit", "/ui/settings")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[SharedGateways]:
    with databases.migrated() as url, shared_gateways(tmp_path_factory.mktemp("cluster"), url) as running:
        yield running


@pytest.fixture
def balancer(cluster: SharedGateways) -> LoadBalancer:
    return cluster.balancer


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
    key_id = "0123abcd"  # limited on its own, so that this address may go on
    statuses = [
        stranger.post("/ui/sign-in", {"key": f"hg_{key_id}_{number}"}).status
        for number in range(MAX_WRONG_KEYS + 3)
    ]
    assert statuses == [401] * MAX_WRONG_KEYS + [429] * 3
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
