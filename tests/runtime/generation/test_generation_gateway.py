"""A local model that generates text behind a running gateway, called by the official clients of every face."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest
from elasticsearch import Elasticsearch
from huggingface_hub import InferenceClient
from running_gateway import RunningGateway
from tiny_writer import ANSWERS, change, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubgate.settings import Settings

CHAT = ANSWERS["qwen2"]["chat"][1]
FERRY = ANSWERS["qwen2"]["complete"][0]
MESSAGES: Any = [{"role": "user", "content": CHAT["prompt"]}]


@pytest.fixture
def writer(settings: Settings, tmp_path: Path) -> Iterator[RunningGateway]:
    folder = unpack("qwen2", tmp_path / "tiny-qwen2")
    with RunningGateway(settings) as gateway:
        shown = gateway.add("writer", source="local", model=str(folder), task="chat_completion")
        assert {"engine": "openvino", "chats": True, "completes": True}.items() <= shown["facts"].items()
        assert shown["facts"]["max_input_tokens"] == 256
        yield gateway


def test_registration_names_the_rule_that_is_not_applied(settings: Settings, tmp_path: Path) -> None:
    folder = unpack("qwen2", tmp_path / "tiny-qwen2")
    change(folder, "generation_config.json", no_repeat_ngram_size=3, suppress_tokens=[340])
    form = {"name": "writer", "source": "local", "model": str(folder), "task": "chat_completion"}
    with RunningGateway(settings) as gateway:
        refused = gateway.request("POST", "/api/endpoints", form)
        error = refused.json()["error"]
        assert (refused.status, error["cause"]) == (424, "model_unusable")
        assert "generation_config.json sets no_repeat_ngram_size, suppress_tokens" in error["message"]
        change(folder, "generation_config.json", no_repeat_ngram_size=0, suppress_tokens=None)
        assert gateway.request("POST", "/api/endpoints", form).status == 201


def test_every_face_generates_the_same_text(writer: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{writer.url}/v1", api_key=writer.admin_key, max_retries=0) as client:
        check_openai(client)
    check_huggingface(InferenceClient(base_url=f"{writer.url}/hf/writer", api_key=writer.admin_key))
    with Elasticsearch(writer.url, api_key=writer.admin_key, request_timeout=240) as elastic:
        check_elasticsearch(elastic, writer)
    if sys.platform == "linux":
        assert (
            'hubgate_local_model_bytes{model="tiny-qwen2"' in writer.request("GET", "/metrics").body.decode()
        )


def check_openai(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="writer", messages=MESSAGES, user="someone")
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (CHAT["text"], "stop")
    assert whole.usage is not None
    usage = (CHAT["prompt_tokens"], CHAT["tokens"])
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == usage
    *chunks, last = client.chat.completions.create(
        model="writer", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == CHAT["text"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert last.usage == whole.usage
    text = client.completions.create(model="writer", prompt=FERRY["prompt"], stop=["nine"], echo=True)
    assert (text.choices[0].text, text.choices[0].finish_reason) == (
        "The ferry leaves the harbour at ",
        "stop",
    )
    pieces = client.completions.create(model="writer", prompt=FERRY["prompt"], max_tokens=3, stream=True)
    found = [choice for piece in pieces for choice in piece.choices]
    assert FERRY["text"].startswith("".join(choice.text for choice in found))
    assert found[-1].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match=r"a local model, does not support \[logit_bias\]"):
        client.chat.completions.create(model="writer", messages=MESSAGES, logit_bias={"1": 5})
    with pytest.raises(openai.BadRequestError, match="reads and writes at most 256 together") as failed:
        client.completions.create(model="writer", prompt="zq" * 200)
    assert failed.value.code == "input_too_long"


def check_huggingface(client: InferenceClient) -> None:
    found = client.text_generation(FERRY["prompt"], details=True, return_full_text=True)
    assert found.generated_text == FERRY["prompt"] + FERRY["text"]
    assert found.details is not None
    assert (found.details.finish_reason, found.details.generated_tokens) == ("eos_token", FERRY["tokens"])
    assert "".join(client.text_generation(FERRY["prompt"], stream=True)) == FERRY["text"]
    drawn = [client.text_generation("The", temperature=3.0, seed=5, max_new_tokens=9) for _ in range(2)]
    assert drawn[0] == drawn[1]
    chunks = client.chat_completion(MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == CHAT["text"]


def check_elasticsearch(client: Elasticsearch, gateway: RunningGateway) -> None:
    gateway.add("text", source="local", model=gateway_model(gateway), task="completion")
    found = client.inference.completion(inference_id="text", input=CHAT["prompt"])
    assert found["completion"][0]["result"] == CHAT["text"]
    body = gateway.request(
        "POST", "/_inference/chat_completion/writer/_stream", {"messages": MESSAGES}
    ).body.decode()
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    texts = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    assert "".join(texts) == CHAT["text"]


def gateway_model(gateway: RunningGateway) -> str:
    return str(gateway.request("GET", "/api/endpoints/writer").json()["model"])


def test_text2text_model_completes_on_every_face(writer: RunningGateway, tmp_path: Path) -> None:
    translation = ANSWERS["t5"]["greedy"][0]
    folder = unpack("t5", tmp_path / "tiny-t5")
    shown = writer.add("t5", source="local", model=str(folder), task="text2text-generation")
    assert (shown["task"], shown["facts"]["chats"]) == ("completion", False)
    client = InferenceClient(base_url=f"{writer.url}/hf/t5", api_key=writer.admin_key)
    assert client.text_generation(translation["prompt"]) == translation["text"]
    body = {"model": "t5", "prompt": translation["prompt"]}
    assert writer.request("POST", "/v1/completions", body).json()["choices"][0]["text"] == translation["text"]
    found = writer.request("POST", "/_inference/completion/t5", {"input": translation["prompt"]}).json()
    assert found["completion"][0]["result"] == translation["text"]
    refused = writer.request("POST", "/v1/chat/completions", {"model": "t5", "messages": MESSAGES})
    assert refused.status == 400
    assert "has no chat template" in refused.json()["error"]["message"]


def test_killed_worker_is_restarted_within_the_call(writer: RunningGateway) -> None:
    body = {"model": "writer", "prompt": FERRY["prompt"]}
    (model,) = [model for key, model in writer.service._sources._local._models.items() if key.generates]  # type: ignore[attr-defined]
    os.kill(model._start.result().pid, signal.SIGKILL)
    reply = writer.request("POST", "/v1/completions", body)
    assert reply.json()["choices"][0]["text"] == FERRY["text"]
