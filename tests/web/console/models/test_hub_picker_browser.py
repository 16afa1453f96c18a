"""Choosing models in a real browser: from the Hub for the form, and from the gateway for a key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from lookalikes.hub_api import running_hub_api
from running_gateway import RunningGateway
from screen import LOCALES, NEEDS_CHROMIUM, screen

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalikes.hub_api import HubApi
    from playwright.sync_api import Browser
    from screen import Screen

pytestmark = NEEDS_CHROMIUM

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SEARCH = {
    "en": "Search Hugging Face",
    "zh": "在 Hugging Face 上搜索",
    "ja": "Hugging Face で検索",
    "fa": "جست‌وجو در Hugging Face",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubApi]:
    with running_hub_api() as hub:
        yield hub


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, hub: HubApi) -> Iterator[RunningGateway]:
    """A gateway with a Hub, and with more models than are offered at once. The tests leave it as it is."""
    folder = tmp_path_factory.mktemp("many")
    settings = Settings(
        home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0, hf_endpoint=hub.url
    )
    with RunningGateway(settings) as gateway:
        for n in range(30):
            gateway.add(f"model-{n:02}")
        gateway.create_key("dify", endpoints=["model-00", "model-01"], default_endpoint="model-00")
        yield gateway


@pytest.fixture
def opened(browser: Browser, many: RunningGateway) -> Iterator[Screen]:
    with screen(browser, many) as opened:
        opened.sign_in()
        yield opened
        assert opened.errors == []


def test_model_is_found_and_selected_by_keyboard_alone(opened: Screen) -> None:
    page = opened.page
    opened.go("models/new")
    page.locator("#hub > summary").focus()
    page.keyboard.press("Enter")
    page.locator(".hits li").nth(2).wait_for()
    assert page.evaluate("document.activeElement.id") == "hub_text"
    page.keyboard.type("mini")
    page.locator(".hits li").nth(1).wait_for(state="detached")
    page.keyboard.press("Enter")
    assert page.locator("#outcome .steps").count() == 0, "Enter sends no form"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.value") == MINILM
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_text("384 dimensions").wait_for()
    assert page.input_value("#model") == MINILM
    assert page.input_value("#name") == "all-minilm-l6-v2"
    page.locator("#picked:focus").wait_for()
    assert page.locator(".hits").count() == 0, "it closes"


def test_results_follow_the_forms_selections(opened: Screen) -> None:
    page = opened.page
    opened.go("models/new")
    page.check("[name=kind][value=rerank]")
    page.locator("#hub > summary").click()
    page.get_by_role("button", name="org/reranker").wait_for()
    page.check("[name=kind][value=llm]")
    page.get_by_role("button", name="meta/llama").wait_for()
    page.select_option("#task_llm", "completion")
    page.get_by_role("button", name="google/flan-t5").wait_for()
    assert not page.is_checked("#served")
    page.check("[name=where][value=router]")
    page.get_by_role("button", name="google/flan-t5").wait_for(state="detached")
    assert page.is_checked("#served")
    page.uncheck("#served")
    page.get_by_role("button", name="google/flan-t5").wait_for()


def test_hub_is_not_requested_until_the_picker_is_opened(opened: Screen, hub: HubApi) -> None:
    asked = len(hub.asked)
    opened.go("models/new")
    opened.page.check("[name=kind][value=rerank]")
    assert len(hub.asked) == asked


def test_names_are_found_and_added_to_the_scope_of_a_key(opened: Screen) -> None:
    page = opened.page
    opened.go("keys/dify/edit")
    page.fill("#find", "model-2")
    page.get_by_role("button", name="model-29").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="model-20").wait_for(state="detached")
    page.locator("#find:focus").wait_for()
    assert page.input_value("#endpoints").split() == ["model-00", "model-01", "model-20"]


def test_swapped_in_result_is_clickable_at_once(opened: Screen) -> None:
    """A click before htmx settles the swapped content, by default 20 ms later, would be lost."""
    page = opened.page
    opened.go("keys/dify/edit")
    page.evaluate(
        """document.addEventListener("htmx:afterSwap",
             (event) => { if (event.target.id === "names")
               Promise.resolve().then(() => document.getElementById("offer-1").click()); }, {once: true})"""
    )
    page.fill("#find", "model-2")
    page.get_by_role("button", name="model-20").wait_for(state="detached")
    assert page.input_value("#endpoints").split() == ["model-00", "model-01", "model-20"]


@pytest.mark.parametrize("language", LOCALES)
def test_pickers_are_accessible_and_fit_a_phone_in_every_language(
    browser: Browser, many: RunningGateway, language: str
) -> None:
    with screen(browser, many, language=language) as opened:
        page = opened.page
        opened.sign_in()
        opened.go("models/new")
        page.check("[name=kind][value=llm]")
        page.get_by_text(SEARCH[language]).click()
        page.locator(".hits li").first.wait_for()
        opened.judge("hub")
        page.locator(".hits button").first.click()
        page.locator("#picked").wait_for()
        opened.judge("picked")
        for path in ("keys/dify/edit", "settings"):
            opened.go(path)
            opened.judge(path.replace("/", "-"))
        assert opened.errors == []


def test_offline_gateway_is_reported_and_everything_can_be_typed(
    browser: Browser, settings: Settings
) -> None:
    with (
        RunningGateway(replace(settings, hf_offline=True)) as gateway,
        screen(browser, gateway) as opened,
    ):
        opened.sign_in()
        opened.go("models/new")
        opened.page.get_by_text("Search Hugging Face").click()
        opened.page.get_by_text("This gateway is configured not to contact it.").wait_for()
        opened.judge("hub-offline")
        opened.page.fill("#model", MINILM)
        assert opened.errors == []
