"""Adding and changing a model, over real HTTP and against a real small server."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from lookalikes import lookalike
from stub_sources import until

from hubgate.web.console.models.form import EMPTY, KEEP, NEW

if TYPE_CHECKING:
    from console_client import Page
    from running_gateway import RunningGateway

TOKEN = "hf_aTokenThatNobodyHas1234"


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    console = ConsoleClient(gateway)
    console.sign_in()
    return console


def form(url: str, **fields: str) -> dict[str, str]:
    """A sent form for a model at a server."""
    return {**EMPTY, "url": url, "name": "e5", "connection": NEW, "token": TOKEN, **fields}


def outcome_of(console: ConsoleClient, sent: dict[str, str], path: str = "/ui/models/test") -> Page:
    """The end of a test, asked for as the page does."""
    page = console.post(path, sent, hx_request="true")
    while again := re.search(r'hx-get="(/ui/trials/[^"]+)"', page.text):
        page = console.get(again[1], hx_request="true")
    return page


class TestTheForm:
    def test_form_has_the_fields_named_in_the_guides(self, console: ConsoleClient) -> None:
        words = console.get("/ui/models/new").words
        for told in (
            *("Model Type", "LLM", "Text Embedding", "Rerank", "Model Name", "Endpoint Type", "API Token"),
            *("Hosted Inference API", "Inference Endpoints", "This machine", "Endpoint URL"),
            *(
                "User name / Organization name",
                "Task",
                "feature-extraction",
                "text-generation",
                "text2text-generation",
            ),
        ):
            assert told in words

    def test_pasted_link_fills_in_the_form(self, console: ConsoleClient) -> None:
        page = console.post(
            "/ui/paste", {**EMPTY, "paste": "https://hf.co/BAAI/bge-reranker-v2-m3"}, hx_request="true"
        )
        assert 'value="BAAI/bge-reranker-v2-m3"' in page.text
        assert re.search(r'value="rerank" checked', page.text)
        assert 'value="bge-reranker-v2-m3"' in page.text
        assert "<html" not in page.text

    def test_pasted_model_name_is_hosted_unless_the_form_says_where_it_runs(
        self, console: ConsoleClient
    ) -> None:
        for chosen, then in (("dedicated", "router"), ("local", "local")):
            sent = {**EMPTY, "where": chosen, "paste": "intfloat/e5-small-v2"}
            page = console.post("/ui/paste", sent, hx_request="true")
            assert re.search(rf'name="where" value="{then}" checked', page.text), chosen
        page = console.get("/ui/models/new?paste=intfloat/e5-small-v2")
        assert re.search(r'name="where" value="router" checked', page.text)

    def test_proposed_name_is_unused(self, console: ConsoleClient) -> None:
        console.gateway.add("e5-small-v2")
        console.gateway.add("e5-small-v2-2")
        page = console.get("/ui/models/new?paste=intfloat/e5-small-v2")
        assert re.search(r'id="name" [^>]*value="e5-small-v2-3"', page.text)

    def test_pasted_url_is_parsed_by_the_server_without_scripts(self, console: ConsoleClient) -> None:
        with lookalike("tei", name="org/small") as server:
            sent = {**EMPTY, "paste": server.url, "connection": ""}
            page = console.post("/ui/models/new", sent)
        name = server.url.removeprefix("http://").replace(":", "-")
        assert page.status == 303
        assert name in [one.name for one in console.gateway.service.registry.endpoints()]

    def test_demo_model_is_added_by_its_card_alone(self, console: ConsoleClient) -> None:
        for name in ("demo", "demo-2"):
            assert console.post("/ui/models/new", {**EMPTY, "where": "fake"}).status == 303
            assert name in [one.name for one in console.gateway.service.registry.endpoints()]

    def test_parsed_paste_is_cleared_and_an_unknown_one_stays_for_correction(
        self, console: ConsoleClient
    ) -> None:
        """Otherwise the box would still show a URL that was corrected in its field below."""
        url = "http://10.0.0.5:8080"
        for page in (
            console.post("/ui/paste", {**EMPTY, "paste": url}, hx_request="true"),
            console.get(f"/ui/models/new?paste={url}"),
        ):
            assert re.search(r'id="paste" name="paste" value=""', page.text)
            assert re.search(rf'id="url" [^>]*>\s*{url}</textarea>', page.text)
        for page in (
            console.post("/ui/paste", {**EMPTY, "paste": "hello"}, hx_request="true"),
            console.get("/ui/models/new?paste=hello"),
        ):
            assert re.search(r'id="paste" name="paste" value="hello"', page.text)
            assert "No model recognized." in page.words

    def test_generation_model_is_assumed_to_support_chat(self, console: ConsoleClient) -> None:
        page = console.get("/ui/models/new?model=meta-llama/Llama-3.1-8B-Instruct")
        assert '<option value="chat_completion" selected>conversational' in page.text

    def test_model_can_be_named_in_the_url(self, console: ConsoleClient) -> None:
        assert 'value="intfloat/e5-small-v2"' in console.get("/ui/models/new?model=intfloat/e5-small-v2").text

    def test_both_hugging_face_tasks_for_completion_are_offered(self, console: ConsoleClient) -> None:
        sent = {**EMPTY, "kind": "llm", "where": "local", "model": "google/flan-t5-small"}
        for word in ("completion", "text2text-generation"):
            assert f'<option value="{word}"' in console.get("/ui/models/new").text
            name = f"t5-{word}"
            console.post("/ui/models/new", {**sent, "task_llm": word, "name": name, "save": "off"})
            stored = console.gateway.request("GET", f"/api/endpoints/{name}").json()
            assert stored["task"] == "completion"

    def test_edit_form_shows_a_registered_model_without_its_token(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            console.gateway.add("e5", url=server.url, token=TOKEN)
            page = console.get("/ui/models/e5/edit")
        assert f">\n{server.url}</textarea>" in page.text
        assert "Keep the stored token (…1234)" in page.words
        assert TOKEN not in page.text

    def test_model_of_a_type_that_is_not_offered_can_be_edited(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        assert re.search(r'name="where" value="fake" checked', console.get("/ui/models/alpha/edit").text)


class TestTesting:
    def test_each_test_step_is_shown_and_nothing_is_stored(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            page = outcome_of(console, form(server.url, name=""))
        assert re.search(r"The model answers\. \S+ tei \d+ dimensions up to \d+ tokens \d+ ms", page.words)
        for step in ("Address", "Connection", "Token", "Model and task", "First answer"):
            assert f"{step} · passed" in page.words
        assert console.gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}
        assert TOKEN not in page.text

    def test_test_failure_is_explained_with_a_remedy(self, console: ConsoleClient) -> None:
        with lookalike("tei", key="hf_another") as server:
            page = outcome_of(console, form(server.url))
        assert "Token · failed" in page.words
        assert "The token is wrong or was revoked" in page.words
        assert "Save as disabled" in page.words

    def test_kept_token_is_used_for_the_test(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            console.gateway.add("e5", url=server.url, token=TOKEN)
            page = outcome_of(console, form(server.url, connection=KEEP, token=""), "/ui/models/e5/test")
        assert "The model answers." in page.words

    def test_token_to_be_removed_is_not_used_for_the_test(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            console.gateway.add("e5", url=server.url, token=TOKEN)
            page = outcome_of(console, form(server.url, connection="", token=""), "/ui/models/e5/test")
        assert "Token · failed" in page.words
        assert "The access token is missing" in page.words

    def test_invalid_fields_are_named_before_any_request(self, console: ConsoleClient) -> None:
        page = outcome_of(console, form("", dimensions="many"))
        assert "2 fields need your attention" in page.words
        assert '<a href="#url">Endpoint URL</a>' in page.text

    def test_invalid_endpoint_settings_are_reported(self, console: ConsoleClient) -> None:
        assert "Invalid settings" in outcome_of(console, form("http://127.0.0.1:1", name="No Name")).words

    def test_forgotten_test_run_is_reported(self, console: ConsoleClient) -> None:
        assert "no longer available" in console.get("/ui/trials/nothing", hx_request="true").words

    def test_full_page_with_the_entered_values_is_returned_without_htmx(self, console: ConsoleClient) -> None:
        page = console.post("/ui/models/test", form("", name="my-e5"))
        assert "<html" in page.text
        assert 'value="my-e5"' in page.text
        assert "Required." in page.words
        assert TOKEN not in page.text


class TestSaving:
    def test_model_that_answers_is_registered(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            page = console.post(
                "/ui/models/new", form(server.url, prefix_search="query: "), hx_request="true"
            )
            assert page.headers["hx-redirect"] == "/ui/models/e5/overview?done=added"
            stored = console.gateway.request("GET", "/api/endpoints/e5").json()
        assert (stored["url"], stored["token"], stored["prefixes"]) == (
            server.url,
            "…1234",
            {"search": "query: "},
        )

    def test_failure_stores_nothing_unless_saved_as_disabled(self, console: ConsoleClient) -> None:
        with lookalike("tei", key="hf_another") as server:
            page = console.post("/ui/models/new", form(server.url), hx_request="true")
            assert "The token is wrong" in page.words
            assert "Save as disabled" in page.words
            assert console.gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}
            page = console.post("/ui/models/new", form(server.url, save="off"))
        assert page.headers["location"] == "/ui/models/e5/overview?done=kept"
        assert console.gateway.request("GET", "/api/endpoints/e5").json()["enabled"] is False

    def test_error_unrelated_to_the_server_cannot_be_saved_as_disabled(self, console: ConsoleClient) -> None:
        console.gateway.add("e5")
        page = console.post("/ui/models/new", form("http://127.0.0.1:1"), hx_request="true")
        assert "The name is taken" in page.words
        assert "Save as disabled" not in page.words

    def test_named_token_is_stored_once_and_selected_the_next_time(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            console.post("/ui/models/new", form(server.url, token_name="team"))
            assert '<option value="team">team</option>' in console.get("/ui/models/new").text
            console.post("/ui/models/new", form(server.url, name="second", connection="team", token=""))
            for name in ("e5", "second"):
                stored = console.gateway.request("GET", f"/api/endpoints/{name}").json()
                assert (stored["connection"], stored.get("token")) == ("team", None)

    def test_named_token_of_a_failing_model_is_not_kept(self, console: ConsoleClient) -> None:
        with lookalike("tei", key="hf_another") as server:
            console.post("/ui/models/new", form(server.url, token_name="team"), hx_request="true")
        assert console.gateway.request("GET", "/api/connections").json() == {"connections": []}

    def test_named_token_is_not_kept_when_the_client_leaves_during_the_test(
        self, console: ConsoleClient
    ) -> None:
        gateway = console.gateway
        with lookalike("tei", fault="hang") as server:
            with console.asking("/ui/models/new", form(server.url, token_name="team")):
                server.wait_until(lambda one: len(one.requests) == 1)
                assert [one.name for one in gateway.service.connections.all()] == ["team"]
            forgotten = until(lambda: not gateway.service.connections.all())
            asyncio.run_coroutine_threadsafe(forgotten, gateway._loop).result()
        assert gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}

    def test_edit_keeps_an_untouched_token(self, console: ConsoleClient) -> None:
        with lookalike("tei", key=TOKEN) as server:
            console.gateway.add("e5", url=server.url, token=TOKEN)
            changed = form(server.url, connection=KEEP, token="", requests_per_minute="60")
            page = console.post("/ui/models/e5/edit", changed)
            assert page.headers["location"] == "/ui/models/e5/overview?done=saved"
            stored = console.gateway.request("GET", "/api/endpoints/e5").json()
            assert (stored["rate_limit"]["requests_per_minute"], stored["token"]) == (60, "…1234")
            console.post("/ui/models/e5/edit", {**changed, "save": "off"})
            assert console.gateway.request("GET", "/api/endpoints/e5").json()["enabled"] is False


class TestThePreview:
    def test_sample_is_shown_with_its_chunks(self, console: ConsoleClient) -> None:
        sample = "One two three four five six seven eight nine ten eleven twelve."
        sent = {**EMPTY, "sample": sample, "strategy": "word", "max_chunk_size": "10", "overlap": "2"}
        page = console.post("/ui/chunks", sent, hx_request="true")
        assert "2 chunks" in page.words
        assert page.text.count('class="both"') == 1

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"max_chunk_size": "x"}, "Max words per chunk: Enter a whole number"),
            ({"max_chunk_size": "1"}, "Invalid settings"),
        ],
    )
    def test_unusable_settings_are_reported(
        self, console: ConsoleClient, fields: dict[str, str], told: str
    ) -> None:
        sent = {**EMPTY, "strategy": "sentence", "sample": "A text.", **fields}
        page = console.post("/ui/chunks", sent, hx_request="true")
        assert told in page.words
