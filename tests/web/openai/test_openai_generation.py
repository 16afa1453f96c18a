"""Text generation on the OpenAI face: chat and text completions, with and without streaming."""

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
    tgi_reply,
)

from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import Cause, QueueFull, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import GenerationCall

MESSAGES = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted)
    return scripted


def breaks_off(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    yield [b'{"choices":[{"index":0,"delta":{"content":"hel"}}]}']
    raise UpstreamUnreachable("The server broke off.", remedy="Ask again.")


def with_usage(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    yield [
        b'{"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}',
        json.dumps({"choices": [], "usage": USAGE}).encode(),
    ]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_a_chat_response_has_the_bytes_of_the_engine(gateway: ScriptedGateway, path: str) -> None:
    body = b'{"id": "x",  "choices": [{"message": {"content": "\\u00e4"}}], "kv": null}'
    gateway.script.written = lambda _: Generated(body=body, wire_format=WireFormat.OPENAI, tokens=7)
    reply = await gateway.request("POST", path, {"model": "llm", "messages": MESSAGES})
    assert (reply.status, reply.body) == (200, body)


async def test_every_field_is_sent_to_the_engine_unchanged(gateway: ScriptedGateway) -> None:
    fields: dict[str, Any] = {
        "messages": MESSAGES,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "response_format": {"type": "json_object"},
        "stop": ["a", "b"],
        "seed": 1,
        "logprobs": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", **fields, "stream": False, "user": None}
    )
    assert reply.status == 200
    assert last_chat(gateway) == fields


async def test_numbers_are_sent_to_the_engine_with_the_same_digits(gateway: ScriptedGateway) -> None:
    body = b'{"model":"llm","messages":[],"seed":12345678901234567890123,"temperature":0.10}'
    await gateway.request("POST", "/v1/chat/completions", body)
    fields = gateway.script.write_calls[-1].fields
    assert (fields["seed"], fields["temperature"]) == (b"12345678901234567890123", b"0.10")


async def test_a_chat_is_streamed_unchanged_and_ends_with_done(gateway: ScriptedGateway) -> None:
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", "messages": MESSAGES, "stream": True}
    )
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream"
    assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == ("no-cache", "no")
    *chunks, done = parse_events(reply.body)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "hello"
    assert "stream" not in last_chat(gateway)
    assert gateway.script.streams[-1].closed == 1


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_ends_a_stream_only_on_request(gateway: ScriptedGateway, wanted: bool) -> None:
    gateway.script.told = with_usage
    body = {"model": "llm", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": wanted}}
    reply = await gateway.request("POST", "/v1/chat/completions", body)
    usages = [event["usage"] for event in parse_events(reply.body)[:-1] if event.get("usage")]
    assert usages == ([USAGE] if wanted else [])
    assert "".join(gateway.meter.lines()).count('hubgate_tokens_total{endpoint="llm"} 5.0') == 1


async def test_chunks_that_arrive_together_are_sent_together_as_whole_events(
    gateway: ScriptedGateway,
) -> None:
    gateway.script.told = lambda _: iter([[b'{"choices":[],\n"a":1}', b'{"choices":[],\r\n"a":2}']])
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", "messages": MESSAGES, "stream": True}
    )
    assert [event["a"] for event in parse_events(reply.body)[:-1]] == [1, 2]
    assert reply.parts == 2


async def test_a_broken_stream_ends_with_an_openai_error_and_without_done(
    gateway: ScriptedGateway,
) -> None:
    gateway.script.told = breaks_off
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", "messages": MESSAGES, "stream": True}
    )
    first, last = parse_events(reply.body)
    assert first["choices"][0]["delta"]["content"] == "hel"
    assert last["error"]["message"] == "The server broke off. Ask again."
    assert last["error"]["code"] == Cause.CONNECTION_LOST
    assert gateway.script.streams[-1].closed == 1
    assert f'cause="{Cause.CONNECTION_LOST}",endpoint="llm"' in "".join(gateway.meter.lines())


async def test_a_stream_that_fails_before_its_first_byte_has_an_error_status(
    gateway: ScriptedGateway,
) -> None:
    def fails(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        raise QueueFull("Too many wait.", retry_after=2.0)

    gateway.script.told = lambda call: (payloads for _ in "x" for payloads in fails(call))
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", "messages": MESSAGES, "stream": True}
    )
    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    assert reply.json()["error"]["type"] == "rate_limit_error"
    assert gateway.script.streams[-1].closed == 1


async def test_an_empty_stream_is_only_done(gateway: ScriptedGateway) -> None:
    gateway.script.told = lambda _: iter(())
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", "messages": MESSAGES, "stream": True}
    )
    assert parse_events(reply.body) == ["[DONE]"]


async def test_a_stream_that_cannot_be_parsed_ends_with_an_error(gateway: ScriptedGateway) -> None:
    gateway.script.told = lambda _: iter([[b'{"usage": 1}']])
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "llm", "messages": MESSAGES, "stream": True}
    )
    (last,) = parse_events(reply.body)
    assert last["error"]["code"] == Cause.UNREADABLE_REPLY


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": MESSAGES}, "[model] is required"),
        ({"model": 5, "messages": MESSAGES}, "[model] must be a string, not a number."),
        ({"model": "llm"}, "[messages] must be a list"),
        ({"model": "llm", "messages": "hi"}, "[messages] must be a list"),
        (
            {"model": "llm", "messages": MESSAGES, "stream": "yes"},
            "[stream] must be a boolean, not a string.",
        ),
        (b"{", "not valid JSON"),
        (b'{"model": "\xff"}', "[model] is not valid UTF-8."),
        (b"[]", "must be an object, not an array."),
    ],
)
async def test_an_invalid_chat_is_a_400_with_a_message(
    gateway: ScriptedGateway, body: object, expected: str
) -> None:
    reply = await gateway.request("POST", "/v1/chat/completions", body)
    assert reply.status == 400
    assert expected in reply.json()["error"]["message"]
    assert not gateway.script.write_calls


