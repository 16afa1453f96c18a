"""Debian's Chromium, driven by Playwright: what a person sees, with every fault of a page written down."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import RunningGate
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium here: `apt-get install chromium fonts-noto-cjk` brings what these tests drive",
)
LOCALES = {"en": "en-US", "zh": "zh-CN", "ja": "ja-JP", "fa": "fa-IR"}
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_SERIOUS = frozenset({"serious", "critical"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests of a module: it has a loop of its own, beside which no asynchronous test could run."""
    with chromium() as opened:
        yield opened


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


@dataclass
class Screen:
    """One visitor's browser."""

    gate: RunningGate
    page: Page
    errors: list[str] = field(default_factory=list)
    """What the console of the browser says is wrong, and requests that leave the gate."""

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._watch)
        self.page.set_default_timeout(20_000)

    def go(self, path: str) -> None:
        """Open a page of the console, and wait until it is still."""
        self.page.goto(f"{self.gate.url}/ui/{path}", wait_until="load")

    def sign_in(self) -> None:
        """Through the door."""
        self.go("sign-in")
        self.page.fill("#key", self.gate.admin_key)
        self.page.press("#key", "Enter")
        self.page.wait_for_url("**/ui/models")

    def faults(self) -> list[str]:
        """What axe-core finds that is serious; run in the page's own world, since its policy lets no script in."""
        self.page.evaluate(_axe())
        found: list[dict[str, Any]] = self.page.evaluate("async () => (await axe.run()).violations")
        return [
            f"{one['id']}: {node['html']} {node['failureSummary']}"
            for one in found
            if one["impact"] in _SERIOUS
            for node in one["nodes"]
        ]

    def overflows(self) -> bool:
        """Whether the page has to be moved sideways to be read."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
        return wide

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page as build output."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        heard = len(self.errors)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
        del self.errors[heard:]  # Playwright hides the caret by a style, which the page's policy refuses

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _watch(self, request: Request) -> None:
        if not request.url.startswith((self.gate.url + "/", "data:")):
            self.errors.append(f"left the gate: {request.url}")


@contextmanager
def screen(
    browser: Browser, gate: RunningGate, *, language: str = "en", dark: bool = False, width: int = 1200
) -> Iterator[Screen]:
    """A browser of a language, a theme and a width."""
    context = browser.new_context(
        locale=LOCALES[language],
        color_scheme="dark" if dark else "light",
        viewport={"width": width, "height": 800},
    )
    opened = Screen(gate, context.new_page())
    yield opened
    context.close()


@cache
def _axe() -> str:
    return (Path(__file__).parents[1] / "web" / "console" / "axe" / "axe.min.js").read_text("utf-8")
