"""The playground over HTTP: calls, results, usage, and how streams end."""

from __future__ import annotations

import http.client
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
from console_client import ConsoleClient
from lookalikes import lookalike
from scripted_gateway import ADMIN_KEY

from hubgate.domain.endpoint import Endpoint, Source, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from console_client import Page
    from lookalikes import LookAlike
    from running_gateway import RunningGateway
    from scripted_gateway import ScriptedGateway


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    """Somebody who is signed in."""
    console = ConsoleClient(gateway)
    console.sign_in()
    return console


@pytest.fixture
def chat() -> Iterator[LookAlike]:
    """A server that holds conversations."""
    with lookalike("vllm", kind="llm") as server:
        yield server


def run(console: ConsoleClient, name: str, **form: str) -> Page:
    """Press Run."""
    return console.post(f"/ui/models/{name}/play", form, hx_request="true")


def streamed(console: ConsoleClient, name: str, **form: str) -> list[dict[str, Any]]:
    """The events that come into the page."""
    page = console.post(f"/ui/models/{name}/play/stream", form, hx_request="true")
    assert page.headers["content-type"] == "text/event-stream"
    return [json.loads(event.removeprefix("data: ")) for event in page.text.split("\n\n")[:-1]]


def said(events: list[dict[str, Any]]) -> str:
    """The text that they make."""
    return "".join(event.get("text", "") for event in events)


def usage(gateway: RunningGateway) -> list[dict[str, Any]]:
    """What was counted of each key and endpoint."""
    rows: list[dict[str, Any]] = gateway.request("GET", "/api/usage?by=key,endpoint").json()["rows"]
    return [row for row in rows if row["key"]]


def test_texts_are_compared_and_counted_under_the_console_key(console: ConsoleClient) -> None:
    console.gateway.add("fake", dimensions=64)
    page = run(console, "fake", text_1="one two three", text_2="one two", text_4="other words")
    assert page.status == 200
    cells = re.findall(r'<g class="cell s\d"><rect [^>]*/><text [^>]*>([^<]+)</text>', page.text)
    assert len(cells) == 9
    assert [cells[0], cells[4], cells[8]] == ["1.00"] * 3
    assert cells[1] == cells[3]
    assert "Texts 1 and 2 are the most similar" in page.words
    assert "Tokens 7 Dimensions 64" in page.words
    (row,) = usage(console.gateway)
    assert (row["key"], row["endpoint"], row["texts"], row["prompt_tokens"]) == ("console", "fake", 3, 7)


def test_a_long_text_shows_its_chunks(console: ConsoleClient) -> None:
    with lookalike("tei", max_tokens=20) as server:
        chunking = {"strategy": "word", "max_chunk_size": 10, "overlap": 1}
        console.gateway.add("e5", url=server.url, chunking_settings=chunking)
        page = run(console, "e5", text_1=" ".join(["word"] * 30), text_2="short")
    assert 'class="marked"' in page.text
    assert "4 chunks" in page.words


def test_a_truncated_text_is_marked(local_gateway: RunningGateway) -> None:
    console = ConsoleClient(local_gateway)
    console.sign_in()
    page = run(console, "all-minilm-l6-v2", text_1="one more word " * 200, text_2="short")
    assert "256 tokens truncated: the end was not read" in page.words
    assert "Truncated 1 text" in page.words


def test_input_type_and_dimensions_reach_the_model(console: ConsoleClient) -> None:
    with lookalike("tei", name="intfloat/e5-small-v2") as server:
        console.gateway.add("e5", url=server.url)
        assert run(console, "e5", text_1="hello", input_type="search").status == 200
        assert server.batches[-1] == ["query: hello"]
        refused = run(console, "e5", text_1="hello", dimensions="4")
        assert (refused.status, "Invalid request" in refused.words) == (400, True)


def test_playground_calls_are_not_cached(console: ConsoleClient) -> None:
    with lookalike("tei") as server:
        console.gateway.add("e5", url=server.url)
        before = len(server.posts)
        for _ in range(2):
            run(console, "e5", text_1="the same")
        assert len(server.posts) == before + 2


