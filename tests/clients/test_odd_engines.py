"""Real clients against a real gateway, in front of servers that are stricter than OpenAI's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError
from langchain_openai import OpenAI
from lookalikes import LookAlike, lookalike
from lookalikes.ranker import score_of
from models import PROMPT, SAID, gateway_with
from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_gateway import RunningGateway

    from hubgate.settings import Settings


@pytest.fixture
def gateway_and_servers(settings: Settings) -> Iterator[tuple[RunningGateway, dict[str, LookAlike]]]:
    with gateway_with(settings, "t5", "tgi", "llamacpp", "transformers", "toolkit") as opened:
        yield opened


@pytest.fixture
def client(gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gateway_and_servers[0].url}/v1", api_key=gateway_and_servers[0].admin_key, max_retries=0
    ) as made:
        yield made


def test_endpoint_accepts_hugging_face_task_name(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    shown = {
        name: gateway_and_servers[0].request("GET", f"/api/endpoints/{name}").json()
        for name in ("t5", "transformers")
    }
    assert [one["task"] for one in shown.values()] == ["completion", "chat_completion"]


def test_rejected_parameter_keeps_huggingface_hub_streaming(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    """It parses the wording of transformers, and would then treat every endpoint in the process as non-streaming."""
    gateway = gateway_and_servers[0]

    def hub(name: str) -> InferenceClient:
        return InferenceClient(base_url=f"{gateway.url}/hf/{name}", api_key=gateway.admin_key)

    with pytest.raises(ValidationError, match=r"does not know \[seed\]"):
        hub("t5").text_generation(PROMPT, seed=1)
    assert "".join(hub("tgi").text_generation(PROMPT, stream=True)) == SAID
    assert "".join(hub("t5").text_generation(PROMPT, stream=True)) == SAID


def test_neutral_values_are_accepted_for_engines_without_the_field(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]], client: openai.OpenAI
) -> None:
    """The OpenAI class of langchain sends the penalties and `best_of` with every request."""
    gateway = gateway_and_servers[0]
    neutral: dict[str, Any] = {
        "best_of": 1,
        "echo": False,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "logprobs": None,
        "n": 1,
        "presence_penalty": 0,
        "suffix": "",
    }
    for model in ("t5", "tgi", "llamacpp"):
        assert client.completions.create(model=model, prompt=PROMPT, **neutral).choices[0].text == SAID
    langchain = OpenAI(
        model="t5",
        base_url=f"{gateway.url}/v1",
        api_key=SecretStr(gateway.admin_key),
        frequency_penalty=0,
        presence_penalty=0,
        best_of=1,
    )
    assert langchain.invoke(PROMPT) == SAID
    several = client.completions.create(model="t5", prompt=[PROMPT, PROMPT], echo=True)
    assert several.usage is not None
    assert several.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 8,
        "completion_tokens": 10,
        "total_tokens": 18,
        "estimated": True,
    }
    with pytest.raises(openai.BadRequestError, match=r"does not know \[frequency_penalty\]"):
        client.completions.create(model="t5", prompt=PROMPT, frequency_penalty=0.5)


@pytest.mark.parametrize("model", ["llamacpp", "transformers", "tgi"])
def test_chat_accepts_messages_dumped_by_the_client(client: openai.OpenAI, model: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "hi", "name": None}]
    message = client.chat.completions.create(model=model, messages=messages).choices[0].message
    messages += [message.model_dump(), {"role": "user", "content": PROMPT, "tool_calls": None}]
    assert client.chat.completions.create(model=model, messages=messages).choices[0].message.content == SAID


def test_only_meaningless_nulls_are_omitted_from_messages(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    gateway, servers = gateway_and_servers
    arguments = {"to": None}
    body = {
        "model": "llamacpp",
        "messages": [
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "1", "index": None, "function": {"name": "f", "arguments": arguments}}],
            },
            {"role": "user", "content": [{"type": "text", "text": PROMPT, "cache": None}], "weight": 1.50},
        ],
    }
    assert (
        gateway.request("POST", "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
        == SAID
    )
    sent = servers["llamacpp"].posts[-1]
    assert sent.json["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": arguments}}],
        },
        {"role": "user", "content": [{"type": "text", "text": PROMPT}], "weight": 1.5},
    ]
    untouched = b'[{"role":"user", "content":"a \\u00e4", "weight":1.50}]'
    asked = b'{"model":"llamacpp","messages":%b}' % untouched
    assert gateway.request("POST", "/v1/chat/completions", asked).status == 200
    assert untouched in servers["llamacpp"].posts[-1].body


def test_text_too_long_for_llamacpp_is_reported_as_too_long(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]], client: openai.OpenAI
) -> None:
    text = "word " * 600
    with pytest.raises(openai.BadRequestError) as chat:
        client.chat.completions.create(model="llamacpp", messages=[{"role": "user", "content": text}])
    with pytest.raises(openai.BadRequestError) as completion:
        client.completions.create(model="llamacpp", prompt=text)
    assert chat.value.code == completion.value.code == "input_too_long"
    assert "600 tokens" in chat.value.message


@pytest.mark.parametrize("token", ["x", "t", "text", "return_full_text"])
def test_placeholder_token_does_not_break_reply_parsing(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]], token: str
) -> None:
    gateway, servers = gateway_and_servers
    gateway.add("placeholder", url=servers["t5"].url, task="completion", token=token)
    body = {"model": "placeholder", "prompt": PROMPT}
    assert gateway.request("POST", "/v1/completions", body).json()["choices"][0]["text"] == SAID


@pytest.mark.parametrize("kind", [[], {}, 7, [["json_schema"]]])
def test_unknown_response_format_is_passed_through(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]], kind: object
) -> None:
    gateway, servers = gateway_and_servers
    for path, asked in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}]}),
        ("/v1/completions", {"prompt": PROMPT}),
    ):
        body = {"model": "llamacpp", "response_format": {"type": kind}, **asked}
        assert gateway.request("POST", path, body).status == 200
        assert servers["llamacpp"].posts[-1].json["response_format"] == {"type": kind}


def test_llamacpp_scores_are_between_0_and_1_unless_raw_scores_are_requested(gateway: RunningGateway) -> None:
    """Otherwise score thresholds, such as Dify's, would filter wrongly."""
    with lookalike("llamacpp", kind="reranker") as server:
        gateway.add("r", url=server.url, task="rerank")
        query, texts = "red fox", ["nothing of it", "the red fox", "a fox"]
        raw = [score_of(query, text, raw=True) for text in texts]
        squeezed = [1 / (1 + math.exp(-score)) for score in raw]

        def scores(**more: Any) -> list[float]:
            body = {"query": query, "texts": texts, **more}
            ranks = gateway.request("POST", "/hf/r/rerank", body).json()
            return [rank["score"] for rank in sorted(ranks, key=lambda rank: rank["index"])]

        assert scores() == scores(raw_scores=False) == pytest.approx(squeezed)
        assert scores(raw_scores=True) == raw
        told = gateway.request("POST", "/hf/r/v1/rerank", {"query": query, "documents": texts}).json()
        assert [result["relevance_score"] for result in told["results"]] == pytest.approx(
            sorted(squeezed, reverse=True)
        )
        assert "estimated" not in told["usage"]
        assert "warnings" not in told["meta"]


def test_toolkit_for_text_generation_chats(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    whole = client.chat.completions.create(model="toolkit", messages=messages, max_completion_tokens=9)
    assert whole.choices[0].message.content == SAID
    chunks = list(client.chat.completions.create(model="toolkit", messages=messages, stream=True))
    assert [chunk.choices[0].delta.content for chunk in chunks] == [SAID]
    assert client.responses.create(model="toolkit", input=PROMPT).output_text == SAID
    with client.responses.stream(model="toolkit", input=PROMPT) as stream:
        assert stream.until_done().get_final_response().output_text == SAID
    tool: Any = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(openai.BadRequestError, match=r"does not know \[tools\]"):
        client.chat.completions.create(model="toolkit", messages=messages, tools=[tool])
