"""The console in a real browser: every page in every language, and the main workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from batch_files import batch_input, create_batch, texts, wait_for_end
from lookalikes import lookalike
from running_gateway import RunningGateway, eventually
from screen import LOCALES, NEEDS_CHROMIUM, screen

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from screen import Screen

pytestmark = NEEDS_CHROMIUM

PAGES = {
    "sign-in": "sign-in",
    "models": "models",
    "model": "models/e5-small/overview",
    "audit": "audit",
    "add": "models/new",
    "edit": "models/e5-small/edit",
    "delete": "models/e5-small/delete",
    "clone": "models/e5-small/clone",
    "keys": "keys",
    "new-key": "keys/new",
    "settings": "settings",
    "jobs": "jobs",
    "job": "jobs",
    "problem": "models/nothing/edit",
}
TOKEN = "hf_aTokenThatNobodyHas1234"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with models in several states, keys and a connection. The tests leave it as it is."""
    folder = tmp_path_factory.mktemp("furnished")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with (
        lookalike("tei", name="intfloat/e5-small-v2", key=TOKEN) as server,
        lookalike("tei", name="BAAI/bge-m3") as other,
        RunningGateway(settings) as gateway,
    ):
        gateway.request("POST", "/api/connections", {"name": "team", "token": TOKEN, "hosts": [server.url]})
        gateway.add("e5-small", url=server.url, connection="team", rate_limit={"requests_per_minute": 60})
        gateway.add("bge-m3", url=other.url)
        gateway.add("demo", fallback=None)
        gateway.add("old-demo")
        gateway.request("PATCH", "/api/endpoints/old-demo", {"enabled": False})
        gateway.create_key("dify", default_endpoint="e5-small", endpoints=["e5-small", "bge-m3"])
        gateway.create_key("nightly", bulk=True, requests_per_minute=60, expires_at=4102444800)
        for _ in range(3):
            gateway.request("POST", "/v1/embeddings", {"model": "e5-small", "input": "hello"})
        _add_jobs(gateway)
        yield gateway


def _add_jobs(gateway: RunningGateway) -> None:
    """One job that has ended with an error, and a newer one that waits for the limit of its key."""
    nightly = gateway.create_key("archive", requests_per_minute=1)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client:
        bodies = [*texts(3, "demo"), {"model": "nowhere", "input": "x"}]
        wait_for_end(client, create_batch(client, batch_input(bodies)))
        job = create_batch(client.with_options(api_key=nightly), batch_input(texts(300, "demo")))
        eventually(lambda: gateway.request("GET", f"/api/jobs/{job.id}").json()["waiting_for"] is not None)


@pytest.fixture
def empty(browser: Browser, gateway: RunningGateway) -> Iterator[Screen]:
    """Somebody who has just signed in to a gateway without models."""
    with screen(browser, gateway) as opened:
        opened.sign_in()
        opened.go("models")
        yield opened
        assert opened.errors == []


def _open(opened: Screen, name: str) -> None:
    opened.go(PAGES[name])
    if name == "job":
        opened.page.locator("tbody a").first.click()
        opened.page.locator("#job").wait_for()
    if name in {"add", "edit"}:
        # Not by clicks: what one section loads moves the next one, and a click can miss it.
        sections = opened.page.locator("#fields details:not(.error-details)")
        sections.evaluate_all("all => all.forEach(one => { one.open = true })")
        opened.page.locator(".marked").wait_for()
        opened.page.locator(".info").wait_for()


@pytest.mark.parametrize("language", LOCALES)
def test_every_page_is_accessible_quiet_its_own_and_fits_a_phone(
    browser: Browser, furnished: RunningGateway, language: str
) -> None:
    with screen(browser, furnished, language=language) as opened:
        for name in PAGES:
            _open(opened, name)
            opened.judge(name)
            if name == "sign-in":
                opened.type_key()
        # A browser says of every page with an error status that it has one.
        expected = "Failed to load resource: the server responded with a status of 404 (Not Found)"
        assert [error for error in opened.errors if error != expected] == []


