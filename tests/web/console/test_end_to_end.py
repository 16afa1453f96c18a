"""End-to-end in a browser, for each source: a model is added, tested, corrected, saved, tried, and seen in usage."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike
from lookalikes.hub_api import TOKEN, running_hub_api
from running_gateway import RunningGateway
from screen import NEEDS_CHROMIUM, screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from screen import Screen

    from hubgate.settings import Settings

pytestmark = NEEDS_CHROMIUM

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LOCAL = Path(__file__).parents[2] / "data" / "tiny_models" / "bert"


@pytest.fixture
def opened(browser: Browser, settings: Settings) -> Iterator[Screen]:
    """Somebody who is signed in to a gateway that reaches a Hub and a router."""
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub_api())
        router = stack.enter_context(lookalike("router", name=MODEL, key=TOKEN))
        settings = replace(settings, hf_endpoint=hub.url, router_url=router.url)
        gateway = stack.enter_context(RunningGateway(settings))
        console = stack.enter_context(screen(browser, gateway))
        console.sign_in()
        yield console
        assert console.errors == []


def choose(opened: Screen, name: str, value: str) -> None:
    """A card of the form."""
    opened.page.locator(f"label:has(input[name={name}][value={value}])").click()


def save_try_and_see(opened: Screen, name: str) -> None:
    """From a good test to the charts."""
    page = opened.page
    page.get_by_role("button", name="Test").click()
    page.get_by_text("The model answers.").wait_for()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text(f"{name} is registered and answers.").wait_for()
    opened.go(f"models/{name}/play")
    page.locator(".run").click()
    page.locator(".matrix").wait_for()
    opened.go(f"usage?range=day&endpoint={name}")
    assert page.locator("#chart-requests + .headline").inner_text() == "1"


def test_hosted_model_with_a_wrong_token_is_corrected(opened: Screen) -> None:
    page = opened.page
    opened.go("models/new")
    choose(opened, "where", "router")
    page.fill("#model", MODEL)
    page.fill("#name", "minilm")
    page.select_option("#connection", "+")
    page.fill("#token", "hf_aTokenThatIsWrong12345")
    page.get_by_role("button", name="Test").click()
    page.get_by_text("The token is wrong or was revoked").wait_for()
    page.fill("#token", TOKEN)
    save_try_and_see(opened, "minilm")


def test_paused_inference_endpoint_is_resumed(opened: Screen) -> None:
    page = opened.page
    with lookalike("tei", name="intfloat/e5-small-v2", fault="paused") as server:
        opened.go(f"models/new?paste={server.url}")
        page.fill("#name", "e5")
        page.get_by_role("button", name="Test").click()
        page.get_by_text("paused").filter(visible=True).first.wait_for()
        server.heal()
        save_try_and_see(opened, "e5")


def test_local_model_with_a_misspelled_folder_is_corrected(opened: Screen) -> None:
    page = opened.page
    opened.go("models/new")
    choose(opened, "where", "local")
    page.fill("#model", f"{LOCAL}-none")
    page.fill("#name", "tiny")
    page.get_by_role("button", name="Test").click()
    page.locator(".failed").first.wait_for()
    page.fill("#model", str(LOCAL))
    save_try_and_see(opened, "tiny")
