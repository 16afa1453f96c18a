"""`hubgate search`, through a running gateway and without one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from lookalikes.hub_api import PROMPTS, HubModels
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command
    from lookalikes.hub_api import HubApi

    from hubgate.settings import Settings


@pytest.fixture
def gateway(settings: Settings, hub_site: HubApi) -> Iterator[RunningGateway]:
    with RunningGateway(replace(settings, hf_endpoint=hub_site.url)) as running:
        yield running


def test_models_are_listed_with_the_command_to_add_one(gateway: RunningGateway, hubgate: Command) -> None:
    found = hubgate("search", "--task", "feature-extraction", "--limit", "2")
    assert found.status == 0
    assert [row[0] for row in found.rows] == ["BAAI/bge-m3", "sentence-transformers/all-MiniLM-L6-v2"]
    assert found.out.splitlines()[2].split()[1:3] == ["text_embedding", "hf-inference"]
    assert "hubgate add NAME --local BAAI/bge-m3" in found.err
    assert "--url URL" in found.err


def test_hint_shows_an_add_command_that_fits_the_task(gateway: RunningGateway, hubgate: Command) -> None:
    served = "hubgate add NAME --hosted meta/llama --task chat_completion --token-env VARIABLE"
    assert served in hubgate("search", "--task", "chat_completion", "--served").err
    assert served in hubgate("search", "llama").err
    assert "--hosted meta/llama --task completion " in hubgate("search", "--task", "text-generation").err
    embedder = "hubgate add NAME --hosted sentence-transformers/all-MiniLM-L6-v2 --token-env"
    assert embedder in hubgate("search", "minilm").err
    ranker = hubgate("search", "--task", "rerank").err
    assert "hubgate add NAME --local org/reranker --task rerank\n" in ranker
    assert "--hosted" not in ranker, "no provider serves it"


def test_served_and_text_filter_results_and_counts_are_abbreviated(
    gateway: RunningGateway, hubgate: Command
) -> None:
    (llama,) = hubgate("search", "LLAMA", "--served").rows
    assert llama == [
        *("meta/llama", "completion,", "chat_completion", "groq", "131072", "tokens"),
        *("8.0B", "1.0k", "7", "none", "named", "gated"),
    ]
    chat = hubgate("search", "llama")
    assert "--local" not in chat.err, "a model that chats is not run on this machine"
    assert hubgate("search", "llama", "--not-served").out.startswith("No models found.")


def test_search_errors_are_reported_in_one_line(
    gateway: RunningGateway, hub_site: HubApi, hubgate: Command
) -> None:
    assert "[task] is not valid: dance" in hubgate("search", "--task", "dance").err
    hub_site.fail("failing")
    failed = hubgate("search", "other")
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith("hubgate: The Hub failed.")
    assert failed.err.count("\n") == 1


def test_search_queries_the_hub_without_a_running_gateway(
    hub_site: HubApi, hubgate: Command, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It creates no home."""
    monkeypatch.setenv("HF_ENDPOINT", hub_site.url)
    found = hubgate("search", "splade")
    assert [row[0] for row in found.rows] == ["org/splade"]
    assert "admin key" not in found.err
    assert not settings.home.exists()


def test_card_shows_what_to_know_before_choosing_a_model(settings: Settings, hubgate: Command) -> None:
    name = "jinaai/jina-embeddings-v5-text-small"
    results = [
        {
            "task": {"type": "STS"},
            "dataset": {"type": "mteb/sts12", "name": "MTEB STS12"},
            "metrics": [{"type": "cos_sim_spearman", "value": 70.5}],
        }
    ]
    hub = HubModels(
        {name: {PROMPTS: {"prompts": {"query": "Query: "}}, "config.json": {"hidden_size": 1024}}},
        {
            name: {
                "tags": ["license:cc-by-nc-4.0"],
                "pipeline_tag": "feature-extraction",
                "cardData": {"language": ["multilingual"]},
                "model-index": [{"results": results}],
            }
        },
    )
    with hub.running(), RunningGateway(replace(settings, hf_endpoint=hub.url)):
        fields = hubgate("card", name).fields
    assert fields["license"] == "cc-by-nc-4.0 (no commercial use)"
    assert (fields["languages"], fields["dimensions"], fields["max input"]) == (
        "multilingual",
        "1024",
        "unknown",
    )
    assert fields["prompt query"] == '"Query: "'
    assert fields["prefix for search"] == '"Query: " (from the model\'s files)'
    assert fields["MTEB STS"] == "70.5 (one dataset on its card)"


def test_card_shows_the_prefixes_of_hubgates_table(settings: Settings, hubgate: Command) -> None:
    names = ("intfloat/e5-small-v2", "someone/tiny", "org/unknown", "BAAI/bge-m3")
    copied = {"tags": ["base_model:quantized:intfloat/e5-small-v2"]}
    cards = {name: {"pipeline_tag": "feature-extraction"} for name in names}
    hub = HubModels({name: {} for name in names}, {**cards, "someone/tiny": cards["someone/tiny"] | copied})
    with hub.running(), RunningGateway(replace(settings, hf_endpoint=hub.url)):
        cards_shown = [hubgate("card", name).fields for name in names]
    known, copy, unknown, without = cards_shown
    for fields in (known, copy):
        assert fields["prefix for search"] == "\"query: \" (from hubgate's table, by the model's name)"
        assert fields["prefix for ingest"] == "\"passage: \" (from hubgate's table, by the model's name)"
    assert unknown["prefixes"] == "none (none is known)"
    assert without["prefixes"] == "none (from hubgate's table, by the model's name)"
