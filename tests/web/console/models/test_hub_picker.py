"""Finding a model on the Hub from the form, over real HTTP, against a small Hub."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from console_client import ConsoleClient
from lookalikes.hub_api import TOKEN, HubApi
from running_gateway import RunningGateway

from hubgate.web.console.models.form import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from console_client import Page

    from hubgate.settings import Settings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def console(settings: Settings, hub_site: HubApi) -> Iterator[ConsoleClient]:
    """Signed in to a gateway that has a Hub."""
    with RunningGateway(replace(settings, hf_endpoint=hub_site.url)) as gateway:
        console = ConsoleClient(gateway)
        console.sign_in()
        yield console


def search(console: ConsoleClient, path: str = "/ui/hub/models", **asked: str) -> Page:
    query = urlencode({"kind": "embedding", "where": "dedicated", **asked})
    return console.get(f"{path}?{query}", hx_request="true")


def found(page: Page) -> list[str]:
    return re.findall(r'name="pick" value="([^"]+)"', page.text)


def pick(console: ConsoleClient, name: str, path: str = "/ui/models/pick", **form: str) -> Page:
    return console.post(path, {**EMPTY, **form, "pick": name}, hx_request="true")


class TestSearching:
    def test_trending_models_of_the_forms_task_come_first(self, console: ConsoleClient) -> None:
        page = search(console, "/ui/hub")
        assert found(page) == ["BAAI/bge-m3", MINILM, "intfloat/e5-small-v2"]
        assert "Trending for feature-extraction" in page.words
        assert found(search(console, kind="llm")) == ["meta/llama", "org/seer"], "those that chat"
        assert found(search(console, kind="llm", task_llm="completion")) == ["meta/llama", "google/flan-t5"]
        assert found(search(console, kind="rerank")) == ["org/reranker"]

    def test_each_model_is_listed_with_its_metadata(self, console: ConsoleClient) -> None:
        page = search(console, hub_text="llama", kind="llm")
        assert "1K downloads 7 likes 8B parameters" in page.words
        assert "Served by groq Gated" in page.words

    def test_numbers_are_formatted_for_the_language(self, console: ConsoleClient) -> None:
        console.cookies["hubgate_language"] = "fa"
        assert "۸" in search(console, hub_text="llama", kind="llm").words

    def test_search_matches_part_of_the_name(self, console: ConsoleClient) -> None:
        page = search(console, hub_text=" mini ")
        assert found(page) == [MINILM]
        assert "Results for feature-extraction" in page.words
        assert "No model matches" in search(console, hub_text="nothing-like-it").words

    def test_hosted_form_finds_only_served_models_by_default(self, console: ConsoleClient) -> None:
        hosted = search(console, where="router")
        assert found(hosted) == [MINILM]
        assert re.search(r'name="served"[^>]* checked', hosted.text)
        assert len(found(search(console, where="router", served_for="router"))) == 3
        assert found(search(console, served="on", served_for="dedicated")) == [MINILM]
        assert len(found(search(console, served="on", served_for="router"))) == 3

    def test_search_uses_the_token_of_the_selected_connection(
        self, console: ConsoleClient, hub_site: HubApi
    ) -> None:
        console.gateway.request("POST", "/api/connections", {"name": "team", "token": f"{TOKEN}\nhf_spare"})
        assert "org/secret" in found(search(console, connection="team"))
        assert "org/secret" not in found(search(console))
        hub_site.fail("wrong-token")
        assert (
            "It rejects the token of the chosen connection."
            in search(console, connection="team", hub_text="e5").words
        )

    def test_form_without_a_model_type_is_rejected(self, console: ConsoleClient) -> None:
        assert "Invalid request" in search(console, kind="dance").words


class TestChoosing:
    def test_model_name_task_and_endpoint_name_are_filled_in(self, console: ConsoleClient) -> None:
        page = pick(console, "org/reranker", kind="embedding")
        assert re.search(r'value="rerank" checked', page.text)
        assert re.search(r'id="model"[^>]* value="org/reranker"', page.text)
        assert re.search(r'id="name"[^>]* value="reranker"', page.text)

    def test_dimensions_and_max_length_of_the_selected_model_are_shown(self, console: ConsoleClient) -> None:
        page = pick(console, MINILM)
        assert "384 dimensions up to 256 tokens apache-2.0 Served by hf-inference" in page.words

    def test_prefixes_of_the_selected_model_are_shown_with_their_source(self, console: ConsoleClient) -> None:
        words = pick(console, "intfloat/e5-small-v2").words
        assert "Query prefix query: Document prefix passage: " in words
        assert "from hubgate's table, by the model's name" in words
        assert "from hubgate's table" not in pick(console, MINILM).words

    def test_license_that_forbids_commercial_use_is_marked(self, console: ConsoleClient) -> None:
        assert "cc-by-nc-4.0 No commercial use" in pick(console, "org/reranker").words
        assert "cc-by-nc-4.0 No commercial use" in search(console, kind="rerank").words

    def test_forms_task_is_kept_when_the_model_supports_it(self, console: ConsoleClient) -> None:
        page = pick(console, "meta/llama", kind="llm", task_llm="chat_completion")
        assert re.search(r'value="chat_completion" selected', page.text)

    def test_other_form_fields_are_kept(self, console: ConsoleClient) -> None:
        page = pick(console, MINILM, where="router", bill_to="acme")
        assert re.search(r'name="where" value="router" checked', page.text)
        assert 'value="acme"' in page.text

    def test_registered_model_keeps_its_name(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        assert "/ui/models/alpha/pick" in search(console, of="alpha").text
        page = pick(console, MINILM, "/ui/models/alpha/pick", where="fake")
        assert re.search(rf'id="model"[^>]* value="{MINILM}"', page.text)
        assert 'id="name"' not in page.text

    def test_deleted_model_still_fills_in_its_name(self, console: ConsoleClient) -> None:
        page = pick(console, "org/e5-gone")
        assert 'value="org/e5-gone"' in page.text
        assert "It has no such model, or the token may not see it." in page.words


class TestWithoutTheHub:
    def test_offline_gateway_is_reported_without_an_error(self, settings: Settings, hub_site: HubApi) -> None:
        with RunningGateway(replace(settings, hf_endpoint=hub_site.url, hf_offline=True)) as gateway:
            console = ConsoleClient(gateway)
            console.sign_in()
            page = search(console)
        assert page.status == 200
        assert (
            "This gateway is configured not to contact it. You can fill in the fields below instead."
            in page.words
        )
        assert "HF_HUB_OFFLINE" in page.words
        assert hub_site.asked == []

    def test_unreachable_hub_is_reported(self, gateway: RunningGateway) -> None:
        console = ConsoleClient(gateway)
        console.sign_in()
        assert "It cannot be reached from here." in search(console).words

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            ("limited", "It is receiving too many requests"),
            ("failing", "It has a problem at the moment."),
            ("wrong-token", "It requires an access token: choose a connection that has one."),
        ],
    )
    def test_hub_error_is_reported_by_its_cause(
        self, console: ConsoleClient, hub_site: HubApi, fault: str, told: str
    ) -> None:
        hub_site.fail(fault)
        page = search(console)
        assert told in page.words
        assert found(page) == []
