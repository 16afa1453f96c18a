"""Text generation on the Elasticsearch face: completion and chat_completion, with and without streaming."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add_generator, last_chat, last_completion, tgi_events, tgi_reply

from hubgate.domain.calls import Chat, Generated, WireFormat
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import DeadlineExceeded, QueueFull, UpstreamRefused, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import GenerationCall

MESSAGES = [{"role": "user", "content": "hi"}]
COMPLETION, CHAT = "/_inference/completion/writer", "/_inference/chat_completion/talker"


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted, "writer", Task.COMPLETION, chats=False)
    await add_generator(scripted, "talker", Task.CHAT_COMPLETION, chats=True)
    return scripted


def events(body: bytes) -> list[tuple[str, Any]]:
    """Kind and data of each event; the body contains nothing else, not even a byte order mark."""
    blocks = body.decode().split("\n\n")
    assert blocks.pop() == ""
    read = []
    for event in blocks:
        kind, data = event.split("\n")
        assert kind.startswith("event: ")
        data = data.removeprefix("data: ")
        read.append((kind.removeprefix("event: "), data if data == "[DONE]" else json.loads(data)))
    return read


def breaks_off(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    text = {"delta": {"content": "hel"}} if isinstance(call, Chat) else {"text": "hel"}
    yield [json.dumps({"choices": [{"index": 0, **text}]}).encode()]
    raise UpstreamUnreachable("The server broke off.")


async def test_a_completion_is_a_list_of_one_result(gateway: ScriptedGateway) -> None:
    for path in (COMPLETION, "/_inference/writer", "/_inference/text-generation/writer"):
        reply = await gateway.request("POST", path, {"input": "say"})
        assert (reply.status, reply.json()) == (200, {"completion": [{"result": "hello"}]})
        assert last_completion(gateway).prompt == "say"
    gateway.script.written = tgi_reply
    reply = await gateway.request("POST", COMPLETION, {"input": ["say"]})
    assert reply.json() == {"completion": [{"result": "hello"}]}


async def test_a_completion_of_a_chat_model_is_sent_as_a_user_message(
    gateway: ScriptedGateway,
) -> None:
    await add_generator(gateway, "both", Task.COMPLETION, chats=True)
    reply = await gateway.request("POST", "/_inference/completion/both", {"input": "say"})
    assert reply.json() == {"completion": [{"result": "hello"}]}
    assert last_chat(gateway) == {"messages": [{"role": "user", "content": "say"}]}


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"input": ["a", "b"]}, "status_exception", "Hugging Face completions only accepts 1 input"),
        ({}, "action_request_validation_exception", "Field [input] cannot be null"),
        (
            {"input": "a", "query": "b"},
            "action_request_validation_exception",
            "Field [query] cannot be specified for task type [completion]",
        ),
        (
            {"input": "a", "input_type": "search"},
            "action_request_validation_exception",
            "Field [input_type] cannot be specified for task type [completion]",
        ),
        ({"input": "a", "temperature": 1}, "x_content_parse_exception", "unknown field [temperature]"),
    ],
)
async def test_an_invalid_completion_is_a_400_with_elasticsearchs_message(
    gateway: ScriptedGateway, body: dict[str, Any], kind: str, reason: str
) -> None:
    reply = await gateway.request("POST", COMPLETION, body)
    assert (reply.status, reply.json()["error"]["type"]) == (400, kind)
    assert reason in reply.json()["error"]["reason"]
    streamed = await gateway.request("POST", COMPLETION + "/_stream", body)
    ((name, data),) = events(streamed.body)
    assert (streamed.status, name, data["error"]["type"]) == (400, "error", kind)


async def test_completion_tokens_that_arrive_together_are_one_event(gateway: ScriptedGateway) -> None:
    chunk = b'{"choices":[{"index":0,"text":"%b"}]}'
    usage = b'{"choices":[],"usage":{"total_tokens":9}}'
    gateway.script.told = lambda _: iter([[chunk % b"a", chunk % b"b"], [chunk % b""], [chunk % b"c", usage]])
    reply = await gateway.request("POST", COMPLETION + "/_stream", {"input": "say"})
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    assert events(reply.body) == [
        ("message", {"completion": [{"delta": "a"}, {"delta": "b"}]}),
        ("message", {"completion": [{"delta": "c"}]}),
        ("message", "[DONE]"),
    ]
    assert 'hubgate_tokens_total{endpoint="writer"} 9.0' in "".join(gateway.meter.lines())


async def test_a_completion_of_tgi_is_streamed_in_the_same_events(gateway: ScriptedGateway) -> None:
    gateway.script.told, gateway.script.wire_format = tgi_events, WireFormat.TGI
    reply = await gateway.request("POST", COMPLETION + "/_stream", {"input": "say"})
    deltas = [data["completion"][0]["delta"] for _, data in events(reply.body)[:-1]]
    assert deltas == ["hel", "lo"]


async def test_a_chat_is_streamed_with_one_chunk_per_event_and_no_nulls(gateway: ScriptedGateway) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunks: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None},
        {"delta": {"reasoning_content": "hm"}, "finish_reason": None},
        {"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"},
    ]
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "org/model", "usage": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "completion_tokens_details": None}
    payloads = [json.dumps({**head, "choices": [{"index": 0, **chunk}]}).encode() for chunk in chunks]
    payloads.append(json.dumps({**head, "choices": [], "usage": usage}).encode())
    gateway.script.told = lambda _: iter([payloads])
    reply = await gateway.request("POST", CHAT + "/_stream", {"messages": MESSAGES})
    kept = {"id": "x", "object": "chat.completion.chunk", "model": "org/model"}
    counted = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    assert [data for _, data in events(reply.body)] == [
        {**kept, "choices": [{"delta": {"role": "assistant", "content": ""}, "index": 0}]},
        {**kept, "choices": [{"delta": {"reasoning": "hm"}, "index": 0}]},
        {**kept, "choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls", "index": 0}]},
        {**kept, "choices": [], "usage": counted},
        "[DONE]",
    ]


async def test_a_chat_without_stream_is_one_response(gateway: ScriptedGateway) -> None:
    reply = await gateway.request("POST", "/_inference/conversational/talker", {"messages": MESSAGES})
    data = reply.json()
    assert data["choices"] == [
        {"message": {"content": "hello", "role": "assistant"}, "finish_reason": "stop", "index": 0}
    ]
    assert data["usage"]["total_tokens"] == 4


async def test_chat_fields_are_sent_under_the_names_of_the_engine(gateway: ScriptedGateway) -> None:
    body = {
        "messages": MESSAGES,
        "model": "any",
        "max_completion_tokens": 9,
        "stop": ["a"],
        "temperature": 0.5,
        "top_p": None,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
    }
    await gateway.request("POST", CHAT + "/_stream", body)
    expected = {name: body[name] for name in ("messages", "stop", "temperature", "tools", "tool_choice")}
    assert last_chat(gateway) == {**expected, "max_tokens": 9}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "required field [messages]"),
        ({"messages": "hi"}, "required field [messages]"),
        ({"messages": MESSAGES, "n": 2}, "unknown field [n]"),
        (b"{", "not valid JSON"),
        (b"", "request body is required"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, CHAT + "/_stream", "/_inference/talker/_stream"])
async def test_an_invalid_chat_is_a_400_in_the_error_shape_of_chats(
    gateway: ScriptedGateway, path: str, body: object, expected: str
) -> None:
    reply = await gateway.request("POST", path, body)
    assert reply.status == 400
    data = events(reply.body)[0][1] if path.endswith("_stream") else reply.json()
    assert data.keys() == {"error"}
    assert data["error"]["code"] == "bad_request"
    assert expected in data["error"]["message"]


async def test_chat_errors_have_the_retry_headers_of_any_call(gateway: ScriptedGateway) -> None:
    def is_full(call: GenerationCall) -> Generated:
        raise QueueFull("Too many wait.", retry_after=2.0)

    gateway.script.written = is_full
    for path, body in ((COMPLETION, {"input": "say"}), (CHAT, {"messages": MESSAGES})):
        reply = await gateway.request("POST", path, body)
        assert (reply.status, reply.headers["retry-after"]) == (429, "2")
        assert reply.headers["x-should-retry"] == "true"


async def test_an_error_before_the_first_byte_has_its_status_and_one_after_it_is_an_event(
    gateway: ScriptedGateway,
) -> None:
    def refuses(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        raise UpstreamRefused("It is busy.", status=429, server_message="busy")

    gateway.script.told = lambda call: (payloads for _ in "x" for payloads in refuses(call))
    reply = await gateway.request("POST", COMPLETION + "/_stream", {"input": "say"})
    assert reply.status == 429
    ((kind, data),) = events(reply.body)
    assert (kind, data["status"]) == ("error", 429)
    assert data["error"]["reason"].startswith(
        "Received a rate limit status code for request from inference entity id [writer] status [429]"
    )
    gateway.script.told = breaks_off
    reply = await gateway.request("POST", COMPLETION + "/_stream", {"input": "say"})
    assert reply.status == 200
    assert events(reply.body)[0] == ("message", {"completion": [{"delta": "hel"}]})
    kind, data = events(reply.body)[-1]
    assert (kind, data["error"]["reason"]) == ("error", "The server broke off.")
    reply = await gateway.request("POST", CHAT + "/_stream", {"messages": MESSAGES})
    kind, data = events(reply.body)[-1]
    assert (kind, data["error"]["code"]) == ("error", "bad_request")
    assert gateway.script.streams[-1].closed == 1


@pytest.mark.parametrize(("query", "seconds"), [("", "120s"), ("?timeout=5s", "5s")])
async def test_generation_has_a_default_timeout_of_two_minutes(
    gateway: ScriptedGateway, query: str, seconds: str
) -> None:
    def late(call: GenerationCall) -> Generated:
        raise DeadlineExceeded("Late.")

    gateway.script.written = late
    for path, body in ((COMPLETION, {"input": "say"}), (CHAT, {"messages": MESSAGES})):
        reply = await gateway.request("POST", path + query, body)
        assert reply.status == 429
        assert f"Request timed out after [{seconds}]" in reply.body.decode()