async def test_a_chat_with_an_embedding_model_is_an_error_with_its_task(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/v1/chat/completions", {"model": "e5", "messages": MESSAGES})
    assert (reply.status, reply.json()["error"]["code"]) == (400, "wrong_task")


async def test_a_chat_is_not_sent_to_a_model_without_a_chat_template(gateway: ScriptedGateway) -> None:
    await add_generator(gateway, "base", Task.COMPLETION, chats=False)
    reply = await gateway.request("POST", "/v1/chat/completions", {"model": "base", "messages": MESSAGES})
    assert reply.status == 400
    assert "no chat template" in reply.json()["error"]["message"]
    await add_generator(gateway, "talker", Task.CHAT_COMPLETION, chats=True, completes=False)
    reply = await gateway.request("POST", "/v1/completions", {"model": "talker", "prompt": "a"})
    assert reply.status == 400
    assert "serves conversations, not completion. Send [messages]" in reply.json()["error"]["message"]
    assert not gateway.script.write_calls


@pytest.mark.parametrize("path", ["/v1/completions", "/completions"])
async def test_a_completion_has_openais_shape_for_every_engine(gateway: ScriptedGateway, path: str) -> None:
    body = {"model": "llm", "prompt": "say", "max_tokens": 3, "stop": ["x"]}
    own = (await gateway.request("POST", path, body)).json()
    gateway.script.written = tgi_reply
    made = (await gateway.request("POST", path, body)).json()
    call = last_completion(gateway)
    assert (call.prompt, fields_of(call), call.full_text) == ("say", {"max_tokens": 3, "stop": ["x"]}, False)
    assert own["choices"] == [{"index": 0, "text": "hello", "finish_reason": "stop"}]
    assert made["choices"] == [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}]
    assert made["object"] == own["object"] == "text_completion"
    assert made["usage"] == own["usage"]
    assert made["model"] == "llm"


async def test_several_prompts_are_several_calls_and_one_response(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/v1/completions", {"model": "llm", "prompt": ["a", "b", "c"]})
    result = reply.json()
    assert [choice["index"] for choice in result["choices"]] == [0, 1, 2]
    assert result["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    assert len(gateway.script.write_calls) == 3


async def test_a_failure_of_one_of_several_prompts_is_returned(gateway: ScriptedGateway) -> None:
    def fails(call: GenerationCall) -> Generated:
        raise QueueFull("Too many wait.")

    gateway.script.written = fails
    reply = await gateway.request("POST", "/v1/completions", {"model": "llm", "prompt": ["a", "b"]})
    assert (reply.status, reply.json()["error"]["message"]) == (429, "Too many wait.")


async def test_echo_returns_the_prompt_before_the_text(gateway: ScriptedGateway) -> None:
    await gateway.request("POST", "/v1/completions", {"model": "llm", "prompt": "a", "echo": True})
    call = last_completion(gateway)
    assert call.full_text
    assert not call.fields


async def test_a_stream_of_events_becomes_openais_chunks(gateway: ScriptedGateway) -> None:
    gateway.script.told, gateway.script.wire_format = tgi_events, WireFormat.TGI
    body = {
        "model": "llm",
        "prompt": "say ",
        "stream": True,
        "echo": True,
        "stream_options": {"include_usage": True},
    }
    reply = await gateway.request("POST", "/v1/completions", body)
    *chunks, usage, done = parse_events(reply.body)
    texts = [(chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) for chunk in chunks]
    assert texts == [("say hel", None), ("lo", None), ("", "stop")]
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 5, "[DONE]")
    assert {chunk["object"] for chunk in (*chunks, usage)} == {"text_completion"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "[prompt] is required"),
        ({"prompt": 3}, "[prompt] must be a string"),
        ({"prompt": [1, 2]}, "token ids"),
        ({"prompt": ["a", "b"], "stream": True}, "a stream can have only one"),
    ],
)
async def test_an_invalid_prompt_is_a_400_with_a_message(
    gateway: ScriptedGateway, body: dict[str, Any], expected: str
) -> None:
    reply = await gateway.request("POST", "/v1/completions", {"model": "llm", **body})
    assert reply.status == 400
    assert expected in reply.json()["error"]["message"]


async def test_a_generic_model_name_selects_the_default_endpoint_of_the_key(gateway: ScriptedGateway) -> None:
    _, key = await gateway.access.create("app", default_endpoint="llm")
    for model in (None, "", "dummy", "tgi", "https://gate.example/x"):
        reply = await gateway.request(
            "POST", "/v1/chat/completions", {"model": model, "messages": MESSAGES}, key=key
        )
        assert reply.status == 200, model
    reply = await gateway.request(
        "POST", "/v1/chat/completions", {"model": "other", "messages": MESSAGES}, key=key
    )
    assert reply.status == 404
