"""Chats of web/cohere/CONTRACT.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add_generator, last_chat

from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.errors import Cause, QueueFull, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import GenerationCall

MESSAGES = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
COUNTED = {"input_tokens": 3, "output_tokens": 2}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted)
    return scripted


async def chat(gateway: ScriptedGateway, version: int = 2, **more: Any) -> Any:
    text = {"messages": MESSAGES} if version == 2 else {"message": "hi"}
    reply = await gateway.request("POST", f"/v{version}/chat", {"model": "llm", **text, **more})
    assert reply.status == 200, reply.body
    return reply.json()


def replying(message: dict[str, Any], reason: str = "stop", **more: Any) -> Any:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": reason}], **more}
    return lambda _: Generated(body=json.dumps(body).encode(), wire_format=WireFormat.OPENAI, tokens=5)


def streaming(*deltas: dict[str, Any], reason: str | None = "stop", usage: Any = USAGE) -> Any:
    def events(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        for delta in deltas:
            yield [json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()]
        yield [
            json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).encode(),
            json.dumps({"choices": [], "usage": usage}).encode(),
        ]

    return events


async def stream(gateway: ScriptedGateway, **more: Any) -> list[dict[str, Any]]:
    body = {"model": "llm", "messages": MESSAGES, "stream": True, **more}
    reply = await gateway.request("POST", "/v2/chat", body)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    *events, rest = reply.body.decode().split("\n\n")
    assert rest == ""
    parsed = []
    for event in events:
        name, data = event.split("\n")
        parsed.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {parsed[-1]['type']}"
    return parsed


async def test_a_chat_has_coheres_message_and_usage(gateway: ScriptedGateway) -> None:
    gateway.script.written = replying({"role": "assistant", "content": "hello"}, usage=USAGE)
    reply = await chat(gateway)
    assert reply["message"] == {"role": "assistant", "content": [{"type": "text", "text": "hello"}]}
    assert reply["finish_reason"] == "COMPLETE"
    assert reply["usage"] == {"billed_units": COUNTED, "tokens": COUNTED}


async def test_version_1_has_the_text_and_the_usage(gateway: ScriptedGateway) -> None:
    gateway.script.written = replying({"role": "assistant", "content": "hello"}, "length", usage=USAGE)
    reply = await chat(gateway, 1)
    assert (reply["text"], reply["finish_reason"]) == ("hello", "MAX_TOKENS")
    assert reply["meta"] == {"api_version": {"version": "1"}, "billed_units": COUNTED, "tokens": COUNTED}


async def test_usage_that_the_engine_does_not_count_is_estimated_and_marked(gateway: ScriptedGateway) -> None:
    gateway.script.written = replying({"role": "assistant", "content": "hello"})
    usage = (await chat(gateway))["usage"]
    assert usage["estimated"] is True
    assert usage["tokens"]["input_tokens"] > 0
    assert usage["tokens"]["output_tokens"] > 0


async def test_white_space_and_escapes_do_not_change_the_estimate(gateway: ScriptedGateway) -> None:
    gateway.script.written = replying({"role": "assistant", "content": "hello"})
    messages = [{"role": "user", "content": "Wörter über Wörter"}]
    compact = json.dumps({"model": "llm", "messages": messages}, separators=(",", ":"), ensure_ascii=False)
    spaced = json.dumps({"model": "llm", "messages": messages}, indent=4)
    one, other = [await gateway.request("POST", "/v2/chat", body.encode()) for body in (compact, spaced)]
    assert one.json()["usage"] == other.json()["usage"]


async def test_tool_calls_and_reasoning_are_coheres(gateway: ScriptedGateway) -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": {"b": 2}}},
    ]
    gateway.script.written = replying(
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls}, usage=USAGE
    )
    reply = await chat(gateway, tools=[{"type": "function", "function": {"name": "f"}}])
    assert reply["finish_reason"] == "TOOL_CALL"
    assert reply["message"]["content"] == [{"type": "thinking", "thinking": "hm"}]
    functions = [call["function"] for call in reply["message"]["tool_calls"]]
    assert functions == [{"name": "f", "arguments": '{"a":1}'}, {"name": "g", "arguments": '{"b": 2}'}]


async def test_parameters_have_openais_names_at_the_engine(gateway: ScriptedGateway) -> None:
    schema = {"type": "object", "properties": {}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    await chat(
        gateway,
        p=0.5,
        k=3,
        stop_sequences=["x"],
        max_tokens=9,
        temperature=0.25,
        seed=1,
        tools=tools,
        strict_tools=True,
        tool_choice="REQUIRED",
        response_format={"type": "json_object", "json_schema": schema},
        safety_mode="CONTEXTUAL",
        citation_options={"mode": "OFF"},
        documents=[],
        chat_template_kwargs={"enable_thinking": False},
        stream=False,
    )
    assert last_chat(gateway) == {
        "messages": MESSAGES,
        "top_p": 0.5,
        "top_k": 3,
        "stop": ["x"],
        "max_tokens": 9,
        "temperature": 0.25,
        "seed": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}],
        "tool_choice": "required",
        "response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}},
        "chat_template_kwargs": {"enable_thinking": False},
    }


@pytest.mark.parametrize(
    ("given", "sent"),
    [({"type": "text"}, None), ({"type": "json_object"}, {"type": "json_object"})],
)
async def test_a_response_format_without_a_schema(gateway: ScriptedGateway, given: Any, sent: Any) -> None:
    await chat(gateway, response_format=given, k=0)
    assert last_chat(gateway).get("response_format") == sent
    assert "top_k" not in last_chat(gateway)


async def test_messages_have_openais_content_at_the_engine(gateway: ScriptedGateway) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    await chat(
        gateway,
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": [{"type": "text", "text": "c"}, image]},
            {"role": "assistant", "tool_plan": "I will call f.", "tool_calls": [call]},
            {
                "role": "tool",
                "tool_call_id": "c",
                "content": [
                    {"type": "document", "document": {"data": "d"}},
                    {"type": "document", "document": {"data": {"e": 1}}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "f"}],
                "citations": [],
            },
        ],
    )
    assert last_chat(gateway)["messages"] == [
        {"role": "system", "content": "ab"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, image]},
        {"role": "assistant", "content": "I will call f.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": 'd{"e":1}'},
        {"role": "assistant", "content": "f"},
    ]


async def test_messages_of_role_and_text_reach_the_engine_as_they_came(gateway: ScriptedGateway) -> None:
    messages = b'[ {"content": "h\\u00f6", "role": "system"},\n {"role": "user", "content": ""} ]'
    reply = await gateway.request("POST", "/v2/chat", b'{"model":"llm","messages":' + messages + b"}")
    assert reply.status == 200
    assert gateway.script.write_calls[-1].fields == {"messages": messages}


async def test_history_and_preamble_of_version_1_are_messages(gateway: ScriptedGateway) -> None:
    history = [
        {"role": "USER", "message": "a"},
        {"role": "CHATBOT", "message": "b"},
        {"role": "SYSTEM", "message": "c"},
    ]
    await chat(gateway, 1, chat_history=history, preamble="Be brief.", prompt_truncation="AUTO")
    assert last_chat(gateway) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "c"},
            {"role": "user", "content": "hi"},
        ]
    }


async def test_a_stream_has_coheres_events(gateway: ScriptedGateway) -> None:
    gateway.script.told = streaming({"reasoning": "hm"}, {"content": "hel"}, {"content": "lo"})
    events = await stream(gateway)
    assert [event["type"] for event in events] == [
        "message-start",
        *("content-start", "content-delta", "content-end"),
        *("content-start", "content-delta", "content-delta", "content-end"),
        "message-end",
    ]
    assert [event["index"] for event in events[1:-1]] == [0, 0, 0, 1, 1, 1, 1]
    content = [event["delta"]["message"]["content"] for event in events if event["type"] == "content-delta"]
    assert content == [{"thinking": "hm"}, {"text": "hel"}, {"text": "lo"}]
    usage = {"billed_units": COUNTED, "tokens": COUNTED}
    assert events[-1]["delta"] == {"finish_reason": "COMPLETE", "usage": usage}


async def test_a_stream_has_an_event_for_each_part_of_a_tool_call(gateway: ScriptedGateway) -> None:
    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {
            "tool_calls": [
                {"index": index, "function": {"arguments": arguments, **more.pop("f", {})}, **more}
            ]
        }

    gateway.script.told = streaming(
        call(0, "", id="c1", f={"name": "f"}),
        call(0, '{"a"'),
        call(0, ":1}"),
        call(1, "{}", id="c2", f={"name": "g"}),
        reason="tool_calls",
    )
    events = await stream(gateway)
    assert [event["type"] for event in events[1:-1]] == [
        *("tool-call-start", "tool-call-delta", "tool-call-delta", "tool-call-end"),
        *("tool-call-start", "tool-call-end"),
    ]
    started = events[1]["delta"]["message"]["tool_calls"]
    assert started == {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert events[5]["delta"]["message"]["tool_calls"]["function"] == {"name": "g", "arguments": "{}"}
    assert events[-1]["delta"]["finish_reason"] == "TOOL_CALL"


async def test_whole_tool_calls_without_an_index_are_separate_calls(gateway: ScriptedGateway) -> None:
    """As some engines send them: each in one chunk."""
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    gateway.script.told = streaming({"tool_calls": calls[:1]}, {"tool_calls": calls[1:]})
    events = await stream(gateway)
    assert [event["type"] for event in events[1:-1]] == ["tool-call-start", "tool-call-end"] * 2


async def test_an_empty_stream_still_has_a_start_and_an_end(gateway: ScriptedGateway) -> None:
    gateway.script.told = lambda _: iter(())
    assert [event["type"] for event in await stream(gateway)] == ["message-start", "message-end"]


def breaks_off(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    yield [b'{"choices":[{"index":0,"delta":{"content":"hel"}}]}']
    raise UpstreamUnreachable("The server broke off.", remedy="Ask again.")


async def test_a_broken_stream_ends_with_an_error_reason(gateway: ScriptedGateway) -> None:
    gateway.script.told = breaks_off
    *events, last = await stream(gateway)
    assert [event["type"] for event in events][-1] == "content-end"
    assert last["delta"] == {"finish_reason": "ERROR", "error": "The server broke off. Ask again."}


async def test_a_stream_that_fails_before_its_first_byte_has_an_error_status(
    gateway: ScriptedGateway,
) -> None:
    def full(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        if call.fields:
            raise QueueFull("The queue is full.")
        yield []

    gateway.script.told = full
    reply = await gateway.request("POST", "/v2/chat", {"model": "llm", "messages": MESSAGES, "stream": True})
    assert (reply.status, reply.json()["code"]) == (429, Cause.QUEUE_FULL)


async def stream_v1(gateway: ScriptedGateway) -> list[dict[str, Any]]:
    reply = await gateway.request("POST", "/v1/chat", {"model": "llm", "message": "hi", "stream": True})
    assert reply.headers["content-type"] == "application/stream+json"
    return [json.loads(line) for line in reply.body.splitlines()]


async def test_a_stream_of_version_1_has_lines_of_json(gateway: ScriptedGateway) -> None:
    gateway.script.told = streaming({"reasoning": "hm"}, {"content": "hel"}, {"content": "lo"})
    start, *texts, end = await stream_v1(gateway)
    assert (start["event_type"], start["is_finished"]) == ("stream-start", False)
    assert [event["text"] for event in texts] == ["hel", "lo"]
    assert (end["event_type"], end["finish_reason"], end["is_finished"]) == ("stream-end", "COMPLETE", True)
    assert end["response"]["text"] == "hello"
    assert end["response"]["meta"]["billed_units"] == COUNTED


async def test_a_broken_stream_of_version_1_ends_with_an_error_reason(gateway: ScriptedGateway) -> None:
    gateway.script.told = breaks_off
    end = (await stream_v1(gateway))[-1]
    assert (end["finish_reason"], end["error"]) == ("ERROR", "The server broke off. Ask again.")
    assert end["response"]["finish_reason"] == "ERROR"


@pytest.mark.parametrize(
    ("version", "change", "expected"),
    [
        (2, {"messages": []}, "[messages] must be a list of messages"),
        (2, {"messages": "hi"}, "[messages]"),
        (2, {"documents": ["a"]}, "[documents] is not supported here. Put their text into a message."),
        (2, {"thinking": {"type": "enabled"}}, "[thinking] is not supported"),
        (2, {"safety_mode": "STRICT"}, "[safety_mode] cannot be STRICT"),
        (2, {"tool_choice": "auto"}, "[tool_choice]"),
        (2, {"response_format": {"type": "xml"}}, "[response_format"),
        (1, {"message": ""}, "[message] is required"),
        (1, {"tools": [{"name": "f"}]}, "Use /v2/chat"),
        (1, {"chat_history": [{"role": "TOOL"}]}, "[chat_history"),
        (1, {"conversation_id": "x"}, "hubgate stores none"),
        (1, {"connectors": [{"id": "web-search"}]}, "[connectors] is not supported"),
        (2, {"model": "e5"}, "text_embedding"),
    ],
)
async def test_an_invalid_chat_is_a_400_with_a_message(
    gateway: ScriptedGateway, version: int, change: dict[str, Any], expected: str
) -> None:
    text = {"messages": MESSAGES} if version == 2 else {"message": "hi"}
    reply = await gateway.request("POST", f"/v{version}/chat", {"model": "llm", **text, **change})
    assert reply.status == 400
    assert expected in reply.json()["message"]
    assert gateway.script.write_calls == []