def test_words_are_shown_with_their_weights(console: ConsoleClient) -> None:
    with lookalike("tei", kind="sparse") as server:
        console.gateway.add("splade", url=server.url, task="sparse_embedding")
        page = run(
            console, "splade", text_1="one two three four", text_2=" ".join(f"w{n}" for n in range(20))
        )
    assert "1003 1.000" in page.words
    assert "5 more words with lower weights" in page.words


def test_texts_are_ranked_by_relevance(console: ConsoleClient) -> None:
    with lookalike("tei", kind="reranker") as server:
        console.gateway.add("ranks", url=server.url, task="rerank")
        page = run(
            console, "ranks", query="red fox", text_1="a dog", text_2="the red fox", text_3="a red car"
        )
        assert re.findall(r'<span dir="auto">([^<]+)</span>', page.text) == [
            "the red fox",
            "a red car",
            "a dog",
        ]
        assert re.findall(r'class="part" width="([\d.]+)"', page.text) == ["99.0", "50.0", "1.0"]
        raw = run(console, "ranks", query="red fox", text_1="a dog", text_2="the red fox", raw_scores="1")
        assert "-4.5951" in raw.words


@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("fake", {}, "No text was given."),
        ("fake", {"text_1": "x" * 100_001}, "more than 100000 characters"),
        ("fake", {"text_1": "a", "dimensions": "0"}, "“Dimensions” must be a whole number from 1 to 65536."),
        ("ranks", {"text_1": "a"}, "[query] is empty."),
        ("chats", {"prompt": "a"}, "which is streamed"),
    ],
)
def test_invalid_input_is_an_error_in_place_of_the_result(
    console: ConsoleClient, chat: LookAlike, name: str, form: dict[str, str], words: str
) -> None:
    with lookalike("tei", kind="reranker") as server:
        console.gateway.add("fake")
        console.gateway.add("ranks", url=server.url, task="rerank")
        console.gateway.add("chats", url=chat.url, task="chat_completion")
        page = run(console, name, **form)
    assert page.status == 400
    assert words in page.words


def test_an_error_of_the_model_is_translated_and_counted(console: ConsoleClient) -> None:
    with lookalike("tei") as server:
        console.gateway.add("e5", url=server.url)
        server.fail("paused")
        console.cookies["hubgate_language"] = "fa"
        page = run(console, "e5", text_1="a")
    assert page.status == 424
    assert "مکث" in page.words or "متوقف" in page.words
    (row,) = usage(console.gateway)
    assert (row["key"], row["errors"]) == ("console", 1)


def test_it_works_as_a_page_without_a_script(console: ConsoleClient) -> None:
    console.gateway.add("fake")
    page = console.post(
        "/ui/models/fake/play", {"text_1": "one <b>", "text_2": "two", "input_type": "ingest"}
    )
    assert "<!doctype html>" in page.text
    assert "one &lt;b&gt;</textarea>" in page.text
    assert '<option value="ingest" selected>' in page.text
    assert 'class="matrix"' in page.text


def test_a_chat_is_streamed_with_its_parameters(console: ConsoleClient, chat: LookAlike) -> None:
    console.gateway.add("chats", url=chat.url, task="chat_completion")
    before = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    events = streamed(
        console,
        "chats",
        system=" Be brief. ",
        messages=json.dumps(before),
        prompt="one\r\ntwo",
        temperature="0.5",
        max_tokens="4",
        seed="7",
        stop="END\r\n\\n\\n",
        repetition_penalty="1.1",
        top_p="",
    )
    asked = chat.posts[-1].json
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        *before,
        {"role": "user", "content": "one\ntwo"},
    ]
    parameters = {
        "temperature": 0.5,
        "max_tokens": 4,
        "seed": 7,
        "stop": ["END", "\n\n"],
        "repetition_penalty": 1.1,
    }
    assert {name: asked.get(name) for name in (*parameters, "top_p")} == {**parameters, "top_p": None}
    assert said(events) == "You said: one two"
    assert [*events[-1]] == ["end"]
    assert "2 in, 4 out" in events[-1]["end"]
    (row,) = usage(console.gateway)
    assert (row["key"], row["prompt_tokens"], row["completion_tokens"], row["errors"]) == ("console", 2, 4, 0)


