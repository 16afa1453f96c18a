"""The page of one model and the audit log, over real HTTP."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from lookalikes import lookalike

from hubgate.domain.chunking import DEFAULT_CHUNKING
from hubgate.web.console.settings import CHANGES_PER_PAGE
from hubgate.web.console.templating import in_console_words, setting

if TYPE_CHECKING:
    from running_gateway import RunningGateway


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    console = ConsoleClient(gateway)
    console.sign_in()
    return console


class TestTheModelPage:
    def test_page_shows_what_the_model_is_and_does(self, console: ConsoleClient) -> None:
        with lookalike("tei", name="org/small", dimensions=16) as server:
            console.gateway.request(
                "POST",
                "/api/connections",
                {"name": "team", "token": "hf_token12345678", "hosts": [server.url]},
            )
            console.gateway.add(
                "e5",
                url=server.url,
                connection="team",
                rate_limit={"requests_per_minute": 60, "tokens_per_minute": 9000},
                prefixes={"search": "query: "},
                timeout=7,
            )
            console.gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "hello"})
            words = console.get("/ui/models/e5/overview").words
        for shown in (
            *("org/small", server.url, "Dimensions 16", "API token team", "Running", "2% of 60/min"),
            *(
                "Requests per minute 60",
                "Tokens per minute 9,000",
                "Timeout (seconds) 7",
                "Query prefix query:",
            ),
            *("Fit the model", "Use it from your application", "YOUR_HUBGATE_KEY"),
        ):
            assert shown in words

    def test_page_links_to_every_action(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        page = console.get("/ui/models/alpha/overview")
        links = set(re.findall(r'(?:href|action)="/ui/models/alpha/(\w+)"', page.text))
        assert {"play", "edit", "clone", "export", "delete", "disable"} <= links
        sent = console.post("/ui/models/alpha/disable", {"overview": "1"})
        assert sent.headers["location"] == "/ui/models/alpha/overview?done=disabled"
        page = console.get(sent.headers["location"])
        assert "alpha is disabled." in page.words
        assert 'action="/ui/models/alpha/enable"' in page.text

    def test_state_is_refreshed_for_this_model_only(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        console.gateway.add("beta")
        page = console.get("/ui/models/alpha/state")
        assert page.text.count("<tr>") == 1
        assert "Running" in page.words

    def test_truncated_chunks_are_warned_of(self, console: ConsoleClient) -> None:
        with lookalike("tei", name="org/small", max_tokens=64) as server:
            console.gateway.add("e5", url=server.url, chunking_settings=DEFAULT_CHUNKING.as_dict())
        for path in ("/ui/models/e5/overview", "/ui/models/e5/edit"):
            words = console.get(path).words
            assert (
                "Chunks may be truncated Chunks of up to 250 words can be longer than the 64 tokens" in words
            )

    def test_chunks_that_fit_the_model_have_no_warning(self, console: ConsoleClient) -> None:
        with lookalike("tei", name="org/small", max_tokens=64) as server:
            console.gateway.add("e5", url=server.url)
        words = console.get("/ui/models/e5/overview").words
        assert "Fit the model" in words
        assert "Chunks may be truncated" not in words
        assert "may be cut without notice" in words, "for nobody can count this model's tokens"

    def test_changed_model_is_reported_and_accepted_on_its_page(self, console: ConsoleClient) -> None:
        with lookalike("tei", name="org/one", dimensions=8) as server:
            console.gateway.add("e5", url=server.url)
            server.model = replace(server.model, name="org/two", dimensions=12)
            console.gateway.request("POST", "/api/endpoints/e5/check")
            page = console.get("/ui/models/e5/overview")
            assert "The server runs another model than the registered one" in page.words
            assert 'action="/ui/models/e5/accept"' in page.text
            sent = console.post("/ui/models/e5/accept", {"overview": "1"})
            assert "e5 is saved." in console.get(sent.headers["location"]).words

    def test_unknown_model_name_is_reported(self, console: ConsoleClient) -> None:
        page = console.get("/ui/models/nothing/overview")
        assert page.status == 404
        assert "The Models page lists" in page.words

    def test_first_model_is_shown_with_the_next_steps(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        page = console.get("/ui/models")
        for target in (
            "/ui/models/alpha/play",
            "/ui/keys/new",
            "/ui/models/alpha/overview#copy",
            "/ui/models/new",
        ):
            assert f'class="card" href="{target}"' in page.text
        console.gateway.add("beta")
        assert "Next steps" not in console.get("/ui/models").text


class TestTheAuditPage:
    def test_changes_are_shown_with_old_and_new_values(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        console.gateway.request("PATCH", "/api/endpoints/alpha", {"rate_limit": {"requests_per_minute": 60}})
        words = console.get("/ui/audit").words
        assert "Model changed alpha requests_per_minute 3000 → 60" in words
        assert "Model added alpha" in words
        assert "Signed in" in words
        assert words.index("Model changed") < words.index("Model added")

    def test_older_changes_are_on_further_pages(self, console: ConsoleClient) -> None:
        for n in range(CHANGES_PER_PAGE):
            console.gateway.create_key(f"key-{n}")
        first = console.get("/ui/audit")
        older = re.search(r'rel="next" href="([^"]+)"', first.text)
        assert older
        assert "key-49" in first.words
        second = console.get(older[1])
        assert "Newest" in second.words
        assert 'rel="next"' not in second.text
        assert "Nothing has changed yet" in console.get("/ui/audit?before=0").words
        assert console.get("/ui/audit?before=x").words == console.get("/ui/audit").words


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            "Check the URL, or say which server it is in [engine]: tei.",
            "say which server it is in “Server”: tei.",
        ),
        (
            "Did you mean [e5]? GET /v1/models lists the names.",
            "Did you mean [e5]? The Models page lists the names.",
        ),
        ("GET /api/connections lists them.", "The Settings page lists them."),
        ("[provider] is one of a, b.", "“Provider” is one of a, b."),
    ],
)
def test_errors_name_labels_and_pages_instead_of_fields_and_routes(sentence: str, words: str) -> None:
    assert words in in_console_words(sentence)


def test_settings_are_formatted_as_in_a_configuration_file() -> None:
    assert setting(None) == setting([]) == "–"
    assert setting(True) == "true"
    assert setting({"search": "query: ", "ingest": None}) == "search: query: "
    assert setting(["a", 1, 0.5]) == "a, 1, 0.5"
