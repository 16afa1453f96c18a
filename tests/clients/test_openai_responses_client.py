"""OpenAI's Responses API with its own client, against a real gateway in front of generation servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from lookalikes import LookAlike, lookalike
from models import PROMPT, SAID, gateway_with
from openai.types.responses import ResponseCompletedEvent, ResponseFunctionToolCall
from pydantic import BaseModel, SecretStr
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_gateway import RunningGateway

    from hubgate.settings import Settings

TOOL: Any = {
    "type": "function",
    "name": "note",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    "strict": True,
}
MODELS = ["vllm", "tgi", "llamacpp", "transformers"]
Opened = tuple["RunningGateway", dict[str, LookAlike]]


class Answer(BaseModel):
    schema_: dict[str, Any] = {}


@pytest.fixture
def opened(settings: Settings) -> Iterator[Opened]:
    with gateway_with(settings, *MODELS) as running:
        yield running


@pytest.fixture
def client(opened: Opened) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{opened[0].url}/v1", api_key=opened[0].admin_key, max_retries=0) as made:
        yield made


def test_responses_are_created_streamed_and_call_tools_on_every_engine(client: openai.OpenAI) -> None:
    for model in MODELS:
        whole = client.responses.create(model=model, input=PROMPT, instructions="be brief")
        assert (whole.output_text, whole.status) == (SAID, "completed")
        assert whole.usage is not None
        assert whole.usage.total_tokens == 6
        with client.responses.stream(model=model, input=PROMPT) as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            assert text == stream.get_final_response().output_text == SAID
        called = client.responses.create(model=model, input=PROMPT, tools=[TOOL])
        (call,) = called.output
        assert isinstance(call, ResponseFunctionToolCall)
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": PROMPT}
        items: Any = [{"role": "user", "content": PROMPT}, call.model_dump(exclude_none=True), output]
        assert client.responses.create(model=model, input=items).output_text == SAID


def test_responses_parse_into_a_model(client: openai.OpenAI, opened: Opened) -> None:
    parsed = client.responses.parse(model="vllm", input=PROMPT, text_format=Answer, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, Answer)
    sent = opened[1]["vllm"].posts[-1].json
    assert (sent["response_format"]["type"], sent["max_tokens"]) == ("json_schema", 200)


def test_langchain_uses_the_responses_api(opened: Opened) -> None:
    gateway, _ = opened
    chat = ChatOpenAI(
        base_url=f"{gateway.url}/v1",
        api_key=SecretStr(gateway.admin_key),
        model="llamacpp",
        max_retries=0,
        use_responses_api=True,
    )
    first = chat.invoke(PROMPT)
    assert first.text == SAID
    assert chat.invoke([HumanMessage(PROMPT), first, HumanMessage(PROMPT)]).text == SAID
    assert "".join(part.text for part in chat.stream(PROMPT)) == SAID
    with_tool = chat.bind_tools([TOOL])
    called = with_tool.invoke(PROMPT)
    assert [call["name"] for call in called.tool_calls] == ["note"]
    output = ToolMessage(PROMPT, tool_call_id=called.tool_calls[0]["id"])
    assert with_tool.invoke([HumanMessage(PROMPT), called, output]).text == SAID


def test_a_plain_request_goes_to_the_server_s_own_route(client: openai.OpenAI, opened: Opened) -> None:
    vllm = opened[1]["vllm"]
    whole = client.responses.create(model="vllm", input=PROMPT, store=True, metadata={"a": "b"})
    assert (whole.id, whole.output_text) == ("resp_native", SAID)
    assert vllm.posts[-1].path == "/v1/responses"
    assert vllm.posts[-1].json["store"] is False
    streamed = list(client.responses.create(model="vllm", input=PROMPT, stream=True))
    assert isinstance(streamed[-1], ResponseCompletedEvent)
    assert streamed[-1].response.id == "resp_native"
    assert client.responses.create(model="vllm", input=PROMPT, tools=[TOOL]).id != "resp_native"
    assert vllm.posts[-1].path == "/v1/chat/completions"


def test_a_server_without_the_route_gets_a_chat(
    settings: Settings, client: openai.OpenAI, opened: Opened
) -> None:
    with lookalike("vllm", kind="llm", responses=False) as old:
        opened[0].add("old", url=old.url, task="chat_completion")
        before = len(old.posts)
        for _ in range(2):
            assert client.responses.create(model="old", input=PROMPT).output_text == SAID
        paths = [request.path for request in old.posts[before:]]
    assert paths == ["/v1/responses", "/v1/chat/completions", "/v1/chat/completions"]


@pytest.mark.parametrize("instructions", [None, "be brief"])
def test_a_broken_response_stream_raises_hubgates_message(
    client: openai.OpenAI, opened: Opened, instructions: str | None
) -> None:
    fields: dict[str, Any] = {"instructions": instructions, "tools": [TOOL] if instructions else []}
    opened[1]["vllm"].fail("cut")
    events = client.responses.create(model="vllm", input=PROMPT, stream=True, tool_choice="none", **fields)
    with pytest.raises(openai.APIError, match="before its reply was complete") as caught:
        list(events)
    assert caught.value.code == "connection_lost"


def test_responses_errors_have_the_clients_own_classes(client: openai.OpenAI, opened: Opened) -> None:
    gateway, servers = opened

    def create(client: openai.OpenAI = client, **fields: Any) -> None:
        client.responses.create(**{"model": "vllm", "input": PROMPT, **fields})

    limited = client.with_options(api_key=gateway.create_key(requests_per_minute=1))
    create(limited)
    with pytest.raises(openai.RateLimitError, match="limit"):
        create(limited)
    with pytest.raises(openai.BadRequestError, match="hubgate stores no responses"):
        create(previous_response_id="resp_1")
    with pytest.raises(openai.AuthenticationError):
        create(client.with_options(api_key="wrong"))
    with pytest.raises(openai.NotFoundError, match=r"\[absent\]"):
        create(model="absent")
    with pytest.raises(openai.NotFoundError, match="hubgate stores no responses"):
        client.responses.retrieve("resp_1")
    servers["vllm"].fail("failing")
    with pytest.raises(openai.InternalServerError, match="EngineCore"):
        create()


def test_a_client_that_leaves_a_stream_frees_its_slot(client: openai.OpenAI, opened: Opened) -> None:
    gateway, servers = opened
    servers["vllm"].fail("stall")
    with contextlib.closing(client.responses.create(model="vllm", input=PROMPT, stream=True)) as events:
        next(iter(events))
    servers["vllm"].wait_until(lambda server: server.streams == 0)
    free = 'hubgate_upstream_in_flight{endpoint="vllm"} 0.0'
    eventually(lambda: free in gateway.request("GET", "/metrics").body.decode())
