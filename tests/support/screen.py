"""Debian's Chromium driven by Playwright, which records every error of a page."""

from __future__ import annotations

import os
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

    from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request
    from running_gateway import RunningGateway

CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None,
    reason="Chromium is not installed: apt-get install chromium fonts-noto-cjk",
)
LOCALES = {"en": "en-US", "zh": "zh-CN", "ja": "ja-JP", "fa": "fa-IR"}
WIDTH, PHONE_WIDTH = 1200, 360
SHOTS = Path(__file__).parents[2] / "build" / "screenshots" if os.environ.get("SCREENSHOTS") else None
"""Where to save a screenshot of each page."""
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
        _unused.clear()


@dataclass
class Screen:
    """A page of the console in a browser."""

    gateway: RunningGateway
    page: Page
    language: str
    errors: list[str] = field(default_factory=list)
    """Errors in the JavaScript console, and requests to other hosts."""

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", self._on_page_error)
        self.page.on("request", self._on_request)

    def leave(self) -> None:
        """Leave the console, so that the page can be used again."""
        self.page.goto("about:blank")
        self.page.remove_listener("console", self._on_console)
        self.page.remove_listener("pageerror", self._on_page_error)
        self.page.remove_listener("request", self._on_request)

    def go(self, path: str) -> None:
        """Open a page of the console and wait until it is loaded."""
        self.page.goto(f"{self.gateway.url}/ui/{path}", wait_until="load")

    def sign_in(self) -> None:
        """Get the cookie of a session without opening the page, which costs half a second of CPU."""
        form: dict[str, str | float | bool] = {"key": self.gateway.admin_key}
        reply = self.page.context.request.post(f"{self.gateway.url}/ui/sign-in", form=form, max_redirects=0)
        assert reply.status == 303, reply.text()

    def type_key(self) -> None:
        """Sign in on the page for it, which is open."""
        self.page.fill("#key", self.gateway.admin_key)
        self.page.press("#key", "Enter")
        self.page.wait_for_url("**/ui/models")

    def judge(self, name: str) -> None:
        """Check the page: its width on a desktop and a phone, and its accessibility in English and Persian.

        The colours do not depend on the language, so each theme is judged in one of them.
        """
        assert self.page.evaluate("document.dir") == ("rtl" if self.language == "fa" else "ltr"), name
        for width in (PHONE_WIDTH, WIDTH):
            self.page.set_viewport_size({"width": width, "height": 800})
            assert self.overflows() is False, f"{name} {width}"
            self.shoot(f"{name}-{self.language}-{width}")
        if self.language in {"en", "fa"}:
            self.page.emulate_media(color_scheme="dark" if self.language == "fa" else "light")
            assert self.faults() == [], name
            self.shoot(f"{name}-{self.language}-judged")

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
        """Save a screenshot of the whole page in build/, if the environment sets SCREENSHOTS."""
        if SHOTS is None:
            return
        SHOTS.mkdir(parents=True, exist_ok=True)
        count = len(self.errors)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
        del self.errors[count:]  # Playwright hides the caret with a style, which the page's policy refuses

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(_REPLACED):
            self.errors.append(message.text)

    def _on_page_error(self, error: Error) -> None:
        self.errors.append(str(error))

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.gateway.url + "/", "data:")):
            self.errors.append(f"request to another host: {request.url}")


@contextmanager
def screen(
    browser: Browser, gateway: RunningGateway, *, language: str = "en", dark: bool = False, width: int = WIDTH
) -> Iterator[Screen]:
    """Open the console with a language, a theme and a width, without the cookies and permissions of earlier ones."""
    page = _unused.pop((browser, language), None)
    if page is None:
        page = browser.new_context(locale=LOCALES[language]).new_page()
        page.set_default_timeout(240_000)
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.set_viewport_size({"width": width, "height": 800})
    opened = Screen(gateway, page, language)
    try:
        yield opened
        opened.leave()
        page.context.clear_cookies()
        page.context.clear_permissions()
    except BaseException:  # nobody knows the state of the page
        page.context.close()
        raise
    _unused[browser, language] = page


_unused: dict[tuple[Browser, str], Page] = {}
"""By language: a new context costs half a second of CPU, and its first page as much."""


@cache
def _axe() -> str:
    return (Path(__file__).parents[1] / "web" / "console" / "axe" / "axe.min.js").read_text("utf-8")
