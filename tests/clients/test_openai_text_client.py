"""OpenAI's and langchain's clients against a real gateway in front of generation servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from models import PROMPT, SAID, gateway_with
from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalikes import LookAlike
    from running_gateway import RunningGateway

    from hubgate.settings import Settings

MESSAGES: Any = [{"role": "user", "content": PROMPT}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "note", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def gateway_and_servers(settings: Settings) -> Iterator[tuple[RunningGateway, dict[str, LookAlike]]]:
    with gateway_with(settings, "vllm", "tgi", "ranker") as opened:
        yield opened


@pytest.fixture
def client(gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gateway_and_servers[0].url}/v1", api_key=gateway_and_servers[0].admin_key, max_retries=0
    ) as made:
        yield made


@pytest.mark.parametrize("model", ["vllm", "tgi"])
def test_chat_completes_streams_and_calls_tools(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=MESSAGES)
    assert whole.choices[0].message.content == SAID
    assert whole.usage is not None
    assert whole.usage.total_tokens == 6
    chunks = list(
        client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    called = client.chat.completions.create(model=model, messages=MESSAGES, tools=[TOOL])
    assert called.choices[0].finish_reason == "tool_calls"
    assert [call.id for call in called.choices[0].message.tool_calls or ()] == ["call-1"]
    with client.chat.completions.stream(model=model, messages=MESSAGES, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls


@pytest.mark.parametrize("model", ["vllm", "tgi"])
def test_completions_work_with_and_without_streaming(client: openai.OpenAI, model: str) -> None:
    whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=2)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("You said:", "length")
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 2
    several = client.completions.create(model=model, prompt=["one", "two"], echo=True)
    assert [choice.text for choice in several.choices] == ["oneYou said: one", "twoYou said: two"]
    chunks = list(client.completions.create(model=model, prompt=PROMPT, stream=True, echo=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == PROMPT + SAID
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_tgi_completions_return_logprobs_on_request(client: openai.OpenAI) -> None:
    silent = client.completions.create(model="tgi", prompt=PROMPT, max_tokens=2)
    assert silent.choices[0].logprobs is None
    told = client.completions.create(model="tgi", prompt=PROMPT, max_tokens=2, logprobs=2).choices[0].logprobs
    assert told is not None
    assert "".join(told.tokens or ()) == "You said:"
    assert told.token_logprobs == [-0.5, -0.5]
    assert [len(top) for top in told.top_logprobs or ()] == [2, 2]
    chunks = list(
        client.completions.create(model="tgi", prompt=PROMPT, max_tokens=2, logprobs=2, stream=True)
    )
    streamed = [chunk.choices[0].logprobs for chunk in chunks]
    assert [(one.tokens or [])[0] for one in streamed if one] == told.tokens
    assert [(one.text_offset or [])[0] for one in streamed if one] == told.text_offset


def test_broken_stream_raises_hubgate_message(
    client: openai.OpenAI, gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]]
) -> None:
    gateway_and_servers[1]["vllm"].fail("cut")
    told = client.chat.completions.create(model="vllm", messages=MESSAGES, stream=True)
    assert next(told).choices
    with pytest.raises(openai.APIError, match="before its reply was complete") as caught:
        list(told)
    assert caught.value.code == "connection_lost"


def test_rerank_works_with_client_post(client: openai.OpenAI) -> None:
    body = {"model": "ranker", "query": "a", "documents": ["b", "a a", "c"], "top_n": 2}
    told: Any = client.post("/rerank", body=body, cast_to=object)
    scores = [result["relevance_score"] for result in told["results"]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def test_langchain_chats_and_streams(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    chat = ChatOpenAI(
        base_url=f"{gateway_and_servers[0].url}/v1",
        api_key=SecretStr(gateway_and_servers[0].admin_key),
        model="vllm",
        max_retries=0,
    )
    assert chat.invoke(PROMPT).content == SAID
    assert "".join(str(chunk.content) for chunk in chat.stream(PROMPT)) == SAID
    assert [call["name"] for call in chat.bind_tools([TOOL]).invoke(PROMPT).tool_calls] == ["note"]


def test_errors_at_endpoint_base_url_have_openai_format(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    no_messages: Any = "none"
    with (
        openai.OpenAI(
            base_url=f"{gateway_and_servers[0].url}/hf/vllm/v1", api_key=gateway_and_servers[0].admin_key
        ) as client,
        pytest.raises(openai.BadRequestError, match=r"\[messages\] must be a list"),
    ):
        client.chat.completions.create(model="x", messages=no_messages)
