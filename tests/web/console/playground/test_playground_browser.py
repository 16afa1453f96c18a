"""The playground in a real browser: each task, and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike
from running_gateway import RunningGateway
from screen import LOCALES, NEEDS_CHROMIUM, screen

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalikes import LookAlike
    from playwright.sync_api import Browser
    from screen import Screen

pytestmark = NEEDS_CHROMIUM

NAMES = ("embeds", "weighs", "ranks", "chats", "writes")


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, LookAlike]]:
    """A server of each task."""
    with (
        lookalike("tei", name="intfloat/e5-small-v2", max_tokens=64) as embeds,
        lookalike("tei", kind="sparse") as weighs,
        lookalike("tei", kind="reranker") as ranks,
        lookalike("vllm", kind="llm") as chats,
        lookalike("tgi", kind="llm") as writes,
    ):
        yield dict(zip(NAMES, (embeds, weighs, ranks, chats, writes), strict=True))


@pytest.fixture(scope="module")
def furnished(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, LookAlike]
) -> Iterator[RunningGateway]:
    """A gateway with all of them."""
    folder = tmp_path_factory.mktemp("playground")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    tasks = ("text_embedding", "sparse_embedding", "rerank", "chat_completion", "completion")
    chunking = {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 1}
    with RunningGateway(settings) as gateway:
        for (name, server), task in zip(models.items(), tasks, strict=True):
            gateway.add(
                name,
                url=server.url,
                task=task,
                **({"chunking_settings": chunking} if name == "embeds" else {}),
            )
        yield gateway


@pytest.fixture
def opened(browser: Browser, furnished: RunningGateway, models: dict[str, LookAlike]) -> Iterator[Screen]:
    """Somebody who is signed in; no page may say that something is wrong."""
    with screen(browser, furnished) as console:
        console.sign_in()
        yield console
        assert console.errors == []
    for server in models.values():
        server.heal()


def try_out(opened: Screen, name: str) -> None:
    """Open a playground and run what it proposes."""
    opened.go(f"models/{name}/play")
    if name == "embeds":
        text = "The harbour town wakes slowly. Fishermen mend their nets on the quay in the morning. " * 3
        opened.page.fill("[name=text_4]", text)
    opened.page.locator(".run").click()
    opened.page.locator(".stats").wait_for()
    opened.page.locator("#copy:not(.htmx-request)").wait_for()


@pytest.mark.parametrize("language", LOCALES)
def test_every_playground_is_accessible_quiet_and_fits_a_phone(
    browser: Browser, furnished: RunningGateway, language: str
) -> None:
    with screen(browser, furnished, language=language) as opened:
        opened.sign_in()
        for name in NAMES:
            try_out(opened, name)
            opened.judge(f"play-{name}")
        assert opened.errors == []


def test_texts_are_added_removed_and_compared(opened: Screen) -> None:
    page = opened.page
    opened.go("models/embeds/play")
    page.get_by_role("button", name="Add a text").click()
    assert page.evaluate("document.activeElement.name") == "text_5"
    page.keyboard.type("the fifth")
    page.get_by_role("button", name="Remove text 1").click()
    assert page.input_value("[name=text_4]") == "the fifth"
    assert page.locator(".text:visible").count() == 4
    page.get_by_role("button", name="Run").click()
    page.locator(".matrix").wait_for()
    assert page.locator(".cell").count() == 16
    page.locator("#code").get_by_text("the fifth").wait_for()


def test_text_is_streamed_and_stopped(opened: Screen) -> None:
    page = opened.page
    with lookalike("vllm", kind="llm", fault="stall") as server:
        opened.gateway.add("stalls", url=server.url, task="chat_completion", save_anyway=True)
        opened.go("models/stalls/play")
        page.fill("#prompt", "one two three")
        page.keyboard.press("Enter")
        answer = page.locator(".assistant > .content")
        answer.get_by_text("You", exact=True).wait_for()
        assert page.locator(".user .content").inner_text() == "one two three"
        assert page.locator(".assistant[aria-busy]").count() == 1
        assert page.get_by_role("button", name="Send").is_disabled()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        server.wait_until(lambda one: one.streams == 0)
        assert answer.inner_text() == "You"
        assert page.locator(".assistant[aria-busy]").count() == 0
        assert page.get_by_role("button", name="Send").is_enabled()
        assert page.evaluate("document.activeElement.id") == "prompt"


def test_a_conversation_keeps_its_history(opened: Screen, models: dict[str, LookAlike]) -> None:
    page, server = opened.page, models["chats"]
    opened.go("models/chats/play")
    page.get_by_text("System prompt").first.click()
    page.fill("#system", "Be brief.")
    page.fill("#max_tokens", "8")
    for number, text in enumerate(("first", "second"), 1):
        page.fill("#prompt", text)
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Enter")
        page.locator(".assistant:not([aria-busy])").nth(number - 1).wait_for()
    said = [(one["role"], one["content"]) for one in server.posts[-1].json["messages"]]
    assert said == [
        ("system", "Be brief."),
        ("user", "first\n"),
        ("assistant", "You said: first"),
        ("user", "second\n"),
    ]
    page.locator("#code").get_by_text("You said: first").wait_for()
    page.get_by_role("button", name="New conversation").click()
    page.fill("#prompt", "third")
    page.keyboard.press("Enter")
    page.locator(".assistant:not([aria-busy])").wait_for()
    assert len(server.posts[-1].json["messages"]) == 2


def test_a_new_conversation_does_not_contain_the_interrupted_reply(
    opened: Screen, models: dict[str, LookAlike]
) -> None:
    page, server = opened.page, models["chats"]
    opened.go("models/chats/play")
    page.get_by_role("button", name="Send").click()
    page.locator(".assistant:not([aria-busy])").wait_for()
    server.fail("stall")
    page.fill("#prompt", "broken off")
    page.keyboard.press("Enter")
    page.locator(".assistant > .content").nth(1).get_by_text("You", exact=True).wait_for()
    page.get_by_role("button", name="New conversation").click()
    page.locator(".run:enabled").wait_for()
    server.heal()
    page.fill("#prompt", "third")
    page.keyboard.press("Enter")
    page.locator(".assistant:not([aria-busy])").wait_for()
    assert [one["content"] for one in server.posts[-1].json["messages"]] == ["third"]


def test_an_error_in_the_stream_is_a_notice_and_the_message_stays(
    opened: Screen, models: dict[str, LookAlike]
) -> None:
    page = opened.page
    models["chats"].fail("error-object")
    opened.go("models/chats/play")
    page.get_by_role("button", name="Send").click()
    page.locator("#status").get_by_text("The model’s server failed").wait_for()
    assert page.locator(".assistant > .content").inner_text() == "You"
    models["chats"].fail("wrong-token")
    page.fill("#prompt", "again")
    page.keyboard.press("Enter")
    page.locator("#status").get_by_text("The access token is missing").wait_for()
    assert page.input_value("#prompt") == "again"
    assert page.locator(".message").count() == 2
    # A browser says of every answer with an error status that it has one.
    assert len(opened.errors) == 1
    assert "status of 424" in opened.errors.pop()


def test_a_text_is_completed_with_the_parameters_shown(opened: Screen) -> None:
    page = opened.page
    opened.go("models/writes/play")
    page.fill("#prompt", "Once upon a time")
    page.fill("#max_tokens", "4")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("max tokens reached").wait_for()
    assert page.locator(".assistant > .content").inner_text() == "You said: Once upon"
    page.locator("#code").get_by_text('"max_tokens": 4').wait_for()


def test_the_client_is_chosen_by_keyboard_and_its_call_copied(opened: Screen) -> None:
    page = opened.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.go("models/ranks/play")
    page.locator("#as-curl").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#code").get_by_text("from openai import OpenAI").wait_for()
    assert page.evaluate("document.activeElement.id") == "as-openai"
    page.locator("#copy").get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("from openai import OpenAI\n")
    page.locator("label", has_text="Dify").click()
    page.get_by_role("button", name="Copy API Base URL").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).endsWith('/v1')")


def test_the_playground_opens_from_the_models_list(opened: Screen) -> None:
    page = opened.page
    opened.go("models")
    page.get_by_role("link", name="Try it out ranks").click()
    page.wait_for_url("**/ui/models/ranks/play")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Most relevant first").wait_for()
    assert page.locator(".bars li").count() == 4
