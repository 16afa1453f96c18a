"""Text generation on the Hugging Face face, as in text-generation-inference (TGI)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import (
    add_generator,
    fields_of,
    last_chat,
    last_completion,
    parse_events,
    tgi_events,
)

from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import CapacityError, QueueFull, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import GenerationCall
    from hubgate.domain.errors import HubgateError

MESSAGES = [{"role": "user", "content": "hi"}]
ELASTICSEARCH = {"user-agent": "Apache-HttpAsyncClient/4.1.5 (Java/25)"}
HUB = {"user-agent": "unknown/None; hf_hub/2.4.0; python/3.11.2"}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted, "llm", Task.COMPLETION)
    return scripted


def chunks(*pieces: tuple[str, str | None]) -> list[bytes]:
    return [
        json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": reason}]}).encode()
        for text, reason in pieces
    ]


@pytest.mark.parametrize("path", ["/hf/llm", "/hf/llm/", "/hf/llm/v1"])
async def test_the_base_url_returns_a_list_of_one_text(gateway: ScriptedGateway, path: str) -> None:
    reply = await gateway.request("POST", path, {"inputs": "say"})
    assert (reply.status, reply.json()) == (200, [{"generated_text": "hello"}])


async def test_generate_returns_details_only_on_request(
    gateway: ScriptedGateway,
) -> None:
    reply = await gateway.request("POST", "/hf/llm/generate", {"inputs": "say"})
    assert reply.json() == {"generated_text": "hello"}
    reply = await gateway.request(
        "POST", "/hf/llm/generate", {"inputs": "say", "parameters": {"details": True}}
    )
    assert reply.json()["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 1,
        "tokens": [],
        "prefill": [],
        "seed": None,
        "best_of_sequences": None,
    }


async def test_tgi_parameters_are_sent_to_tgi_unchanged(gateway: ScriptedGateway) -> None:
    body = b'{"generated_text":  "hello", "details":null}'
    gateway.script.written = lambda _: Generated(body=body, wire_format=WireFormat.TGI)
    reply = await gateway.request("POST", "/hf/llm/generate", {"inputs": "say"})
    assert reply.body == body
    gateway.script.told, gateway.script.wire_format = tgi_events, WireFormat.TGI
    joined = b"".join(
        payload for payloads in tgi_events(gateway.script.write_calls[-1]) for payload in payloads
    )
    reply = await gateway.request("POST", "/hf/llm/generate_stream", {"inputs": "say"})
    assert reply.body.replace(b"data:", b"").replace(b"\n\n", b"") == joined


async def test_parameters_are_sent_under_openais_names_without_nulls(
    gateway: ScriptedGateway,
) -> None:
    parameters = {
        "max_new_tokens": 20,
        "stop": ["a"],
        "top_n_tokens": 2,
        "do_sample": True,
        "typical_p": 0.9,
        "best_of": None,
        "seed": None,
        "details": True,
        "return_full_text": True,
        "decoder_input_details": None,
    }
    await gateway.request("POST", "/hf/llm", {"inputs": "say", "parameters": parameters, "stream": False})
    call = last_completion(gateway)
    assert (call.prompt, call.full_text) == ("say", True)
    expected = {"max_tokens": 20, "stop": ["a"], "logprobs": 2, "do_sample": True, "typical_p": 0.9}
    assert fields_of(call) == expected
    await gateway.request(
        "POST", "/hf/llm", {"inputs": "say", "parameters": None, "options": {"use_cache": False}}
    )
    assert not last_completion(gateway).full_text
    await gateway.request(
        "POST", "/hf/llm", {"inputs": "say", "model": "x", "parameters": {"stop_sequences": ["b"]}}
    )
    assert fields_of(last_completion(gateway)) == {"stop": ["b"]}


@pytest.mark.parametrize(("path", "more"), [("/hf/llm", {"stream": True}), ("/hf/llm/generate_stream", {})])
async def test_openai_chunks_become_one_tgi_event_per_token(
    gateway: ScriptedGateway, path: str, more: dict[str, Any]
) -> None:
    last = b'{"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}'
    gateway.script.told = lambda _: iter(
        [chunks(("hel", None), ("", None)), [*chunks(("lo", "length")), last]]
    )
    reply = await gateway.request("POST", path, {"inputs": "say", **more})
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.body.startswith(b"data:{")
    assert b"[DONE]" not in reply.body
    *parsed, end = parse_events(reply.body)
    nothing = {"generated_text": None, "details": None}
    assert parsed == [
        {"index": 1, "token": {"id": 0, "text": "hel", "logprob": 0.0, "special": False}, **nothing},
        {"index": 2, "token": {"id": 0, "text": "lo", "logprob": 0.0, "special": False}, **nothing},
    ]
    assert end["token"] == {"id": 0, "text": "", "logprob": 0.0, "special": True}
    assert end["generated_text"] == "hello"
    details = {"finish_reason": "length", "generated_tokens": 3, "input_length": 2, "seed": None}
    assert end["details"] == details


async def test_the_prompt_of_a_stream_is_only_in_the_full_text(gateway: ScriptedGateway) -> None:
    gateway.script.told = lambda _: iter([chunks(("say: hel", None)), chunks(("lo", "stop"))])
    body = {"inputs": "say: ", "parameters": {"return_full_text": True}}
    *parsed, end = parse_events((await gateway.request("POST", "/hf/llm/generate_stream", body)).body)
    assert [event["token"]["text"] for event in parsed] == ["hel", "lo"]
    assert end["generated_text"] == "say: hello"


async def test_a_broken_stream_ends_with_a_tgi_error(gateway: ScriptedGateway) -> None:
    def breaks_off(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        yield chunks(("hel", None))
        raise UpstreamUnreachable("The server broke off.")

    gateway.script.told = breaks_off
    reply = await gateway.request("POST", "/hf/llm", {"inputs": "say", "stream": True})
    first, last = parse_events(reply.body)
    assert first["token"]["text"] == "hel"
    assert last == {"error": "The server broke off.", "error_type": "generation"}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (QueueFull("Too many wait."), 429, "overloaded"),
        (CapacityError("No room."), 429, "overloaded"),
        (UpstreamUnreachable("It is gone.", retryable=False), 502, "generation"),
    ],
)
async def test_errors_have_tgis_types_and_are_never_a_503(
    gateway: ScriptedGateway, error: HubgateError, status: int, kind: str
) -> None:
    def fails(call: GenerationCall) -> Generated:
        raise error

    gateway.script.written = fails
    chat = "/hf/llm/v1/chat/completions"
    for path in ("/hf/llm", "/hf/llm/generate", chat):
        body = {"inputs": "say", "messages": []} if path == chat else {"inputs": "a"}
        reply = await gateway.request("POST", path, body, more_headers=HUB)
        assert (reply.status, reply.json()["error_type"]) == (status, kind), path
    reply = await gateway.request("POST", chat, {"messages": []})
    assert (reply.status, reply.json()["error"]["http_status_code"]) == (status, status)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "[inputs] must be a non-empty string"),
        ({"inputs": ""}, "[inputs] must be a non-empty string"),
        ({"inputs": ["a", "b"]}, "[inputs] must be a non-empty string"),
        ({"inputs": "a", "parameters": 3}, "[parameters] must be an object, not a number."),
        ({"inputs": "a", "parameters": {"details": 3}}, "[details] must be a boolean, not a number."),
        ({"inputs": "a", "temperature": 0.5}, "Put parameters into [parameters]"),
    ],
)
async def test_an_invalid_body_is_a_422_with_a_message(
    gateway: ScriptedGateway, body: object, expected: str
) -> None:
    reply = await gateway.request("POST", "/hf/llm", body)
    assert (reply.status, reply.json()["error_type"]) == (422, "validation")
    assert expected in reply.json()["error"]


@pytest.mark.parametrize("model", [None, "", "dummy", "tgi", "https://x.example/hf/llm", "org/model"])
async def test_any_model_name_selects_this_endpoint(gateway: ScriptedGateway, model: str | None) -> None:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 3}
    for path in ("/hf/llm", "/hf/llm/v1/chat/completions", "/hf/llm/chat/completions"):
        reply = await gateway.request("POST", path, body)
        assert reply.json()["choices"][0]["message"]["content"] == "hello"
        assert last_chat(gateway) == {"messages": MESSAGES, "max_tokens": 3}
    reply = await gateway.request("POST", "/hf/llm/v1/completions", {"model": model, "prompt": "a"})
    assert reply.json()["choices"][0]["text"] == "hello"


async def test_a_chat_is_streamed_with_done(gateway: ScriptedGateway) -> None:
    reply = await gateway.request(
        "POST", "/hf/llm/v1/chat/completions", {"messages": MESSAGES, "stream": True}
    )
    assert parse_events(reply.body)[-1] == "[DONE]"


@pytest.mark.parametrize("path", ["/hf/llm/v1/chat/completions", "/hf/llm", "/hf/llm/v1"])
async def test_chat_errors_are_tgis_for_hugging_face_clients_and_openais_for_others(
    gateway: ScriptedGateway, path: str
) -> None:
    theirs = await gateway.request("POST", path, {"messages": 3}, more_headers=HUB)
    assert (theirs.status, theirs.json()["error_type"]) == (422, "validation")
    for headers in ({}, ELASTICSEARCH):
        plain = await gateway.request("POST", path, {"messages": 3}, more_headers=headers)
        assert (plain.status, plain.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/hf/llm/v1/chat/completions", "/hf/llm", "/hf/llm/v1"])
async def test_elasticsearch_reads_every_error_of_a_chat(gateway: ScriptedGateway, path: str) -> None:
    """Errors are an object for `completion`, a string before a `chat_completion` stream and an object inside it."""

    def gone(call: GenerationCall) -> Any:
        raise UpstreamUnreachable("It is gone.", retryable=False)

    def broken(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        yield chunks(("hel", None))
        raise UpstreamUnreachable("It broke off.")

    gateway.script.written = gateway.script.told = gone

    async def asked(**more: object) -> Any:
        body = {"messages": MESSAGES, "n": 1, **more}
        return await gateway.request("POST", path, body, more_headers=ELASTICSEARCH)

    whole = (await asked(stream=False)).json()["error"]
    assert (whole["message"], whole["http_status_code"]) == ("It is gone.", 502)
    assert (await asked(stream=True)).json()["error"] == "It is gone."
    gateway.script.told = broken
    error = parse_events((await asked(stream=True)).body)[-1]["error"]
    assert (error["message"], error["http_status_code"]) == ("It broke off.", 502)


async def test_a_generate_request_to_an_embedding_endpoint_is_an_error_with_its_task(
    gateway: ScriptedGateway,
) -> None:
    for body in (
        {"inputs": "say", "stream": True},
        {"inputs": "say", "parameters": {"max_new_tokens": 5}},
        {"inputs": "say", "temperature": 0.5},
    ):
        reply = await gateway.request("POST", "/hf/e5", body)
        assert reply.status == 400
        assert reply.json()["error"].startswith("Endpoint [e5] serves text_embedding, not completion.")
    reply = await gateway.request("POST", "/hf/e5", {"inputs": "say", "parameters": {"odd": 1}})
    assert "Unknown field [odd]" in reply.json()["error"]


async def test_bare_generation_routes_use_the_default_endpoint_of_the_key(gateway: ScriptedGateway) -> None:
    _, key = await gateway.access.create("app", default_endpoint="llm")
    for path in ("/", "/generate"):
        reply = await gateway.request("POST", path, {"inputs": "say"}, key=key)
        assert "hello" in reply.body.decode()
    reply = await gateway.request("POST", "/generate_stream", {"inputs": "say"}, key=key)
    assert parse_events(reply.body)[-1]["generated_text"] == "hello"


async def test_info_of_a_generation_endpoint_is_tgis(gateway: ScriptedGateway) -> None:
    info = (await gateway.request("GET", "/hf/llm/info")).json()
    assert (info["router"], info["model_id"], info["max_input_tokens"]) == (
        "text-generation-router",
        "org/model",
        256,
    )
    assert "model_type" not in info


async def test_models_of_an_endpoint_url_lists_only_the_endpoint(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("GET", "/hf/llm/v1/models")
    assert [model["id"] for model in reply.json()["data"]] == ["llm"]


async def test_chat_or_rerank_on_an_embedding_endpoint_is_an_error_with_its_task(
    gateway: ScriptedGateway,
) -> None:
    for body, task in (
        ({"messages": MESSAGES}, "chat_completion"),
        ({"query": "a", "texts": ["b"]}, "rerank"),
    ):
        reply = await gateway.request("POST", "/hf/e5", body)
        assert reply.status == 400
        assert reply.json()["error"].startswith(f"Endpoint [e5] serves text_embedding, not {task}.")
    compared = {"inputs": {"source_sentence": "a", "sentences": ["b"]}}
    reply = await gateway.request("POST", "/hf/llm", compared)
    assert reply.json()["error"].startswith("Endpoint [llm] serves completion, not text_embedding.")
