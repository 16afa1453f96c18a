"""Prefixes from registration to the model's server: the look-alikes of the Hub and the engines speak HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.hub_api import PROMPTS, TOKEN, HubModels
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command

    from hubgate.settings import Settings

MODEL = "org/model"
SERVED = {"provider": "hf-inference", "status": "live", "providerId": MODEL, "task": "feature-extraction"}
FILES = {
    MODEL: {
        PROMPTS: {"prompts": {"web_search_query": "Instruct: search\nQuery: ", "sts_query": "same: "}},
    }
}


@pytest.fixture
def hub() -> Iterator[HubModels]:
    site = HubModels(FILES, {MODEL: {"inferenceProviderMapping": [SERVED]}})
    with site.running():
        yield site


def embed(gateway: RunningGateway, input_type: str) -> None:
    body = {"model": "e", "input": "cats", "input_type": input_type}
    assert gateway.request("POST", "/v1/embeddings", body).status == 200


@pytest.mark.parametrize("engine", ["tei", "vllm", "llamacpp", "infinity", "toolkit"])
def test_remote_model_gets_its_own_prompts(settings: Settings, hub: HubModels, engine: str) -> None:
    with (
        lookalike(engine, name=MODEL) as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway,
    ):
        shown = gateway.add("e", url=server.url, model=MODEL)
        assert shown["prefixes"] == {"search": "Instruct: search\nQuery: "}
        assert set(shown["prefix_sources"].values()) == {"model"}
        embed(gateway, "query")
        assert server.posts[-1].texts == ["Instruct: search\nQuery: cats"]
        embed(gateway, "document")
        assert server.posts[-1].texts == ["cats"]


def test_hosted_model_gets_its_own_prompts(settings: Settings, hub: HubModels) -> None:
    with (
        lookalike("router", name=MODEL, key=TOKEN) as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url, router_url=server.url)) as gateway,
    ):
        shown = gateway.add("e", source="router", model=MODEL, token=TOKEN)
        assert set(shown["prefix_sources"].values()) == {"model"}
        embed(gateway, "query")
        assert server.posts[-1].texts == ["Instruct: search\nQuery: cats"]


def test_prompt_that_tei_adds_itself_is_not_doubled(settings: Settings, hub: HubModels) -> None:
    with (
        lookalike("tei", name=MODEL, default_prompt="query: ") as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway,
    ):
        shown = gateway.add("e", url=server.url)
        assert (shown["prefixes"], set(shown["prefix_sources"].values())) == ({}, {"server"})
        assert "[query:]" in shown["facts"]["warnings"][0]
        embed(gateway, "query")
        assert server.posts[-1].texts == ["cats"]


def test_default_prompt_that_the_toolkit_adds_itself_is_not_doubled(settings: Settings) -> None:
    hub = HubModels({MODEL: {PROMPTS: {"prompts": {"query": "q: "}, "default_prompt_name": "query"}}})
    with (
        hub.running(),
        lookalike("toolkit", name=MODEL) as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway,
    ):
        shown = gateway.add("e", url=server.url, model=MODEL)
        assert (shown["prefixes"], set(shown["prefix_sources"].values())) == ({}, {"server"})


def test_commands_and_diagnosis_show_prefixes_and_choose_a_prompt(
    settings: Settings, hub: HubModels, hubgate: Command
) -> None:
    query = r'prefix for search  "Instruct: search\nQuery: " (from the model' + "'s files)"
    with (
        lookalike("tei", name=MODEL) as server,
        RunningGateway(replace(settings, hf_endpoint=hub.url)) as gateway,
    ):
        assert hubgate("add", "e", "--url", server.url).status == 0
        shown = hubgate("show", "e").out
        assert query in shown
        assert 'prompt sts_query  "same: "' in shown
        doctor = hubgate("doctor", "e").out
        assert query in doctor
        assert "prefix for ingest  none (from the model's files)" in doctor
        assert hubgate("edit", "e", "--prompt-query", "sts_query").status == 0
        assert 'prefix for search  "same: " (set by the operator)' in hubgate("show", "e").out
        steps: Any = gateway.request("POST", "/api/endpoints/e/diagnose").json()["steps"]
        assert steps[-1]["prefix_sources"]["search"] == "operator"
        hubgate("edit", "e", "--unset", "prompt_names")
        assert query in hubgate("show", "e").out
