"""The usage page over HTTP: its numbers, filters, tables and CSV."""

from __future__ import annotations

import csv
import io
import re
import time
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from lookalikes import lookalike

if TYPE_CHECKING:
    from console_client import Page
    from running_gateway import RunningGateway


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    """Somebody who is signed in to a gateway that was used: five calls of two keys, one of them failed."""
    with lookalike("tei") as server:
        gateway.add("e5", url=server.url)
        gateway.add("fake")
        dify = gateway.create_key("dify")
        for text in ("one two", "three", "one two"):
            gateway.request(
                "POST", "/v1/embeddings", {"model": "e5", "input": [text, f"{text} more"]}, key=dify
            )
        server.fail("paused")
        gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "else"}, key=dify)
        gateway.request("POST", "/v1/embeddings", {"model": "fake", "input": "a b c"})
    console = ConsoleClient(gateway)
    console.sign_in()
    return console


def headlines(page: Page) -> dict[str, str]:
    """The number of each card, by its name."""
    return dict(re.findall(r'<h2 id="(?:chart-)?(\w+)">[^<]*</h2><p class="headline">([^<]*)</p>', page.text))


def test_every_card_has_its_number(console: ConsoleClient) -> None:
    told = headlines(console.get("/ui/usage"))
    assert {name: told[name] for name in ("requests", "texts", "cache", "upstream", "causes")} == {
        "requests": "5",
        "texts": "7",
        "cache": "25%",
        "upstream": "0",
        "causes": "1",
    }
    assert int(told["tokens"]) > 10
    assert told["latency"].endswith(("ms", "sec"))


def test_charts_are_drawn_with_the_numbers_of_each_column(console: ConsoleClient) -> None:
    page = console.get("/ui/usage?range=day")
    assert re.search(r'<path class="fill series-succeeded" d="M231 100\.00V', page.text)
    assert re.search(r"<title>[^<]+\nsucceeded: 4\nfailed: 1\ncancelled: 0\n", page.text)
    assert "style=" not in page.text


def test_latency_is_of_interactive_calls_and_bulk_is_separate(console: ConsoleClient) -> None:
    assert "Bulk calls" not in console.get("/ui/usage?endpoint=fake").words
    body = {"model": "fake", "input": "d"}
    console.gateway.request("POST", "/v1/embeddings", body, headers={"X-Hubgate-Class": "bulk"})
    page = console.get("/ui/usage?endpoint=fake")
    assert re.search(r"p50 / p95 / p99\. The headline is p95\. Bulk calls: p95 [\d.]+ ms\.", page.words)
    (row,) = console.gateway.request("GET", "/api/usage?by=endpoint&endpoint=fake").json()["rows"]
    assert row["p99"] == row["slowest"] == row["p50"], "one interactive call"
    assert row["bulk_p99"] == row["bulk_slowest"] > 0


def test_errors_are_listed_by_cause_in_the_readers_language(console: ConsoleClient) -> None:
    assert "The endpoint is paused 1" in console.get("/ui/usage").words
    console.cookies["hubgate_language"] = "zh"
    assert "端点已暂停 1" in console.get("/ui/usage").words


def test_usage_is_shown_by_model_and_by_key(console: ConsoleClient) -> None:
    page = console.get("/ui/usage")
    rows = re.findall(
        r'<bdi class="name" dir="ltr">([^<]+)</bdi></th>\s*<td[^>]*><span class="with-bar">(\d+)<', page.text
    )
    assert rows == [("e5", "4"), ("fake", "1"), ("dify", "4"), ("admin", "1")]


def test_filters_apply(console: ConsoleClient) -> None:
    assert headlines(console.get("/ui/usage?endpoint=fake"))["requests"] == "1"
    keys = console.gateway.request("GET", "/api/keys").json()["keys"]
    dify = next(key["id"] for key in keys if key["name"] == "dify")
    of_key = console.get(f"/ui/usage?key={dify}&range=month")
    assert headlines(of_key)["requests"] == "4"
    assert not {"cache", "upstream"} & headlines(of_key).keys(), "they are counted of endpoints alone"
    for told in ('data-label="Cache"', 'data-label="Calls saved"'):
        assert (told in console.get("/ui/usage?range=month").text, told in of_key.text) == (True, False)
    assert f'<option value="{dify}" selected>dify</option>' in of_key.text
    assert f"key={dify}&amp;table=endpoint" in of_key.text
    assert "No requests in this period" in console.get("/ui/usage?endpoint=other").words


@pytest.mark.parametrize("name", ["day", "week", "month", "quarter", "year"])
def test_every_range_has_the_same_total(console: ConsoleClient, name: str) -> None:
    assert headlines(console.get(f"/ui/usage?range={name}"))["requests"] == "5"


def test_htmx_gets_all_but_the_filters(console: ConsoleClient) -> None:
    part = console.get("/ui/usage?range=day", hx_request="true")
    assert "<form" not in part.text
    assert headlines(part)["requests"] == "5"


def test_persian_readers_see_their_digits_and_their_calendar(console: ConsoleClient) -> None:
    console.cookies["hubgate_language"] = "fa"
    page = console.get("/ui/usage?range=month")
    assert headlines(page)["requests"] == "۵"
    assert re.search(r"<span>از [^<]* ۱۴[۰-۹]{2}", page.text)
    assert 'class="chart" dir="ltr"' in page.text, "time goes from left to right"


def test_the_csv_has_a_row_per_group(console: ConsoleClient) -> None:
    page = console.get("/ui/usage.csv?table=all&range=day")
    assert page.headers["content-type"] == "text/csv; charset=utf-8"
    assert page.headers["content-disposition"] == 'attachment; filename="usage-day-hour-endpoint-key.csv"'
    rows = list(csv.DictReader(io.StringIO(page.text)))
    of_keys = {(row["endpoint"], row["key_name"]): row["requests"] for row in rows if row["key"]}
    assert of_keys == {("e5", "dify"): "4", ("fake", "admin"): "1"}
    (by_time,) = csv.DictReader(io.StringIO(console.get("/ui/usage.csv?range=month").text))
    assert (by_time["day"], by_time["requests"]) == (time.strftime("%Y-%m-%d", time.gmtime()), "5")
    by_key = csv.DictReader(io.StringIO(console.get("/ui/usage.csv?table=key&endpoint=fake").text))
    assert {row["key_name"]: row["requests"] for row in by_key if row["key"]} == {"admin": "1"}


def test_a_gateway_without_requests_shows_an_empty_state(gateway: RunningGateway) -> None:
    console = ConsoleClient(gateway)
    console.sign_in()
    page = console.get("/ui/usage?range=nonsense")
    assert "No requests in this period" in page.words
    assert 'value="week" checked' in page.text


def test_playground_calls_are_counted_under_the_console_key(gateway: RunningGateway) -> None:
    gateway.add("fake")
    console = ConsoleClient(gateway)
    console.sign_in()
    console.post("/ui/models/fake/play", {"text_1": "a"}, hx_request="true")
    assert headlines(console.get("/ui/usage?key=console"))["requests"] == "1"


def test_it_requires_a_session(gateway: RunningGateway) -> None:
    assert [ConsoleClient(gateway).get(path).status for path in ("/ui/usage", "/ui/usage.csv")] == [303, 303]