def test_a_text_is_completed(console: ConsoleClient) -> None:
    with lookalike("tgi", kind="base") as server:
        console.gateway.add("writes", url=server.url, task="completion")
        page = console.get("/ui/models/writes/play")
        assert 'data-stream="text"' in page.text
        events = streamed(console, "writes", prompt="Once upon a time", max_tokens="3")
        assert said(events) == "You said: Once"
        assert "max tokens reached" in events[-1]["end"]
        assert server.posts[-1].path == "/generate_stream"


@pytest.mark.parametrize(
    ("fault", "words"), [("cut", "The connection was lost"), ("error-object", "The model’s server failed")]
)
def test_an_error_in_the_middle_of_a_stream_becomes_its_last_event(
    console: ConsoleClient, chat: LookAlike, fault: str, words: str
) -> None:
    console.gateway.add("chats", url=chat.url, task="chat_completion")
    chat.fail(fault)
    events = streamed(console, "chats", prompt="one two three")
    assert said(events) == "You"
    assert [*events[-1]] == ["failed"]
    assert words in events[-1]["failed"]
    chat.wait_until(lambda server: server.streams == 0)
    (row,) = usage(console.gateway)
    assert (row["requests"], row["errors"]) == (1, 1)


def test_an_error_before_the_first_token_has_a_status(console: ConsoleClient, chat: LookAlike) -> None:
    console.gateway.add("chats", url=chat.url, task="chat_completion", token="hf_one")
    chat.fail("wrong-token")
    page = console.post("/ui/models/chats/play/stream", {"prompt": "a"}, hx_request="true")
    assert page.status == 424
    assert "The token is wrong or was revoked" in page.words
    assert "<!doctype" not in page.text


def test_stopping_ends_the_stream_at_the_model(console: ConsoleClient, chat: LookAlike) -> None:
    console.gateway.add("chats", url=chat.url, task="chat_completion")
    chat.fail("stall")
    connection = http.client.HTTPConnection(urlsplit(console.gateway.url).netloc, timeout=240)
    cookies = "; ".join(f"{name}={value}" for name, value in console.cookies.items())
    form = urlencode({"csrf": console.csrf, "prompt": "one two three"})
    connection.request("POST", "/ui/models/chats/play/stream", form, {"cookie": cookies})
    response = connection.getresponse()
    assert b'"You"' in response.readline()
    assert chat.streams == 1
    response.close()
    connection.close()
    chat.wait_until(lambda server: server.streams == 0)
    (row,) = usage(console.gateway)
    assert (row["requests"], row["errors"], row["cancelled"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"prompt": "  "}, "[prompt] is empty."),
        ({"prompt": "a", "temperature": "3"}, "[temperature] must be a number from 0 to 2."),
        ({"prompt": "a", "temperature": "nan"}, "[temperature] must be a number from 0 to 2."),
        ({"prompt": "a", "max_tokens": "1.5"}, "[max_tokens] must be a whole number"),
        ({"prompt": "a", "stop": "a\nb\nc\nd\ne"}, "[stop] has 5 lines"),
        ({"prompt": "a", "messages": "["}, "The conversation cannot be parsed."),
        ({"prompt": "a", "messages": '[{"role":"system","content":"x"}]'}, "an unknown role"),
    ],
)
def test_an_invalid_message_is_rejected_with_the_reason(
    console: ConsoleClient, chat: LookAlike, form: dict[str, str], words: str
) -> None:
    console.gateway.add("chats", url=chat.url, task="chat_completion")
    page = console.post("/ui/models/chats/play/stream", form, hx_request="true")
    assert page.status == 400
    assert words in page.words


def test_a_model_that_does_not_generate_cannot_stream(console: ConsoleClient) -> None:
    console.gateway.add("fake")
    page = console.post("/ui/models/fake/play/stream", {"text_1": "a"}, hx_request="true")
    assert (page.status, "does not generate text" in page.words) == (400, True)


def test_the_playground_requires_a_session_and_a_csrf_token(gateway: RunningGateway) -> None:
    gateway.add("fake")
    stranger = ConsoleClient(gateway)
    assert stranger.get("/ui/models/fake/play").status == 303
    assert stranger.post("/ui/models/fake/play", {"text_1": "a"}).status == 303
    stranger.sign_in()
    stranger.csrf = "forged"
    assert stranger.post("/ui/models/fake/play", {"text_1": "a"}).status == 403
    assert usage(gateway) == []