def test_a_model_is_added_from_a_pasted_url_tested_corrected_and_saved(empty: Screen) -> None:
    page = empty.page
    with lookalike("tei", name="intfloat/e5-small-v2", key=TOKEN) as server:
        page.get_by_role("link", name="Add a model").or_(page.locator("#first")).first.wait_for()
        page.fill("#first", server.url)
        page.press("#first", "Enter")
        page.wait_for_url("**/ui/models/new?**")
        assert page.input_value("#url") == server.url
        page.fill("#name", "e5")
        page.get_by_role("button", name="Test").click()
        page.get_by_text("The access token is missing").wait_for()
        page.select_option("#connection", "+")
        page.fill("#token", TOKEN)
        page.get_by_role("button", name="Test").click()
        page.get_by_text("The model answers.").wait_for()
        assert page.input_value("#token") == TOKEN, "what was typed stays"
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url("**/ui/models/e5/overview?done=added")
        page.get_by_text("e5 is registered and answers.").wait_for()
        assert TOKEN not in page.content()


def test_a_model_that_fails_is_saved_as_disabled(empty: Screen) -> None:
    page = empty.page
    empty.go("models/new?paste=http://127.0.0.1:9")
    page.fill("#name", "later")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Nothing is listening at this address").wait_for()
    page.get_by_role("button", name="Save as disabled").click()
    page.wait_for_url("**/ui/models/later/overview?done=kept")
    assert page.locator(".state").inner_text() == "Disabled"


def test_fields_depend_on_the_choices(empty: Screen) -> None:
    page = empty.page
    empty.go("models/new")
    for where, shown, hidden in (
        ("router", ("#model", "#provider", "#bill_to", "#token"), ("#url", "#namespace")),
        ("dedicated", ("#model", "#url", "#namespace", "#provider", "#token"), ()),
        ("local", ("#model",), ("#url", "#provider", "#token")),
    ):
        page.check(f"[name=where][value={where}]")
        assert [page.is_visible(field) for field in shown] == [True] * len(shown), where
        assert [page.is_visible(field) for field in hidden] == [False] * len(hidden), where
    for kind, task in (("llm", "#task_llm"), ("embedding", "#task_embedding"), ("rerank", "#task_rerank")):
        page.check(f"[name=kind][value={kind}]")
        assert [page.is_visible(f"#task_{other}") for other in ("llm", "embedding", "rerank")] == [
            f"#task_{other}" == task for other in ("llm", "embedding", "rerank")
        ]
        assert page.is_visible("#strategy") is (kind == "embedding")


def test_the_preview_follows_the_settings(empty: Screen) -> None:
    page = empty.page
    empty.go("models/new")
    page.select_option("#strategy", "sentence")
    page.get_by_text("Preview the chunks of a text").click()
    page.locator("#chunks").get_by_text("1 chunk", exact=True).wait_for()
    page.fill("#max_chunk_size", "25")
    page.locator("#chunks").get_by_text("7 chunks").wait_for()
    page.fill("#max_chunk_size", "5")
    page.locator("#chunks").get_by_text("Invalid settings").wait_for()


def test_the_list_is_searched_while_typing_and_states_are_updated(empty: Screen) -> None:
    for name in ("alpha", "beta"):
        empty.gateway.add(name)
    empty.go("models")
    page = empty.page
    page.fill("#q", "alp")
    page.locator("tbody tr").nth(1).wait_for(state="detached")
    assert page.locator("tbody th a").inner_text() == "alpha"
    assert page.url.endswith("?q=alp&task=&source=")
    empty.gateway.request("PATCH", "/api/endpoints/alpha", {"enabled": False})
    page.get_by_text("Disabled").wait_for()


def test_menus_open_and_close_by_keyboard(empty: Screen) -> None:
    empty.gateway.add("alpha")
    empty.go("models")
    page = empty.page
    menu = page.get_by_label("Actions for alpha")
    menu.focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Clone").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.panel a:first-child')") is True
    page.keyboard.press("Escape")
    assert not page.get_by_role("link", name="Clone").is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Actions for alpha"


