"""Requests to OpenAI's Responses API, as the chats that they become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add, add_generator, last_chat
from openai.types.responses import Response

from hubgate.domain.calls import Chat, Generated, WireFormat
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import Cause

if TYPE_CHECKING:
    from scripted_gateway import Reply, ScriptedGateway

PATHS = ["/v1/responses", "/responses", "/hf/llm/v1/responses", "/hf/llm/responses"]
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CHAT_TOOL = {"type": "function", "function": {key: value for key, value in TOOL.items() if key != "type"}}
SCHEMA = {"type": "object", "properties": {"a": {"const": 1.10}}}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted)
    return scripted


async def create(gateway: ScriptedGateway, **fields: Any) -> Reply:
    return await gateway.request("POST", "/v1/responses", {"model": "llm", "input": "hi", **fields})


async def chat_of(gateway: ScriptedGateway, **fields: Any) -> dict[str, Any]:
    """The chat that a request becomes."""
    reply = await create(gateway, **fields)
    assert reply.status == 200, reply.body
    return last_chat(gateway)


async def messages_of(gateway: ScriptedGateway, *items: dict[str, Any], **fields: Any) -> Any:
    return (await chat_of(gateway, input=items, **fields))["messages"]


def replying(message: dict[str, Any], reason: str = "stop", **fields: Any) -> Any:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": reason}], **fields}
    return lambda _: Generated(body=json.dumps(body).encode(), wire_format=WireFormat.OPENAI)


@pytest.mark.parametrize("path", PATHS)
async def test_a_response_has_openais_shape_on_every_route(gateway: ScriptedGateway, path: str) -> None:
    reply = await gateway.request("POST", path, {"model": "llm", "input": "hi"})
    assert reply.status == 200
    response = Response.model_validate_json(reply.body)
    assert (response.output_text, response.status, response.model) == ("hello", "completed", "llm")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (
        3,
        1,
        4,
    )
    assert (reply.json()["store"], reply.json()["previous_response_id"]) == (False, None)
    assert last_chat(gateway) == {"messages": [{"role": "user", "content": "hi"}]}


async def test_a_response_repeats_the_fields_of_its_request(gateway: ScriptedGateway) -> None:
    fields = {
        "instructions": "be brief",
        "max_output_tokens": 9,
        "metadata": {"run": "7"},
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_object"}},
    }
    reply = (await create(gateway, **fields)).json()
    assert {name: reply[name] for name in fields} == fields


async def test_parameters_get_the_names_that_they_have_in_a_chat(gateway: ScriptedGateway) -> None:
    chat = await chat_of(
        gateway,
        instructions="be brief",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low"},
    )
    assert chat == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "verbosity": "low",
    }


async def test_fields_of_a_response_prevail_over_those_of_a_chat(gateway: ScriptedGateway) -> None:
    chat = await chat_of(
        gateway, max_output_tokens=9, max_tokens=5, reasoning={"effort": "low"}, reasoning_effort="high"
    )
    assert (chat["max_tokens"], chat["reasoning_effort"]) == (9, "low")


async def test_fields_of_openais_services_have_no_effect(gateway: ScriptedGateway) -> None:
    chat = await chat_of(
        gateway,
        store=True,
        metadata={"a": "b"},
        include=["reasoning.encrypted_content"],
        truncation="auto",
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        max_tool_calls=3,
        background=False,
        stream_options={"include_obfuscation": False},
        text={"format": {"type": "text"}},
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        previous_response_id=None,
    )
    assert chat == {"messages": [{"role": "user", "content": "hi"}]}


async def test_unknown_fields_are_sent_to_the_engine_unchanged(gateway: ScriptedGateway) -> None:
    chat = await chat_of(gateway, top_k=40, chat_template_kwargs={"enable_thinking": False}, user="u")
    assert {name: chat[name] for name in chat if name != "messages"} == {
        "top_k": 40,
        "chat_template_kwargs": {"enable_thinking": False},
        "user": "u",
    }


async def test_items_become_messages(gateway: ScriptedGateway) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    messages = await messages_of(
        gateway,
        {"role": "developer", "content": "no lists"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "two", "annotations": []},
                {"type": "refusal", "refusal": "!"},
            ],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "three"}, image]},
        instructions="be brief",
    )
    assert messages == [
        {"role": "system", "content": "be brief\n\nno lists"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two!"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "three"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            ],
        },
    ]


async def test_parallel_calls_become_one_message_with_their_text(gateway: ScriptedGateway) -> None:
    messages = await messages_of(
        gateway,
        {"role": "user", "content": "go"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {"role": "assistant", "content": "I look."},
        {**CALL, "id": "fc_1", "status": "completed"},
        {**CALL, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
    )
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        for call_id in ("c1", "c2")
    ]
    assert messages[1:] == [
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]


async def test_a_reference_to_reasoning_is_ignored(gateway: ScriptedGateway) -> None:
    reference = {"type": "item_reference", "id": "rs_1"}
    messages = await messages_of(gateway, {"role": "user", "content": "go"}, reference, CALL)
    assert [message["role"] for message in messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            "required",
        ),
    ],
)
async def test_tools_and_the_choice_among_them(
    gateway: ScriptedGateway, choice: object, expected: object
) -> None:
    other = {"type": "function", "name": "g"}
    chat = await chat_of(gateway, tools=[TOOL, other], tool_choice=choice, parallel_tool_calls=False)
    allowed = (
        [CHAT_TOOL]
        if expected == "required" and isinstance(choice, dict)
        else [
            CHAT_TOOL,
            {"type": "function", "function": {"name": "g"}},
        ]
    )
    assert (chat["tools"], chat["tool_choice"], chat["parallel_tool_calls"]) == (allowed, expected, False)


async def test_a_text_format_becomes_a_response_format(gateway: ScriptedGateway) -> None:
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": None}
    chat = await chat_of(gateway, text={"format": form})
    named = {"name": "n", "schema": SCHEMA, "strict": True}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": named}
    chat = await chat_of(gateway, text={"format": {"type": "json_object"}})
    assert chat["response_format"] == {"type": "json_object"}


async def test_log_probabilities_are_returned_on_request(gateway: ScriptedGateway) -> None:
    logprob = {"token": "hi", "bytes": [104, 105], "logprob": -0.5, "top_logprobs": []}
    body = {"choices": [{"message": {"content": "hi"}, "logprobs": {"content": [logprob]}}]}
    gateway.script.written = lambda _: Generated(
        body=json.dumps(body).encode(), wire_format=WireFormat.OPENAI
    )
    reply = (await create(gateway, include=["message.output_text.logprobs"], top_logprobs=2)).json()
    assert reply["output"][0]["content"][0]["logprobs"] == [logprob]
    chat = last_chat(gateway)
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 2)


async def test_reasoning_and_calls_become_items(gateway: ScriptedGateway) -> None:
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "", "function": {"name": "g", "arguments": {"b": 2}}},
    ]
    message = {"content": None, "reasoning_content": "hm", "tool_calls": calls}
    details = {
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 5, **details}
    gateway.script.written = replying(message, "tool_calls", usage=usage)
    response = Response.model_validate_json((await create(gateway, tools=[TOOL])).body)
    reasoning, first, second = [item.model_dump() for item in response.output]
    assert (reasoning["type"], reasoning["content"]) == (
        "reasoning",
        [{"text": "hm", "type": "reasoning_text"}],
    )
    assert (first["call_id"], first["name"], first["arguments"]) == ("c1", "f", '{"a": 1}')
    assert (second["name"], second["arguments"], second["call_id"][:5]) == ("g", '{"b": 2}', "call_")
    assert len({reasoning["id"], first["id"], second["id"]}) == 3
    assert response.usage is not None
    assert (response.usage.total_tokens, response.usage.input_tokens_details.cached_tokens) == (8, 2)
    assert response.usage.output_tokens_details.reasoning_tokens == 4


@pytest.mark.parametrize(
    ("reason", "expected"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_a_truncated_response_is_incomplete(
    gateway: ScriptedGateway, reason: str, expected: str
) -> None:
    gateway.script.written = replying({"content": "hel"}, reason)
    response = (await create(gateway)).json()
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": expected})
    assert (response["output"][0]["status"], response["usage"]) == ("incomplete", None)


async def test_a_refusal_is_a_part_of_a_message(gateway: ScriptedGateway) -> None:
    gateway.script.written = replying({"content": None, "refusal": "no"})
    (message,) = (await create(gateway)).json()["output"]
    assert message["content"] == [{"type": "refusal", "refusal": "no"}]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"previous_response_id": "resp_1"}, "[previous_response_id]", "earlier turns"),
    ({"conversation": "conv_1"}, "[conversation]", "earlier turns"),
    ({"background": True}, "[background]", "[stream]"),
    ({"prompt": {"id": "pmpt_1"}}, "[prompt]", "[instructions]"),
    ({"tools": [{"type": "web_search"}]}, "[tools[0]] has the type [web_search]", "function tool"),
    ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "[tool_choice]", "function tool"),
    ({"tool_choice": "required"}, "[tool_choice]", "[tools]"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "[input[0]] refers", "store: false"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "[input[0]]", "messages"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "content[0]",
        "image_url",
    ),
    ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, "content[0]", "input_text"),
    ({"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": "x"}]}]}, "text", ""),
    ({"input": [{"role": "nobody", "content": "x"}]}, "[role]", ""),
    ({"input": [{"type": "function_call", "name": "f"}]}, "[call_id]", ""),
    ({"input": [{"type": "function_call_output", "output": "f"}]}, "[call_id]", ""),
    ({"input": []}, "[input] is empty", ""),
    ({"input": 5}, "[input] must be a string or an array", ""),
    ({"input": None}, "[input] is required", ""),
    ({"text": {"format": {"type": "regex"}}}, "[text.format.type]", "json_schema"),
    ({"text": {"format": {"type": "json_schema"}}}, "[text.format]", "[schema]"),
]


@pytest.mark.parametrize(("fields", "expected", "remedy"), REFUSED, ids=[case[1] for case in REFUSED])
async def test_what_hubgate_cannot_do_is_a_400_with_a_remedy(
    gateway: ScriptedGateway, fields: dict[str, Any], expected: str, remedy: str
) -> None:
    reply = await create(gateway, **fields)
    error = reply.json()["error"]
    assert (reply.status, error["type"], error["code"]) == (
        400,
        "invalid_request_error",
        Cause.INVALID_REQUEST,
    )
    assert expected in error["message"]
    assert remedy in error["message"]
    assert gateway.script.write_calls == []


async def test_a_field_with_invalid_text_is_not_an_internal_error(gateway: ScriptedGateway) -> None:
    body = b'{"model":"llm","input":"hi","text":{"format":{"type":"text"},"odd":"\xff"},"tools":[]}'
    reply = await gateway.request("POST", "/v1/responses", body)
    assert reply.status < 500


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/responses/resp_1/input_items"),
    ],
)
async def test_a_stored_response_is_a_404_with_the_reason(
    gateway: ScriptedGateway, method: str, path: str
) -> None:
    reply = await gateway.request(method, path)
    assert reply.status == 404
    assert "hubgate stores no responses" in reply.json()["error"]["message"]


async def test_a_model_that_cannot_chat_is_an_error_with_its_task(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/v1/responses", {"model": "e5", "input": "hi"})
    assert (reply.status, reply.json()["error"]["code"]) == (400, Cause.WRONG_TASK)
    await add(gateway, "base", Task.COMPLETION, chats=False)
    reply = await gateway.request("POST", "/v1/responses", {"model": "base", "input": "hi"})
    assert (reply.status, reply.json()["error"]["code"]) == (400, Cause.WRONG_TASK)


async def test_a_call_is_counted_with_its_tokens(gateway: ScriptedGateway) -> None:
    await create(gateway)
    metrics = "".join(gateway.meter.lines())
    assert 'hubgate_tokens_total{endpoint="llm"} 4.0' in metrics
    assert 'hubgate_requests_total{cause="ok",endpoint="llm",face="responses"} 1.0' in metrics


async def test_a_request_for_a_route_of_the_server_has_only_fields_with_an_effect(
    gateway: ScriptedGateway,
) -> None:
    await create(
        gateway, store=True, tools=[], text={"format": {"type": "text"}}, metadata={"a": "b"}, top_p=1
    )
    call = gateway.script.write_calls[-1]
    assert isinstance(call, Chat)
    assert call.responses == {"input": b'"hi"', "metadata": b'{"a": "b"}', "top_p": b"1"}
