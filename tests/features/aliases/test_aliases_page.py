"""The pages of aliases: setting, moving with a warning, removing, and comparing two models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from running_gateway import RunningGateway
from screen import LOCALES, NEEDS_CHROMIUM, screen

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

WORDS = ["harbour", "gate", "dawn", "bread", "river", "stone", "lamp", "winter"]
TEXTS = "\n".join(f"{a} {b}" for a in WORDS for b in WORDS)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("aliases")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGateway(settings) as running:
        for name, dimensions in (("words-1", 32), ("words-2", 32), ("short", 4)):
            running.add(name, dimensions=dimensions)
        running.create_key("dify", endpoints=["words-1"])
        yield running


@pytest.fixture(autouse=True)
def no_aliases(gateway: RunningGateway) -> None:
    for name in [*gateway.service.live.aliases]:
        gateway.request("DELETE", f"/api/aliases/{name}")


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    made = ConsoleClient(gateway)
    made.sign_in()
    return made


def test_alias_is_set_moved_after_a_warning_and_removed(
    gateway: RunningGateway, console: ConsoleClient
) -> None:
    assert "No aliases yet" in console.get("/ui/aliases").words
    form = {"name": "search", "endpoint": "words-1"}
    assert console.post("/ui/aliases", form).headers["location"] == "/ui/aliases"
    assert console.post("/ui/aliases", {"name": "search", "endpoint": "words-2"}).status == 303
    console.post("/ui/aliases", form)
    warning = console.post("/ui/aliases", {"name": "search", "endpoint": "short"})
    assert "Move search to short?" in warning.words
    assert "cannot be compared with those of [words-1]: its dimensions are 4, not 32" in warning.words
    assert "because they are limited to the previous model: dify" in warning.words
    assert "/ui/aliases/compare?old=words-1&amp;new=short" in warning.text
    assert gateway.service.live.aliases == {"search": "words-1"}
    console.post("/ui/aliases", {"name": "search", "endpoint": "short", "accept": "yes"})
    assert gateway.service.live.aliases == {"search": "short"}
    refused = console.post("/ui/aliases", {"name": "words-1", "endpoint": "short"})
    assert "An endpoint named [words-1] already exists" in refused.words
    assert 'value="words-1"' in refused.text
    assert "Delete alias search?" in console.get("/ui/aliases/search/remove").words
    console.post("/ui/aliases/search/remove")
    assert gateway.service.live.aliases == {}
    assert "Alias set" in console.get("/ui/audit").words


def test_comparison_says_what_changes_and_what_it_costs(console: ConsoleClient) -> None:
    form = {
        "old": "words-1",
        "new": "short",
        "texts": TEXTS,
        "queries": "harbour gate\nwinter lamp",
        "documents": "1000000",
        "price": "0.5",
    }
    new = console.get("/ui/aliases/compare").text.partition('id="new"')[2]
    assert new.count('value="short" selected') == 0
    assert new.count('value="words-1" selected') == 1
    words = console.post("/ui/aliases/compare", form).words
    assert "of the first 10 results stay" in words
    assert "Embed all documents with the new model before queries go to it." in words
    assert "Tokens to embed 1,000,000 documents again 2,000,000" in words
    assert "Cost of embedding 1,000,000 documents again 1" in words
    assert "64 texts, 2 queries" in words
    assert "its dimensions are 4, not 32" in words
    assert "Queries whose results change most" in words
    same = console.post("/ui/aliases/compare", form | {"new": "words-2", "queries": ""}).words
    assert "Both models give the same vectors. The vectors can be compared" in same
    assert "64 texts, 64 queries" in same


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": "one"}, "[texts] has 1 lines; it must have 2 to 1000."),
        ({"old": "nothing"}, "No endpoint is named [nothing]"),
        ({"documents": "many"}, "[documents] is not a number."),
        ({"price": "nan"}, "[price] is not a number."),
    ],
)
def test_invalid_comparison_is_explained_and_the_form_kept(
    console: ConsoleClient, given: dict[str, str], message: str
) -> None:
    form = {"old": "words-1", "new": "short", "texts": TEXTS, **given}
    page = console.post("/ui/aliases/compare", form)
    assert message in page.words.replace("model is named", "endpoint is named")
    assert form["texts"].splitlines()[0] in page.text


@NEEDS_CHROMIUM
@pytest.mark.parametrize("language", LOCALES)
def test_browser_compares_and_moves_in_every_language(
    browser: Browser, gateway: RunningGateway, tmp_path: Path, language: str
) -> None:
    gateway.request("PUT", "/api/aliases/search", {"endpoint": "words-1", "accept_new_vectors": True})
    file = tmp_path / "texts.txt"
    file.write_text(TEXTS, "utf-8")
    with screen(browser, gateway, language=language) as opened:
        page = opened.page
        opened.sign_in()
        opened.go("aliases")
        opened.judge("aliases")
        page.select_option("td.acts select", "short")
        page.locator("td.acts button").click()
        page.locator(".alert").wait_for()
        opened.judge("aliases-warning")
        page.locator("a[href*='compare']").click()
        page.set_input_files("#texts-file", file)
        page.fill("#documents", "250000")
        page.fill("#price", "0.02")
        page.locator("main form button.primary").click()
        page.locator("#result").wait_for()
        assert page.locator("#new").input_value() == "short"
        opened.judge("compare")
        assert opened.errors == []
    assert gateway.service.live.aliases == {"search": "words-1"}, "nothing moves without a confirmation"