def test_the_page_has_sample_texts_and_snippets(console: ConsoleClient) -> None:
    console.gateway.add("fake")
    page = console.get("/ui/models/fake/play")
    assert "How do I reset my password?</textarea>" in page.text
    assert f"curl -sS {console.gateway.url}/v1/embeddings" in page.words
    console.cookies["hubgate_language"] = "ja"
    assert "パスワードを再設定するには？</textarea>" in console.get("/ui/models/fake/play").text
    assert 'href="/ui/models/fake/play"' in console.get("/ui/models").text


def copied(console: ConsoleClient, name: str, **form: str) -> str:
    """The words of the part with the snippets."""
    return console.post(f"/ui/models/{name}/play/copy", form, hx_request="true").words


def test_the_selected_client_stays_selected_and_its_snippet_follows_the_form(
    console: ConsoleClient, chat: LookAlike
) -> None:
    console.gateway.add("fake")
    console.gateway.add("chats", url=chat.url, task="chat_completion")
    assert '"hello there"' in copied(console, "fake", text_1="hello there", **{"as": "openai"})
    assert "from openai import OpenAI" in copied(console, "fake", text_1="hello", **{"as": "openai"})
    assert "Fill in the form above" in copied(console, "fake")
    assert "API Base URL" in copied(console, "fake", text_1="a", **{"as": "dify"})
    assert "This address works on this machine only" in copied(
        console, "fake", text_1="a", **{"as": "kibana"}
    )
    was_said = '[{"role":"user","content":"first"},{"role":"assistant","content":"second"}]'
    last = copied(console, "chats", messages=was_said, prompt="", temperature="0.25")
    assert '"first"' in last
    assert '"second"' not in last
    assert '"temperature": 0.25' in last
    assert "Fill in the form above" in copied(console, "chats", prompt="")


def test_snippets_use_the_browsers_address_quoted(
    console: ConsoleClient,
) -> None:
    console.gateway.add("fake")
    path = "/ui/models/fake/play"
    assert "curl -sS http://gate.example:81/v1/" in console.get(path, host="gate.example:81").words
    assert "curl -sS http://[::1]:8080/v1/" in console.get(path, host="[::1]:8080").words.replace("'", "")
    for nonsense in ('a"onload=x', "a b", "host:port"):
        assert f"curl -sS {console.gateway.url}/v1/" in console.get(path, host=nonsense).words
    assert "curl -sS 'http://$(id)/v1/embeddings'" in console.get(path, host="$(id)").words


THOUGHTS = (
    {"delta": {"role": "assistant", "content": ""}},
    {"delta": {"reasoning": "Let me "}},
    {"delta": {"reasoning_content": "see."}},
    {"delta": {"content": "Yes"}},
    {"delta": {"content": "."}, "finish_reason": "stop"},
)


async def test_reasoning_is_separate_from_the_text(scripted: ScriptedGateway) -> None:
    await scripted.service.registry.register(
        Endpoint(name="thinks", task=Task.CHAT_COMPLETION, source=Source.FAKE), None
    )
    scripted.script.told = lambda _: (
        [json.dumps({"choices": [{"index": 0, **choice}]}).encode()] for choice in THOUGHTS
    )
    form = "application/x-www-form-urlencoded"
    door = await scripted.request("POST", "/ui/sign-in", f"key={ADMIN_KEY}".encode(), content_type=form)
    cookie = {"cookie": door.headers["set-cookie"].partition(";")[0], "host": "gate.example"}
    page = await scripted.request("GET", "/ui/models/thinks/play", more_headers=cookie)
    token = re.search(r'name="csrf" value="([^"]+)"', page.body.decode())
    assert token
    sent = urlencode({"csrf": token[1], "prompt": "Is it?"}).encode()
    reply = await scripted.request(
        "POST", "/ui/models/thinks/play/stream", sent, content_type=form, more_headers=cookie
    )
    *events, end = [
        json.loads(event.removeprefix("data: ")) for event in reply.body.decode().split("\n\n")[:-1]
    ]
    assert events == [{"reasoning": "Let me "}, {"reasoning": "see."}, {"text": "Yes"}, {"text": "."}]
    assert [*end] == ["end"]
    assert reply.parts == 5, "each piece is sent when it comes"
    assert scripted.script.streams[-1].closed == 1
