"""A gateway reports the tokens that the model read, whatever its server reports, without a second request."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.hub import Hub, running_hub
from running_gateway import RunningGateway
from scripted_gateway import Script
from tokenizers import Tokenizer

from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.service.registry.validation import validate_endpoint
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.domain.endpoint import Facts
    from hubgate.domain.ports import Counter
    from hubgate.settings import Settings

NAMES = ("tokenizer.json", "config.json", "sentence_bert_config.json", "tokenizer_config.json")
TEXTS = [
    f"{'tokenizers ' * (number % 7)}quaternions, hyphenation and Straße {number}" for number in range(64)
]
LIMIT = 256


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    folder = packaged("sentence-transformers/all-MiniLM-L6-v2")
    assert folder is not None
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    with running_hub(files) as server:
        yield server


@pytest.fixture(scope="module")
def tokenizer(files: dict[str, bytes]) -> Tokenizer:
    made = Tokenizer.from_str(files["tokenizer.json"].decode())
    made.no_truncation()
    made.no_padding()
    return made


def usage(gateway: RunningGateway, texts: str | list[str], model: str = "e5") -> Any:
    reply = gateway.request("POST", "/v1/embeddings", {"model": model, "input": texts})
    assert reply.status == 200, reply.body
    return reply.json()["usage"]


def exactly(*counts: int) -> dict[str, int]:
    return {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}


def counted(tokenizer: Tokenizer, text: str) -> int:
    return min(len(tokenizer.encode(text).ids), LIMIT)


@pytest.mark.parametrize("engine", ["infinity", "sglang"])
def test_reports_the_models_tokens_when_the_server_counts_differently(
    settings: Settings, hub: Hub, tokenizer: Tokenizer, engine: str
) -> None:
    with lookalike(engine) as server, RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway:
        shown = gateway.add("e5", url=server.url, prefixes={"search": "query: "})
        assert shown["facts"]["token_counts"] == "tokenizer"
        fetched, asked = len(hub.asked), len(server.posts)
        assert usage(gateway, TEXTS) == exactly(*(counted(tokenizer, text) for text in TEXTS))
        assert usage(gateway, "short", "e5:query") == exactly(counted(tokenizer, "query: short"))
        assert sum(map(len, server.batches[asked:])) == len(TEXTS) + 1
        assert {request.path for request in server.posts} == {"/v1/embeddings"}
        # What is remembered is remembered with its number.
        asked = len(server.posts)
        assert usage(gateway, TEXTS[:3]) == exactly(*(counted(tokenizer, text) for text in TEXTS[:3]))
        assert (len(server.posts), len(hub.asked)) == (asked, fetched)


@pytest.mark.parametrize("engine", ["infinity", "vllm"])
def test_batched_calls_each_report_their_own_tokens(
    settings: Settings, hub: Hub, tokenizer: Tokenizer, engine: str
) -> None:
    # Words that are one token each: of a call that went alone vLLM's own number is taken, and it must be the same.
    texts = [f"{'hello ' * (number % 9)}{number}" for number in range(64)]
    with (
        lookalike(engine, seconds=0.05) as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway,
    ):
        gateway.add("e5", url=server.url, rate_limit={"max_concurrent_requests": 1, "burst": 64})
        asked = len(server.posts)
        with ThreadPoolExecutor(64) as callers:
            told = list(callers.map(lambda text: usage(gateway, text), texts))
        assert told == [exactly(counted(tokenizer, text)) for text in texts]
        batches = server.batches[asked:]
        assert sorted(text for batch in batches for text in batch) == sorted(texts)
        assert max(map(len, batches)) > 1


def test_silent_truncation_is_counted_up_to_the_limit_and_reported(settings: Settings, hub: Hub) -> None:
    with lookalike("infinity") as server, RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway:
        assert gateway.add("e5", url=server.url)["max_input_tokens"] == LIMIT
        assert usage(gateway, ["hello", "word " * 300]) == {**exactly(3, LIMIT), "truncated_inputs": 1}
        reply = gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "word " * 300})
        assert reply.headers["x-hubgate-truncated"] == "1"


def test_file_path_is_not_used_as_a_hub_repository(settings: Settings, hub: Hub) -> None:
    """llama.cpp names its model by the file that it was started with."""
    with (
        lookalike("llamacpp", name="gguf/bert.gguf") as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway,
    ):
        gateway.add("path", url=server.url)
        gateway.add("named", url=server.url, model="org/bert")
    assert not any("bert.gguf" in path for path in hub.asked)


def test_tokens_are_counted_after_a_restart_without_the_hub(
    settings: Settings, files: dict[str, bytes]
) -> None:
    with lookalike("infinity") as server:
        with running_hub(files) as hub, RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway:
            gateway.add("e5", url=server.url)
        with RunningGateway(replace(settings, admin_key="a-new-key-for-this-run")) as gateway:
            assert usage(gateway, "hello world") == exactly(4)


def test_model_is_registered_without_the_hub_and_its_usage_marked_as_estimated(
    settings: Settings,
) -> None:
    with lookalike("infinity") as server, RunningGateway(settings) as gateway:
        shown = gateway.add("e5", url=server.url)
        assert shown["facts"]["token_counts"] == "estimated"
        assert any("Tokens are estimated" in warning for warning in shown["facts"]["warnings"])
        told = usage(gateway, "hello world")
        assert told.pop("estimated") is True
        assert told["prompt_tokens"] > 0


@pytest.mark.parametrize("engine", ["tei", "vllm", "llamacpp"])
def test_exact_server_token_counts_are_used(settings: Settings, engine: str) -> None:
    with lookalike(engine) as server, RunningGateway(settings) as gateway:
        shown = gateway.add("e5", url=server.url)
        assert shown["facts"]["token_counts"] == "engine"
        assert not any("estimate" in warning for warning in shown["facts"].get("warnings", ()))
        assert usage(gateway, "hello world") == exactly(4)
        assert json.loads(server.posts[-1].body)


class Closing(Script):
    """A model that records when it is closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True


class Waiting:
    """Counters that never get what they ask for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def learn(self, target: Target) -> Facts:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    def open(self, endpoint: Endpoint) -> Counter | None:
        return None


async def test_cancelling_while_the_hub_is_requested_closes_the_model() -> None:
    script, counters = Closing(), Waiting()
    draft = Endpoint(name="e5", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
    asking = asyncio.create_task(
        validate_endpoint(script, Target(draft), None, learn=True, counters=counters)
    )
    await counters.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert script.closed
