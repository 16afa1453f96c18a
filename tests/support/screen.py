"""Debian's Chromium driven by Playwright, which records every error of a page."""

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

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request
    from running_gateway import RunningGateway

CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None,
    reason="Chromium is not installed: apt-get install chromium fonts-noto-cjk",
)
LOCALES = {"en": "en-US", "zh": "zh-CN", "ja": "ja-JP", "fa": "fa-IR"}
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
# What htmx logs, for both together, when a newer request replaces one or when its page is left.
_REPLACED = ("htmx:afterRequest, ", "htmx:sendAbort, ")
_SERIOUS = frozenset({"serious", "critical"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Shared by the tests of a module. It runs an event loop, so no asynchronous test can run in that module."""
    with chromium() as opened:
        yield opened


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


@dataclass
class Screen:
    """A page of the console in a browser."""

    gateway: RunningGateway
    page: Page
    errors: list[str] = field(default_factory=list)
    """Errors in the JavaScript console, and requests to other hosts."""

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.set_default_timeout(240_000)

    def go(self, path: str) -> None:
        """Open a page of the console and wait until it is loaded."""
        self.page.goto(f"{self.gateway.url}/ui/{path}", wait_until="load")

    def sign_in(self) -> None:
        self.go("sign-in")
        self.page.fill("#key", self.gateway.admin_key)
        self.page.press("#key", "Enter")
        self.page.wait_for_url("**/ui/models")

    def faults(self) -> list[str]:
        """Serious findings of axe-core. It is evaluated, as the page's Content-Security-Policy refuses its script."""
        self.page.evaluate(_axe())
        found: list[dict[str, Any]] = self.page.evaluate("async () => (await axe.run()).violations")
        return [
            f"{one['id']}: {node['html']} {node['failureSummary']}"
            for one in found
            if one["impact"] in _SERIOUS
            for node in one["nodes"]
        ]

    def overflows(self) -> bool:
        """Whether the page scrolls sideways."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
        return wide

    def shoot(self, name: str) -> None:
        """Save a screenshot of the whole page in build/."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        count = len(self.errors)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
        del self.errors[count:]  # Playwright hides the caret with a style, which the page's policy refuses

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(_REPLACED):
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.gateway.url + "/", "data:")):
            self.errors.append(f"request to another host: {request.url}")


@contextmanager
def screen(
    browser: Browser, gateway: RunningGateway, *, language: str = "en", dark: bool = False, width: int = 1200
) -> Iterator[Screen]:
    """Open the console with a language, a theme and a width."""
    context = browser.new_context(
        locale=LOCALES[language],
        color_scheme="dark" if dark else "light",
        viewport={"width": width, "height": 800},
    )
    opened = Screen(gateway, context.new_page())
    yield opened
    context.close()


@cache
def _axe() -> str:
    return (Path(__file__).parents[1] / "web" / "console" / "axe" / "axe.min.js").read_text("utf-8")
