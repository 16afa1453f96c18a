"""The events of a streamed response."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import pytest
from generation_endpoints import add_generator
from openai.types.responses import Response, ResponseStreamEvent

from hubgate.domain.calls import Chat, Generated, WireFormat
from hubgate.domain.errors import Cause, QueueFull, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import GenerationCall

EVENTS = {
    kind.model_fields["type"].annotation.__args__[0]: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.fixture
async def gateway(scripted: ScriptedGateway) -> ScriptedGateway:
    await add_generator(scripted)
    return scripted


def chunk(delta: dict[str, Any], reason: str | None = None, index: int = 0) -> bytes:
    return json.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": reason}]}).encode()


def calls(*deltas: tuple[int | None, str | None, str | None, str]) -> list[bytes]:
    """Chunks of tool calls: index, id, name and arguments of each."""
    return [
        chunk(
            {"tool_calls": [{"index": index, "id": call_id, "function": {"name": name, "arguments": text}}]}
        )
        for index, call_id, name, text in deltas
    ]


async def streamed(gateway: ScriptedGateway, *chunks: bytes, **fields: Any) -> list[Any]:
    """The events of a stream of these chunks, which openai's types accept."""
    if chunks:
        gateway.script.told = lambda _: iter([chunks])
    body = {"model": "llm", "input": "hi", "stream": True, **fields}
    reply = await gateway.request("POST", "/v1/responses", body)
    assert reply.headers["content-type"] == "text/event-stream"
    return parse(reply.body)


def parse(body: bytes) -> list[Any]:
    events = []
    for number, block in enumerate(body.decode().removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        EVENTS[event["type"]].model_validate(event)
        events.append(event)
    return events


def types(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


TEXT = ["output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done"]  # fmt: skip


async def test_a_text_has_openais_events_in_order(gateway: ScriptedGateway) -> None:
    events = await streamed(gateway)
    assert types(events) == ["created", "in_progress", *TEXT, "completed"]
    assert events[0]["response"]["status"] == "in_progress"
    assert [event["delta"] for event in events if "delta" in event] == ["hel", "lo"]
    response = Response.model_validate(events[-1]["response"])
    assert (response.output_text, response.status) == ("hello", "completed")
    assert {event["item_id"] for event in events if "item_id" in event} == {response.output[0].id}
    assert gateway.script.streams[-1].closed == 1


async def test_reasoning_text_and_calls_are_items_one_after_the_other(gateway: ScriptedGateway) -> None:
    events = await streamed(
        gateway,
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning": "hm"}),
        chunk({"content": "I look."}),
        *calls((0, "c1", "f", ""), (0, None, None, '{"a"'), (0, None, None, ":1}"), (1, "c2", "g", "{}")),
        chunk({}, "tool_calls"),
        json.dumps({"choices": [], "usage": USAGE}).encode(),
    )
    call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    reasoning = [name.replace("output_text", "reasoning_text") for name in TEXT]
    del reasoning[3]
    message = [*TEXT[:3], *TEXT[4:]]
    two_deltas = [*call[:2], *call[1:]]
    assert types(events) == ["created", "in_progress", *reasoning, *message, *two_deltas, *call, "completed"]
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert [item.get("arguments") for item in response["output"]] == [None, None, '{"a":1}', "{}"]
    assert [event["output_index"] for event in events if event["type"].endswith("item.done")] == [0, 1, 2, 3]
    assert response["usage"]["total_tokens"] == 5
    assert 'hubgate_tokens_total{endpoint="llm"} 5.0' in "".join(gateway.meter.lines())


async def test_reasoning_is_the_summary_that_a_request_asks_for(gateway: ScriptedGateway) -> None:
    events = await streamed(
        gateway, chunk({"reasoning": "hm"}), chunk({"content": "hi"}, "stop"), reasoning={"summary": "auto"}
    )
    summary = ["summary_part.added", "summary_text.delta", "summary_text.done", "summary_part.done"]
    assert types(events)[3:7] == [f"reasoning_{name}" for name in summary]
    reasoning, _ = events[-1]["response"]["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert "content" not in reasoning
    call = gateway.script.write_calls[-1]
    assert isinstance(call, Chat)
    assert call.responses is None


async def test_calls_without_an_index_begin_with_a_name(gateway: ScriptedGateway) -> None:
    events = await streamed(
        gateway, *calls((None, "c1", "f", "{}"), (None, "c2", "g", "["), (None, None, None, "]"))
    )
    found = [(item["call_id"], item["arguments"]) for item in events[-1]["response"]["output"]]
    assert found == [("c1", "{}"), ("c2", "[]")]


async def test_mixed_up_calls_are_an_error_and_not_lost(gateway: ScriptedGateway) -> None:
    events = await streamed(gateway, *calls((0, "c1", "f", "{"), (1, "c2", "g", "{}"), (0, None, None, "}")))
    assert events[-2]["code"] == Cause.UNREADABLE_REPLY


async def test_arguments_that_are_not_valid_text_are_an_error(gateway: ScriptedGateway) -> None:
    broken = calls((0, "c1", "f", "half"))[0].replace(b"half", b"\\ud800")
    events = await streamed(gateway, broken)
    assert events[-2]["code"] == Cause.UNREADABLE_REPLY


async def test_a_refusal_has_events_of_its_own(gateway: ScriptedGateway) -> None:
    events = await streamed(gateway, chunk({"refusal": "no"}, "stop"))
    assert types(events)[4:6] == ["refusal.delta", "refusal.done"]


async def test_a_stream_that_reaches_the_limit_ends_incomplete(gateway: ScriptedGateway) -> None:
    events = await streamed(gateway, chunk({"content": "hel"}, "length"))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_an_empty_stream_is_an_empty_message(gateway: ScriptedGateway) -> None:
    gateway.script.told = lambda _: iter(())
    events = await streamed(gateway)
    assert types(events)[-1] == "completed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


CALL = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize(
    "message",
    [
        {"content": "hello"},
        {"reasoning_content": "hm", "content": "hello"},
        {"reasoning": "hm", "content": None},
        {"content": "hello", "refusal": "no"},
        {"content": "hello", "tool_calls": [CALL]},
        {"content": ""},
    ],
)
@pytest.mark.parametrize("summary", [None, "auto"])
async def test_a_whole_response_is_that_of_a_stream(
    gateway: ScriptedGateway, message: dict[str, Any], reason: str, summary: str | None
) -> None:
    fields = {"reasoning": {"summary": summary}, "temperature": 0.5}
    *_, last = await streamed(gateway, chunk(message, reason), **fields)
    reply = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}).encode()
    gateway.script.written = lambda _: Generated(body=reply, wire_format=WireFormat.OPENAI)
    whole = await gateway.request("POST", "/v1/responses", {"model": "llm", "input": "hi", **fields})
    assert comparable(whole.json()) == comparable(last["response"])


def comparable(response: dict[str, Any]) -> Any:
    """A response without its time and its id, which the ids of its items contain."""
    own = response["id"].removeprefix("resp_")
    return json.loads(json.dumps(response | {"created_at": 0}).replace(own, ""))


async def test_only_the_first_choice_is_a_response(gateway: ScriptedGateway) -> None:
    events = await streamed(
        gateway, chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "stop")
    )
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "a"


