"""Hugging Face's clients against a real gateway in front of generation and rerank servers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import GenerationError, ValidationError
from models import PROMPT, SAID, gateway_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalikes import LookAlike
    from running_gateway import RunningGateway

    from hubgate.settings import Settings

ROOT = Path(__file__).parents[2]
NPM_FOLDER = ROOT / "build" / "clients" / "npm"
NPM_PACKAGE = "@huggingface/inference@4.13"


@pytest.fixture
def gateway_and_servers(settings: Settings) -> Iterator[tuple[RunningGateway, dict[str, LookAlike]]]:
    with gateway_with(settings, "vllm", "text", "tgi") as opened:
        yield opened


def client_of(gateway: RunningGateway, name: str) -> InferenceClient:
    return InferenceClient(base_url=f"{gateway.url}/hf/{name}", api_key=gateway.admin_key)


@pytest.mark.parametrize("name", ["vllm", "text", "tgi"])
def test_text_generation_with_details_works_with_and_without_streaming(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]], name: str
) -> None:
    client = client_of(gateway_and_servers[0], name)
    assert client.text_generation(PROMPT) == SAID
    assert client.text_generation(PROMPT, return_full_text=True) == PROMPT + SAID
    whole = client.text_generation(PROMPT, details=True, max_new_tokens=2)
    assert whole.generated_text == "You said:"
    assert whole.details is not None
    assert (whole.details.finish_reason, whole.details.generated_tokens) == ("length", 2)
    assert "".join(client.text_generation(PROMPT, stream=True)) == SAID
    *events, last = client.text_generation(PROMPT, stream=True, details=True, return_full_text=True)
    told = [event.token.text for event in (*events, last) if not event.token.special]
    assert "".join(told) == SAID
    assert last.generated_text == PROMPT + SAID
    assert last.details is not None
    details = last.details
    assert (details.finish_reason, details.generated_tokens, details.input_length) == ("eos_token", 4, 2)
    assert [event.index for event in (*events, last)] == list(range(1, len(events) + 2))


@pytest.mark.parametrize("name", ["vllm", "tgi"])
def test_chat_works_with_and_without_streaming(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]], name: str
) -> None:
    client = client_of(gateway_and_servers[0], name)
    messages = [{"role": "user", "content": PROMPT}]
    assert client.chat_completion(messages).choices[0].message.content == SAID
    chunks = client.chat_completion(messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID


def test_sentence_similarity_works(gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]]) -> None:
    client = client_of(gateway_and_servers[0], "fake")
    one, other = client.sentence_similarity("the gate", other_sentences=["the gate", "a harbour"])
    assert one == pytest.approx(1.0)
    assert -1 <= other < 1


def test_generation_errors_have_their_own_class(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    client = client_of(gateway_and_servers[0], "text")
    with pytest.raises(ValidationError, match="does not support"):
        client.text_generation(PROMPT, watermark=True)
    for fault in ("cut", "error-event"):
        gateway_and_servers[1]["text"].fail(fault, times=1)
        with pytest.raises(GenerationError):
            list(client.text_generation(PROMPT, stream=True))
    with pytest.raises(Exception, match="serves text_embedding, not completion or chat_completion"):
        client_of(gateway_and_servers[0], "fake").chat_completion([{"role": "user", "content": PROMPT}])


def test_error_in_chat_stream_shows_hubgate_message(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    """huggingface_hub raises its own class; OpenAI's client at the same URL gets OpenAI's format."""
    gateway, servers = gateway_and_servers
    messages = [{"role": "user", "content": PROMPT}]
    servers["vllm"].fail("error-event", times=1)
    hub = client_of(gateway, "vllm")  # a client that is gone closes its streams
    with pytest.raises(GenerationError, match="out of cache blocks"):
        list(hub.chat_completion(messages, stream=True))
    servers["vllm"].fail("error-event", times=1)
    url = f"{gateway.url}/hf/vllm/v1"
    with openai.OpenAI(base_url=url, api_key=gateway.admin_key, max_retries=0) as client:
        asked: Any = {"model": "any", "messages": messages, "stream": True}
        with pytest.raises(openai.APIError, match="out of cache blocks"):
            list(client.chat.completions.create(**asked))


def test_the_javascript_client_generates_embeds_and_chats(
    gateway_and_servers: tuple[RunningGateway, dict[str, LookAlike]],
) -> None:
    node = npm_client()
    gateway = gateway_and_servers[0]
    done = subprocess.run(
        [node, str(Path(__file__).parent / "huggingface_inference.mjs")],
        input=json.dumps(
            {"url": gateway.url, "key": gateway.admin_key, "prompt": PROMPT, "modules": str(NPM_FOLDER)}
        ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["generated"] == told["streamed"] == told["chatted"] == told["chatStreamed"] == SAID
    assert told["dimensions"] == [8, 8]
    assert told["similar"] == pytest.approx([1.0])
    assert told["error"].startswith("[inputs] is an empty list.")
    assert told["chatError"].startswith("Endpoint [fake] serves text_embedding")


def npm_client() -> str:
    """Node, with the client installed; the test is skipped where either cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed.")
    if not (NPM_FOLDER / "node_modules" / "@huggingface" / "inference").exists():
        NPM_FOLDER.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save"]
        command = [npm, "install", "--prefix", str(NPM_FOLDER), *quiet, NPM_PACKAGE]
        try:
            subprocess.run(command, capture_output=True, timeout=240, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"{NPM_PACKAGE} cannot be had from npm.")
    return node
