"""The usage page in a real browser, with a month of traffic: accessible, without errors, filtered without a reload."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING

import pytest
from running_gateway import RunningGateway
from screen import LOCALES, NEEDS_CHROMIUM, screen

from hubgate.domain.records import DAY, HOUR, Latency, Slot, Tally
from hubgate.features.usage.store import SqlUsage
from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser
    from screen import Screen


pytestmark = NEEDS_CHROMIUM

CALLS_AN_HOUR = {"e5-small": 900, "bge-m3": 300, "reranker": 120, "llama": 40}
CAUSES = ("paused", "overloaded", "input_too_long", "client_left")


def traffic(now: float, keys: Sequence[str]) -> dict[Slot, Tally]:
    """34 days of it, busy by day and quiet at weekends; the same each time."""
    chance, counted = random.Random(7), {}
    for back in range(24 * 34):
        at = int(now) // HOUR * HOUR - back * HOUR
        busy = 0.35 + 0.65 * max(0.0, math.sin(at % DAY / DAY * math.tau - 1.2))
        busy *= 0.3 if at // DAY % 7 in (2, 3) else 1.0
        for name, calls in CALLS_AN_HOUR.items():
            for key, part in zip(keys, (0.7, 0.3), strict=True):
                counted[Slot(at, name, key)] = _hour(
                    chance, name, int(calls * busy * part * chance.uniform(0.7, 1.3))
                )
            asked = int(calls * busy)
            counted[Slot(at, name, "")] = Tally(
                cache_hits=asked,
                cache_misses=asked * 2,
                upstream_requests=asked // 3,
                saved_requests=asked // 2,
            )
    return counted


def _hour(chance: random.Random, name: str, calls: int) -> Tally:
    writes = name == "llama"
    failed = calls // 60 if chance.random() < 0.2 else 0
    latency = Latency()
    for _ in range(calls - failed):
        latency.observe(chance.lognormvariate(1.0 if writes else -2.0, 0.6))
    return Tally(
        requests=calls,
        errors=failed,
        texts=calls * 8,
        prompt_tokens=calls * 300,
        completion_tokens=calls * 180 if writes else 0,
        queue_seconds=calls * 0.2,
        latency=latency,
        causes={chance.choice(CAUSES): failed} if failed else {},
    )


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that was used for a month."""
    folder = tmp_path_factory.mktemp("busy")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGateway(settings) as gateway:
        for name in CALLS_AN_HOUR:
            gateway.add(name)
        for name in ("dify", "nightly-index"):
            gateway.create_key(name)
        keys = [key["id"] for key in gateway.request("GET", "/api/keys").json()["keys"] if not key["admin"]]
        adding = SqlUsage(gateway.service._store.database).add(traffic(time.time(), keys))
        asyncio.run_coroutine_threadsafe(adding, gateway._loop).result(240)
        yield gateway


@pytest.fixture
def opened(browser: Browser, busy: RunningGateway) -> Iterator[Screen]:
    with screen(browser, busy) as console:
        console.sign_in()
        console.go("usage")
        yield console
        assert console.errors == []


@pytest.mark.parametrize("language", LOCALES)
def test_the_page_is_accessible_quiet_and_fits_a_phone(
    browser: Browser, busy: RunningGateway, language: str
) -> None:
    with screen(browser, busy, language=language) as opened:
        opened.sign_in()
        for name in ("week", "month"):
            opened.go(f"usage?range={name}")
            assert opened.page.locator(".chart-card").count() == 8
            assert opened.overflows() is False
            opened.page.locator("details.more > summary").click()
            opened.judge(f"usage-{name}")
        assert opened.errors == []


def test_range_and_model_are_chosen_by_keyboard_without_a_new_page(opened: Screen) -> None:
    page = opened.page
    page.evaluate("window.same = true")
    all_calls = page.locator("#chart-requests + .headline").inner_text()
    page.locator("[name=range][value=week]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/ui/usage?range=month**")
    page.wait_for_function(
        "before => document.querySelector('#chart-requests + .headline').innerText !== before", arg=all_calls
    )
    page.fill("#endpoint", "reranker")
    page.keyboard.press("Tab")
    page.wait_for_url("**endpoint=reranker**")
    page.locator("#by-endpoint").wait_for(state="detached")
    page.select_option("#key", label="dify")
    page.locator("#by-key").wait_for(state="detached")
    assert page.locator("#chart-cache").count() == 0
    assert page.evaluate("window.same") is True


def test_time_runs_from_left_to_right_in_persian_too(browser: Browser, busy: RunningGateway) -> None:
    with screen(browser, busy, language="fa") as opened:
        opened.sign_in()
        opened.go("usage?range=month")
        first, last = (
            opened.page.locator("#chart-requests")
            .locator("xpath=ancestor::section")
            .locator(".x span")
            .nth(n)
            for n in (0, 2)
        )
        boxes = first.bounding_box(), last.bounding_box()
        assert boxes[0] is not None
        assert boxes[1] is not None
        assert boxes[0]["x"] < boxes[1]["x"]


def test_the_csv_uses_the_filters_of_the_page(opened: Screen) -> None:
    page = opened.page
    opened.go("usage?range=month&endpoint=reranker")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="by key").click()
    assert waiting.value.suggested_filename == "usage-month-key.csv"
    lines = waiting.value.path().read_text("utf-8").splitlines()
    assert {"dify", "nightly-index"} <= {line.split(",")[1] for line in lines}