async def test_a_broken_stream_ends_with_an_error_and_a_failed_response(gateway: ScriptedGateway) -> None:
    def breaks_off(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        yield [chunk({"content": "hel"})]
        raise UpstreamUnreachable("The server broke off.", remedy="Ask again.")

    gateway.script.told = breaks_off
    *_, error, failed = await streamed(gateway)
    assert error["error"]["message"] == error["message"] == "The server broke off. Ask again."
    assert error["error"]["code"] == error["code"] == Cause.CONNECTION_LOST
    assert (failed["response"]["status"], failed["response"]["error"]["code"]) == ("failed", "server_error")
    assert gateway.script.streams[-1].closed == 1
    assert f'cause="{Cause.CONNECTION_LOST}",endpoint="llm"' in "".join(gateway.meter.lines())


async def test_a_stream_that_fails_before_its_first_event_has_an_error_status(
    gateway: ScriptedGateway,
) -> None:
    def fails(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        raise QueueFull("Too many wait.", retry_after=2.0)

    gateway.script.told = lambda call: (payloads for _ in "x" for payloads in fails(call))
    reply = await gateway.request("POST", "/v1/responses", {"model": "llm", "input": "hi", "stream": True})
    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    assert reply.json()["error"]["type"] == "rate_limit_error"


async def test_events_of_the_server_are_passed_on_and_completed(gateway: ScriptedGateway) -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    delta = b'{"type":"response.odd.delta", "sequence_number":1, "odd":[1]}'
    sent = [
        b'{"type":"response.created","sequence_number":0,"response":{"id":"native","usage":null,"top_p":null}}',
        delta,
        json.dumps({"type": "response.completed", "response": {"id": "native", "usage": usage}}).encode(),
    ]
    gateway.script.wire_format = WireFormat.RESPONSES
    gateway.script.told = lambda _: iter([sent])
    reply = await gateway.request("POST", "/v1/responses", {"model": "llm", "input": "hi", "stream": True})
    created, passed, completed, _ = reply.body.split(b"\n\n")
    assert passed == b"event: response.odd.delta\ndata: " + delta
    assert created.startswith(b"event: response.created\n")
    first = json.loads(created.rpartition(b"data: ")[2])["response"]
    assert (first["id"], first["usage"], first["top_p"], first["error"]) == ("native", None, 1.0, None)
    assert json.loads(completed.rpartition(b"data: ")[2])["response"]["usage"] == usage
    assert 'hubgate_tokens_total{endpoint="llm"} 3.0' in "".join(gateway.meter.lines())


async def test_a_stream_of_the_server_that_breaks_ends_with_an_error(gateway: ScriptedGateway) -> None:
    def breaks_off(call: GenerationCall) -> Iterator[Sequence[bytes]]:
        yield [b'{"type":"response.created","sequence_number":4}']
        raise UpstreamUnreachable("The server broke off.")

    gateway.script.wire_format, gateway.script.told = WireFormat.RESPONSES, breaks_off
    reply = await gateway.request("POST", "/v1/responses", {"model": "llm", "input": "hi", "stream": True})
    error = json.loads(reply.body.rpartition(b"data: ")[2])
    assert (error["type"], error["sequence_number"], error["message"]) == (
        "error",
        5,
        "The server broke off.",
    )
