"""Every snippet for curl, Python and JavaScript runs against a gateway, with a key in place of the placeholder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from lookalikes import lookalike
from running_gateway import RunningGateway

from hubgate.domain.calls import Chat, Complete, Embed, Rerank, SparseEmbed
from hubgate.domain.endpoint import Endpoint, Facts, InputType, Source, Task
from hubgate.settings import Settings
from hubgate.web.console.playground.snippets import KEY, SnippetContext, snippets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.web.console.playground.snippets import PlaygroundCall

NASTY = 'It\'s "quoted" \\ $HOME `id` {{x}} ${x}\n\tJSON\nسلام 世界 🎈 </script> \u2028 end'
"""Characters that break out of strings, shells, templates and pages if they are not quoted."""
PARAMETERS = {
    "temperature": b"0.5",
    "top_p": b"0.9",
    "max_tokens": b"64",
    "stop": b'["XYZ","\\n\\n\\n"]',
    "seed": b"7",
    "top_k": b"40",
    "repetition_penalty": b"1.1",
}
SAID = [{"role": "system", "content": 'Be "brief".'}, {"role": "user", "content": NASTY}]
CALLS: dict[str, tuple[str, PlaygroundCall]] = {
    "documents": ("embeds", Embed(texts=[NASTY, "two"], input_type=InputType.INGEST)),
    "a query": ("embeds", Embed(texts=["one two three four"], input_type=InputType.SEARCH, dimensions=8)),
    "weights": ("weighs", SparseEmbed(texts=[NASTY, "two"])),
    "ranks": ("ranks", Rerank(query=NASTY, texts=["one", NASTY], raw_scores=True)),
    "a chat": ("chats", Chat(fields={"messages": msgspec.json.encode(SAID), **PARAMETERS})),
    "a text": ("writes", Complete(prompt=NASTY, fields=PARAMETERS)),
}
"""By name: the endpoint and the call."""
IN_THE_ANSWER = {
    "documents": "0.",
    "a query": "0.",
    "weights": "'1000': 0.25",
    "ranks": "1",
    "a chat": "said: It's",
    "a text": "said: It's",
}
RUNNER = """
import sys, json
for code in json.load(sys.stdin):
    exec(compile(code, "<snippet>", "exec"), {"__name__": "__main__"})
    print("\\n=====", flush=True)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with an endpoint of every task."""
    folder = tmp_path_factory.mktemp("copying")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with (
        lookalike("tei", kind="sparse") as weighs,
        lookalike("tei", kind="reranker") as ranks,
        lookalike("vllm", kind="llm") as chats,
        lookalike("tgi", kind="llm") as writes,
        RunningGateway(settings) as running,
    ):
        running.add("embeds", dimensions=8)
        running.add("weighs", url=weighs.url, task="sparse_embedding")
        running.add("ranks", url=ranks.url, task="rerank")
        running.add("chats", url=chats.url, task="chat_completion")
        running.add("writes", url=writes.url, task="completion")
        yield running


def written(gateway: RunningGateway, about: str) -> dict[str, str]:
    """The snippets of a call by their client, with a key where the placeholder was."""
    name, call = CALLS[about]
    context = SnippetContext(gateway.url, gateway.service.registry.find(name), call)
    return {one.name: one.code.replace(KEY, gateway.admin_key) for one in snippets(context)}


def run(command: list[str], given: str = "") -> str:
    """What a program printed; it must end well, and say nothing of errors."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("client", ["openai", "elasticsearch", "huggingface_hub", "langchain"])
def test_each_python_snippet_runs_and_prints_the_answer(gateway: RunningGateway, client: str) -> None:
    by_call = {about: code for about in CALLS if (code := written(gateway, about).get(client))}
    assert len(by_call) >= 4
    told = run([sys.executable, "-c", RUNNER], json.dumps(list(by_call.values()))).split("\n=====\n")
    for about, answer in zip(by_call, told, strict=False):
        assert IN_THE_ANSWER[about] in answer, (client, about, by_call[about])


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("about", CALLS)
def test_each_curl_command_runs_in_a_shell_and_prints_the_answer(gateway: RunningGateway, about: str) -> None:
    told = run(["sh", "-c", written(gateway, about)["curl"]])
    assert "error" not in told
    if about in {"a chat", "a text"}:
        pieces = [json.loads(line[6:])["choices"] for line in told.splitlines() if line.startswith("data: {")]
        said = [choice[0].get("delta", choice[0]) for choice in pieces if choice]
        assert "".join(part.get("content", part.get("text")) or "" for part in said).startswith(
            "You said: It's"
        )
    else:
        assert json.loads(told)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.parametrize("about", CALLS)
