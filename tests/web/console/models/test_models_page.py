"""The list of models, over real HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from console_client import ConsoleClient
from lookalikes import lookalike
from running_gateway import RunningGateway
from starlette.requests import Request

from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.settings import Settings
from hubgate.web.console.models.page import Models
from hubgate.web.console.page_context import PageContext

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    console = ConsoleClient(gateway)
    console.sign_in()
    return console


def names(text: str) -> list[str]:
    """The models in the order of the page."""
    return re.findall(r'<a href="/ui/models/([^/]+)/overview"><bdi', text)


def test_empty_list_explains_how_to_start(console: ConsoleClient) -> None:
    page = console.get("/ui/models")
    assert "No models yet" in page.words
    assert '<form action="/ui/models/new"' in page.text


def test_each_model_is_shown_with_its_description_and_state(console: ConsoleClient) -> None:
    with lookalike("tei", name="org/small", dimensions=16) as server:
        console.gateway.add("e5", url=server.url, rate_limit={"requests_per_minute": 60})
        key = console.gateway.create_key("app")
        body = {"model": "e5", "input": "hello"}
        assert console.gateway.request("POST", "/v1/embeddings", body, key=key).status == 200
        page = console.get("/ui/models")
        row = page.text.partition("<tbody>")[2]
        for told in (
            "e5",
            "org/small",
            "Text embedding",
            "16 dimensions",
            "Inference Endpoints",
            "tei",
            "Running",
        ):
            assert told in row
        assert "of 60/min" in page.words
        assert re.search(r'class="num">1<', row), "one request today"


def test_list_shows_only_models_that_match_the_search(console: ConsoleClient) -> None:
    with lookalike("tei", name="org/small") as server:
        console.gateway.add("alpha")
        console.gateway.add("beta", url=server.url)
        assert names(console.get("/ui/models").text) == ["alpha", "beta"]
        for query, found in (
            ("q=ALPHA", ["alpha"]),
            ("q=org/sm", ["beta"]),
            ("q=tei", ["beta"]),
            ("source=fake", ["alpha"]),
            ("source=nonsense&task=text_embedding&page=x", ["alpha", "beta"]),
            ("task=rerank", []),
            ("q=alpha&source=dedicated", []),
        ):
            assert names(console.get(f"/ui/models?{query}").text) == found, query
        part = console.get("/ui/models?q=beta", hx_request="true").text
        assert names(part) == ["beta"]
        assert "<html" not in part
        assert "No matches" in console.get("/ui/models?q=gamma").words


def test_model_is_disabled_and_enabled(console: ConsoleClient) -> None:
    console.gateway.add("alpha")
    page = console.post("/ui/models/alpha/disable")
    assert page.headers["location"] == "/ui/models?done=disabled&name=alpha"
    assert "Disabled" in console.get("/ui/models").words
    assert "alpha is disabled." in console.get(page.headers["location"]).words
    console.post("/ui/models/alpha/enable")
    assert "Running" in console.get("/ui/models").words


def test_model_is_cloned_under_another_name(console: ConsoleClient) -> None:
    console.gateway.add("alpha")
    assert 'value="alpha-2"' in console.get("/ui/models/alpha/clone").text
    assert "The name is taken" in console.post("/ui/models/alpha/clone", {"twin": "alpha"}).words
    console.post("/ui/models/alpha/clone", {"twin": "twin"})
    assert names(console.get("/ui/models").text) == ["alpha", "twin"]


def test_deleting_a_model_warns_of_who_uses_it(console: ConsoleClient) -> None:
    console.gateway.add("alpha")
    assert "It is in use" not in console.get("/ui/models/alpha/delete").words
    console.gateway.create_key("dify", default_endpoint="alpha")
    console.gateway.add("beta", fallback="alpha")
    asked = console.get("/ui/models/alpha/delete").words
    assert "It is in use Key dify Fallback of beta" in asked
    console.post("/ui/models/alpha/delete")
    assert names(console.get("/ui/models").text) == ["beta"]


def test_model_is_exported_without_its_token(console: ConsoleClient) -> None:
    with lookalike("tei", key="hf_aTokenThatNobodyHas1234") as server:
        console.gateway.add("e5", url=server.url, token="hf_aTokenThatNobodyHas1234")
        page = console.get("/ui/models/e5/export")
    assert page.headers["content-disposition"] == 'attachment; filename="e5.yaml"'
    shown = yaml.safe_load(page.text)["endpoints"]["e5"]
    assert (shown["url"], shown["token"]) == (server.url, "${TOKEN_OF_E5}")
    assert "NobodyHas" not in page.text


def test_changed_model_is_reported_and_can_be_accepted(console: ConsoleClient) -> None:
    with lookalike("tei", name="org/one", dimensions=8) as server:
        console.gateway.add("e5", url=server.url)
        server.model = replace(server.model, name="org/two", dimensions=12)
        assert console.gateway.request("POST", "/api/endpoints/e5/check").status == 424
        page = console.get("/ui/models")
        assert "The server runs another model than the registered one" in page.words
        assert "Accept the new model" in page.words
        console.post("/ui/models/e5/accept")
        assert "12 dimensions" in console.get("/ui/models").words


def test_name_that_is_markup_is_shown_as_text(console: ConsoleClient) -> None:
    console.gateway.add("alpha")
    page = console.get("/ui/models?done=added&name=%3Cscript%3Ealert(1)%3C/script%3E&q=%22%3E%3Cscript%3E")
    assert "<script>" not in page.text
    assert console.get("/ui/models?done=nonsense&name=x").text.count('class="done"') == 0


def test_states_are_fragments_that_match_elements_of_the_page(console: ConsoleClient) -> None:
    console.gateway.add("alpha")
    page, parts = console.get("/ui/models").text, console.get("/ui/models/states", hx_request="true").text
    wanted = set(re.findall(r'id="([stu]-[0-9a-f]{12})"', page))
    assert len(wanted) == 3
    assert set(re.findall(r'id="([stu]-[0-9a-f]{12})"[^>]* hx-swap-oob="true"', parts)) == wanted


async def test_model_removed_while_states_are_rendered_causes_no_error(scripted: ScriptedGateway) -> None:
    models = Models(scripted.service, scripted.access)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    asked = asyncio.create_task(models.states(PageContext.of(Request(scope))))
    await asyncio.sleep(0)  # it waits for the database, whose work is done one after the other
    await scripted.service.registry.remove("e5")
    assert b'id="s-' in bytes((await asked).body)


def test_thousand_models_are_listed_in_pages_of_fifty(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("many")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "k", port=0)
    with RunningGateway(settings) as gateway:
        asyncio.run_coroutine_threadsafe(_thousand(gateway), gateway._loop).result(240)
        console = ConsoleClient(gateway)
        console.sign_in()
        first = console.get("/ui/models")
        assert names(first.text) == [f"m{number:04}" for number in range(50)]
        assert "1,000 models" in first.words
        assert "Page 1 of 20" in first.words
        assert len(first.text) < 250_000
        assert names(console.get("/ui/models?page=20").text)[-1] == "m0999"
        assert names(console.get("/ui/models?page=21").text)[-1] == "m0999"
        assert names(console.get("/ui/models?q=m09&page=2").text) == [
            f"m09{number}" for number in range(50, 100)
        ]


async def _thousand(gateway: RunningGateway) -> None:
    drafts = (
        Endpoint(name=f"m{number:04}", task=Task.TEXT_EMBEDDING, source=Source.FAKE) for number in range(1000)
    )
    await asyncio.gather(*(gateway.service.registry.register_disabled(draft, None) for draft in drafts))


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-11-21"])
def test_today_starts_at_midnight_even_when_the_clocks_change(day: str) -> None:
    told = f"""
from datetime import datetime
from hubgate.web.console.models.page import midnight_before
print(datetime.fromtimestamp(midnight_before(datetime.fromisoformat("{day} 12:00").timestamp())))
"""
    env = {**os.environ, "TZ": "Europe/Berlin"}
    ran = subprocess.run([sys.executable, "-c", told], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{day} 00:00:00\n"
