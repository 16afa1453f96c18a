"""Deploying a model in a real browser: the whole way, and every page in every language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lookalikes.endpoints.deploying_gateway import at_once, deploy, deploying_gateway, deploying_site
from lookalikes.endpoints.world import E5
from screen import LOCALES, NEEDS_CHROMIUM, screen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser
    from running_gateway import RunningGateway

pytestmark = NEEDS_CHROMIUM

WANTED = "connection=hf&model=intfloat/e5-small-v2&name=new&namespace=acme&type=private&min_replicas=0"
PAGES = {
    "list": "deployments",
    "deploy": f"deployments/new?{WANTED}",
    "hardware": f"deployments/hardware?{WANTED}",
    "plan": f"deployments/plan?{WANTED}&hardware=aws+us-east-1+intel-spr/x2",
    "running": "deployments/acme/e5?connection=hf",
    "failed": "deployments/acme/bge?connection=hf",
    "delete": "deployments/acme/e5/delete?connection=hf",
}


def test_model_is_picked_planned_confirmed_used_and_paused(browser: Browser, tmp_path: Path) -> None:
    with (
        deploying_site() as site,
        deploying_gateway(tmp_path, site) as gateway,
        screen(browser, gateway) as opened,
    ):
        page = opened.page
        opened.sign_in()
        opened.go("models/new")
        page.get_by_text("Search Hugging Face").click()
        page.locator(".hits button", has_text=E5).click()
        page.get_by_role("link", name="Deploy this model").click()
        page.get_by_text("The token of acme can manage Inference Endpoints").wait_for()
        assert page.input_value("#model") == E5
        page.fill("#name", "e5")
        page.press("#name", "Enter")

        page.get_by_role("radio", name="nvidia-t4/x1").first.wait_for()
        page.locator("[value='aws us-east-1 intel-spr/x2']").press("Space")
        page.locator("[value='aws us-east-1 intel-spr/x2']").press("Enter")
        page.get_by_role("button", name="Create it for at most $0.067 an hour").wait_for()
        assert {seen.method for seen in site.asked} == {"GET"}
        site.change_price("aws", "intel-spr", "x2", 0.07)
        page.get_by_role("button", name="Create it").press("Enter")
        page.get_by_text("The price has changed", exact=True).wait_for()
        assert site.hosted == {}
        page.get_by_role("button", name="Create it for at most $0.07 an hour").click()

        page.wait_for_url("**/ui/deployments/acme/e5?**")
        page.get_by_text("While it starts and runs, a replica costs $0.07 an hour").wait_for()
        site.advance(100)
        page.get_by_text("Registered as e5: applications can call it").wait_for()
        page.get_by_role("link", name="Try it out").click()
        page.locator("button.run").click()
        page.locator(".matrix").wait_for()

        opened.go("deployments")
        page.get_by_label("Actions for e5").press("Enter")
        page.get_by_role("link", name="Pause").click()
        page.get_by_text("These models use it").wait_for()
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("e5 is paused.").wait_for()
        assert site.one("e5").state == "paused"
        assert opened.errors == []


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Three Inference Endpoints: one runs, one could not be registered, one is paused."""
    folder = tmp_path_factory.mktemp("deployments")
    with deploying_site(at_once) as site:
        site.servers["BAAI/bge-m3"] = site.servers[E5]  # another model answers there
        with deploying_gateway(folder, site) as gateway:
            deploy(gateway, "e5")
            deploy(gateway, "bge", "failed", model="BAAI/bge-m3")
            deploy(gateway, "nightly", max_replicas=2)
            gateway.request("POST", "/api/deployments/acme/nightly/pause")
            yield gateway


@pytest.mark.parametrize("language", LOCALES)
def test_every_page_is_accessible_and_fits_a_phone(
    browser: Browser, furnished: RunningGateway, language: str
) -> None:
    with screen(browser, furnished, language=language) as opened:
        opened.sign_in()
        for name, path in PAGES.items():
            opened.go(path)
            assert opened.page.locator("main h1").is_visible(), name
            opened.judge(f"deploy-{name}")
        assert opened.errors == []


def test_failed_registration_says_what_it_costs(browser: Browser, furnished: RunningGateway) -> None:
    with screen(browser, furnished) as opened:
        opened.sign_in()
        opened.go("deployments/acme/bge?connection=hf")
        failed = opened.page.locator(".alert", has_text="Not registered")
        assert "It costs $0.067 an hour until you pause or delete it" in failed.inner_text()
        assert failed.get_by_role("link").all_inner_texts() == ["Pause", "Delete"]
        assert opened.errors == []