def test_each_fetch_runs_in_node_and_prints_the_answer(gateway: RunningGateway, about: str) -> None:
    told = run(["node", "--input-type=module", "-"], written(gateway, about)["fetch"])
    assert IN_THE_ANSWER[about] in told


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.parametrize("about", ["documents", "a query", "a chat", "a text"])
def test_each_huggingface_js_snippet_parses(gateway: RunningGateway, about: str) -> None:
    # The package is not there when tests run; with it the same snippets were run by hand.
    code = written(gateway, about)["huggingface_js"]
    assert run(["node", "--input-type=module", "--check", "-"], code) == ""


@pytest.mark.parametrize("about", [about for about in CALLS if about != "a query"])
def test_the_kibana_request_registers_the_gateway(gateway: RunningGateway, about: str) -> None:
    """The gateway stands in for Elasticsearch and calls itself as a Hugging Face server."""
    name, _ = CALLS[about]
    line, _, body = written(gateway, about)["kibana"].partition("\n")
    method, path = line.split(" ")
    assert (method, path.rpartition("/")[2]) == ("PUT", name)
    settings = json.loads(body)["service_settings"]
    if name in {"chats", "writes"}:
        # Elasticsearch asks the very URL, in OpenAI's words; the gateway would ask what it takes for a server's base.
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "a text"}]}
        assert gateway.request("POST", settings["url"].removeprefix(gateway.url), asked).status == 200
        return
    put = gateway.request(method, f"/{path}-as-elasticsearch", json.loads(body))
    assert put.status == 200, put.body
    asked = {"input": ["a text"]} | ({"query": "a"} if name == "ranks" else {})
    assert gateway.request("POST", f"/{path}-as-elasticsearch", asked).status == 200


def endpoint(task: Task, **facts: Any) -> Endpoint:
    """One that is not registered."""
    return Endpoint(name="e5", task=task, source=Source.FAKE, facts=Facts(**facts))


def fields(context: SnippetContext, *, chinese: bool = False) -> dict[str, str]:
    """What is to be typed into Dify."""
    return dict(next(one.fields for one in snippets(context, chinese=chinese) if one.name == "dify"))


def test_the_fields_for_dify_are_those_of_its_form() -> None:
    embeds = SnippetContext(
        "https://gate.example", endpoint(Task.TEXT_EMBEDDING, max_input_tokens=512), Embed(texts=["a"])
    )
    assert fields(embeds) == {
        "Model Type": "Text Embedding",
        "Model Name": "e5",
        "API Key": KEY,
        "API Base URL": "https://gate.example/v1",
        "Model context size": "512",
        "Model max chunks per batch": "32",
    }
    chats = SnippetContext(
        "https://gate.example", endpoint(Task.CHAT_COMPLETION), Chat(fields={"messages": b"[]"})
    )
    assert fields(chats)["Completion mode"] == "Chat"
    assert fields(chats, chinese=True)["对话类型"] == "对话"
    assert (
        fields(SnippetContext("https://g", endpoint(Task.RERANK), Rerank(query="a", texts=["b"])))[
            "Model Type"
        ]
        == "Rerank"
    )


def test_clients_without_the_call_have_no_snippet() -> None:
    sparse = SnippetContext("https://g", endpoint(Task.SPARSE_EMBEDDING), SparseEmbed(texts=["a"]))
    assert [one.name for one in snippets(sparse)] == ["curl", "elasticsearch", "fetch", "kibana"]
    text = SnippetContext(
        "https://g", endpoint(Task.CHAT_COMPLETION, chats=False), Complete(prompt="a", fields={})
    )
    assert {one.name for one in snippets(text)}.isdisjoint({"elasticsearch", "kibana"})


def test_the_input_type_is_a_suffix_of_the_model() -> None:
    for kind, name in ((InputType.SEARCH, "e5:query"), (InputType.INGEST, "e5:document"), (None, "e5")):
        assert (
            SnippetContext(
                "https://g", endpoint(Task.TEXT_EMBEDDING), Embed(texts=["a"], input_type=kind)
            ).model
            == name
        )


def test_elasticsearchs_client_gets_a_port() -> None:
    context = SnippetContext("https://gate.example", endpoint(Task.TEXT_EMBEDDING), Embed(texts=["a"]))
    assert 'Elasticsearch("https://gate.example:443"' in snippets(context)[2].code
    assert (
        'Elasticsearch("http://[::1]:8080"' in snippets(replace(context, gateway="http://[::1]:8080"))[2].code
    )


def test_no_text_can_end_the_here_document() -> None:
    context = SnippetContext(
        "https://g", endpoint(Task.TEXT_EMBEDDING), Embed(texts=["JSON", "\nJSON\n", "a\r\nJSON"])
    )
    assert len(re.findall("^JSON$", snippets(context)[0].code, re.MULTILINE)) == 1