def test_a_key_is_copied(empty: Screen) -> None:
    page = empty.page
    empty.go("keys")
    page.get_by_role("link", name="Create key").click()
    page.fill("#name", "dify")
    page.get_by_role("button", name="Create key").click()
    page.get_by_role("button", name="Copy").dblclick()
    page.get_by_role("button", name="Copied").wait_for()
    page.get_by_role("button", name="Copy", exact=True).wait_for()


def test_a_new_key_is_shown_once_and_reloading_creates_nothing(empty: Screen) -> None:
    page = empty.page
    empty.go("keys/new")
    page.fill("#name", "webshop")
    page.get_by_role("button", name="Create key").click()
    page.locator("#plain").wait_for()
    page.reload()
    page.get_by_text("This key was shown once").wait_for()
    assert page.locator("#plain").count() == 0
    assert page.locator(".alert").count() == 0
    assert page.locator("tbody tr").count() == 2


def test_a_double_click_does_not_lose_the_new_key(empty: Screen) -> None:
    page = empty.page
    empty.go("keys")
    page.get_by_role("link", name="Create key").click()
    page.fill("#name", "dify")
    page.get_by_role("button", name="Create key").dblclick()
    page.locator("#plain").wait_for()
    empty.go("settings")
    page.get_by_text("Apply a configuration").click()
    page.fill("#yaml", "keys:\n  kibana: {}\n")
    page.get_by_role("button", name="Apply", exact=True).dblclick()
    page.locator("#plan .secret").wait_for()
    page.wait_for_load_state("networkidle")
    assert page.locator("#plan .secret").is_visible()


def test_language_and_theme_are_switched_without_a_sign_in(browser: Browser, gateway: RunningGateway) -> None:
    with screen(browser, gateway) as opened:
        page = opened.page
        opened.go("sign-in")
        page.get_by_label("Language").click()
        page.get_by_role("button", name="فارسی").click()
        page.get_by_label("کلید مدیر").wait_for()
        page.get_by_label("ظاهر").click()
        page.get_by_role("button", name="تیره").click()
        page.locator("html[data-theme=dark]").wait_for()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(20, 23, 26)"
        assert opened.errors == []


def test_it_works_without_any_script(browser: Browser, gateway: RunningGateway) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    gateway.add("alpha")
    page.goto(f"{gateway.url}/ui/sign-in")
    page.fill("#key", gateway.admin_key)
    page.press("#key", "Enter")
    page.get_by_label("Actions for alpha").click()
    page.get_by_role("button", name="Disable").click()
    page.get_by_text("alpha is disabled.").wait_for()
    page.goto(f"{gateway.url}/ui/models/alpha/edit")
    page.fill("#requests_per_minute", "60")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("alpha is saved.").wait_for()
    page.goto(f"{gateway.url}/ui/settings")
    page.get_by_text("Apply a configuration").click()
    page.fill("#yaml", "connections: {team: {token: '${TEAM}'}}")
    page.fill("#secrets", "TEAM=hf_aTokenThatNobodyHas1234")
    page.get_by_role("button", name="Apply", exact=True).click()
    page.wait_for_url("**/ui/config")  # and no token stands in an address
    assert [one.name for one in gateway.service.connections.all()] == ["team"]
    context.close()


def test_the_language_can_be_switched_after_a_rejected_form(empty: Screen) -> None:
    page = empty.page
    empty.go("settings")
    page.locator("form[action='/ui/connections'] [name=name]").fill("no name at all!")
    page.locator("form[action='/ui/connections'] [name=token]").fill("hf_one")
    page.locator("form[action='/ui/connections'] button").click()
    page.wait_for_url("**/ui/connections")
    empty.errors.clear()  # a browser tells of the form's 400
    page.locator("header summary").first.click()
    page.get_by_role("button", name="日本語").click()
    page.wait_for_url("**/ui/settings")
    assert page.get_attribute("html", "lang") == "ja"
