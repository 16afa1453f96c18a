"""Which prefixes an endpoint gets, where they are from, and what its operator is warned of."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import dedicated

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Endpoint, Engine, Facts, InputType, PrefixSource
from hubgate.domain.errors import InvalidEndpoint, InvalidRequest
from hubgate.domain.hub import ModelPrompts
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stub_sources import StubSources

    from hubgate.store.store import SqlStore

SEARCH, INGEST = InputType.SEARCH, InputType.INGEST
SEVERAL = {"s2s_query": "similar: ", "sts_query": "same: "}


@pytest.fixture
async def gateway(store: SqlStore, sources: StubSources) -> AsyncIterator[Gateway]:
    opened = Gateway(store, sources, Pipelines(None, time.monotonic))
    yield opened
    await opened.close()


def serve(sources: StubSources, model: str, prompts: ModelPrompts | None, **facts: object) -> None:
    sources.facts = Facts(engine=Engine.TEI, model=model, **facts)  # type: ignore[arg-type]
    sources.prompts = prompts


def only(endpoint: Endpoint) -> PrefixSource:
    """The source of all input types."""
    assert len(endpoint.prefix_sources) == len(InputType)
    (source,) = set(endpoint.prefix_sources.values())
    return source


async def test_models_own_prompts_take_precedence_over_the_table(
    gateway: Gateway, sources: StubSources
) -> None:
    prompts = {"query": "own: ", "document": "", "Clustering": "group: "}
    serve(sources, "intfloat/e5-small-v2", ModelPrompts(texts=prompts))
    found = await gateway.registry.register(dedicated(), None)
    assert found.effective_prefixes == {SEARCH: "own: ", InputType.CLUSTERING: "group: "}
    assert (only(found), found.facts.prompts, found.facts.warnings) == (PrefixSource.MODEL, prompts, ())


@pytest.mark.parametrize("prompts", [ModelPrompts(), ModelPrompts(texts={"query": "", "document": ""}), None])
async def test_table_decides_if_the_files_have_no_prompts_or_cannot_be_read(
    gateway: Gateway, sources: StubSources, prompts: ModelPrompts | None
) -> None:
    serve(sources, "intfloat/e5-small-v2", prompts)
    found = await gateway.registry.register(dedicated(), None)
    assert (found.effective_prefixes[SEARCH], found.effective_prefixes[INGEST]) == ("query: ", "passage: ")
    assert (only(found), found.facts.warnings) == (PrefixSource.TABLE, ())
    assert (found.facts.prompts is None) == (prompts is None)


async def test_model_known_to_neither_files_nor_table_gets_none(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "org/model", ModelPrompts())
    found = await gateway.registry.register(dedicated(), None)
    assert (only(found), found.effective_prefixes, found.facts.warnings) == (PrefixSource.NONE, {}, ())


async def test_warns_if_the_files_of_an_unknown_model_cannot_be_read(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "org/model", None)
    found = await gateway.registry.register(dedicated(), None)
    (warning,) = found.facts.warnings
    assert "could not be read" in warning
    assert "The Hub is down." in warning


async def test_warns_of_unused_prompts_until_one_is_chosen(gateway: Gateway, sources: StubSources) -> None:
    serve(sources, "org/model", ModelPrompts(texts=SEVERAL))
    found = await gateway.registry.register(dedicated(), None)
    (warning,) = found.facts.warnings
    assert "s2s_query, sts_query" in warning
    chosen = await gateway.registry.edit(replace(found, prompt_names={SEARCH: "s2s_query"}))
    assert (chosen.effective_prefixes, chosen.facts.warnings) == ({SEARCH: "similar: "}, ())
    assert chosen.prefix_sources[SEARCH] is PrefixSource.OPERATOR
    assert chosen.prefix_sources[INGEST] is PrefixSource.NONE


async def test_prefixes_of_the_operator_take_precedence_over_prompts(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "org/model", ModelPrompts(texts=SEVERAL))
    found = await gateway.registry.register(dedicated(prefixes={INGEST: "mine: "}), None)
    assert (found.effective_prefixes, only(found)) == ({INGEST: "mine: "}, PrefixSource.OPERATOR)
    assert found.facts.warnings == ()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (ModelPrompts(texts=SEVERAL), r"no prompt named \[query\]"),
        (None, r"not known, so \[query\] in \[prompt_names\] is not. The Hub is down."),
    ],
)
async def test_unknown_prompt_name_is_rejected(
    gateway: Gateway, sources: StubSources, prompts: ModelPrompts | None, message: str
) -> None:
    serve(sources, "org/model", prompts)
    with pytest.raises(InvalidEndpoint, match=message):
        await gateway.registry.register(dedicated(prompt_names={SEARCH: "query"}), None)
    assert gateway.registry.endpoints() == []


async def test_default_prompt_is_used_for_input_types_without_a_prompt(
    gateway: Gateway, sources: StubSources
) -> None:
    prompts = ModelPrompts(texts={"query": "q: ", "document": "", "any": "text: "}, default="any")
    serve(sources, "org/model", prompts)
    found = await gateway.registry.register(dedicated(), None)
    assert found.effective_prefixes == {
        SEARCH: "q: ",
        InputType.CLASSIFICATION: "text: ",
        InputType.CLUSTERING: "text: ",
    }


async def test_prompts_are_not_doubled_if_the_server_adds_one(gateway: Gateway, sources: StubSources) -> None:
    serve(sources, "intfloat/e5-small-v2", ModelPrompts())
    sources.added = "query:"
    found = await gateway.registry.register(dedicated(), None)
    assert (found.effective_prefixes, only(found)) == ({}, PrefixSource.SERVER)
    (warning,) = found.facts.warnings
    assert "[query:]" in warning


async def test_known_prompts_are_kept_while_the_hub_is_down(gateway: Gateway, sources: StubSources) -> None:
    serve(sources, "org/model", ModelPrompts(texts={"query": "q: "}))
    found = await gateway.registry.register(dedicated(), Secret("hf_one"))
    sources.prompts = None
    renewed = await gateway.registry.edit(found, Secret("hf_two"))
    assert sources.detections == 2
    assert renewed.facts == found.facts


async def test_warns_if_the_prefixes_of_the_same_model_change(gateway: Gateway, sources: StubSources) -> None:
    serve(sources, "org/model", ModelPrompts(texts={"query": "q: "}))
    found = await gateway.registry.register(dedicated(), Secret("hf_one"))
    sources.prompts = ModelPrompts(texts={"query": "ask: "})
    (warning,) = (await gateway.registry.edit(found, Secret("hf_two"))).facts.warnings
    assert "search was [q: ] and is [ask: ]" in warning


async def test_warns_if_the_server_pools_otherwise_than_the_model(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "org/model", ModelPrompts(pooling="lasttoken"), pooling="last_token")
    assert (await gateway.registry.register(dedicated("same"), None)).facts.warnings == ()
    serve(sources, "org/model", ModelPrompts(pooling="lasttoken"), pooling="cls")
    (warning,) = (await gateway.registry.register(dedicated("other"), None)).facts.warnings
    assert "pools by cls" in warning


async def test_warns_if_the_model_excludes_its_prompt_from_pooling(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "org/model", ModelPrompts(texts={"query": "q: "}, pools_prompt=False))
    (warning,) = (await gateway.registry.register(dedicated(), None)).facts.warnings
    assert "excludes its prompt" in warning


async def test_warns_if_the_model_asks_for_a_suffix(gateway: Gateway, sources: StubSources) -> None:
    serve(sources, "org/model", ModelPrompts(texts={"query": "q: "}, suffix="<|im_end|>"))
    (warning,) = (await gateway.registry.register(dedicated(), None)).facts.warnings
    assert "suffix [<|im_end|>]" in warning


async def test_copy_gets_the_prefixes_of_the_table_for_its_original(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "someone/tiny-embedder", ModelPrompts(original="intfloat/e5-small-v2"))
    found = await gateway.registry.register(dedicated(), Secret("hf_one"))
    assert (found.effective_prefixes[SEARCH], found.effective_prefixes[INGEST]) == ("query: ", "passage: ")
    assert (only(found), found.facts.warnings) == (PrefixSource.TABLE, ())
    sources.prompts = None
    assert (await gateway.registry.edit(found, Secret("hf_two"))).facts == found.facts, (
        "while the Hub is down"
    )


async def test_vectors_are_shortened_to_the_sizes_of_the_card_or_from_the_operators_on(
    gateway: Gateway, sources: StubSources
) -> None:
    serve(sources, "someone/tuned", ModelPrompts(shorter_dimensions=(2, 3)))
    sources.vector = (0.6, 0.0, 0.8, 0.0)
    found = await gateway.registry.register(dedicated(), None)
    assert found.facts.shorter_dimensions == (2, 3)
    assert len((await gateway.inference.embed("e5", Embed(texts=["a"], dimensions=2))).items[0]) == 8
    with pytest.raises(InvalidRequest, match="may be truncated to 2 or 3"):
        await gateway.inference.embed("e5", Embed(texts=["a"], dimensions=1))
    detections = sources.detections
    await gateway.registry.edit(replace(found, min_dimensions=1))
    assert sources.detections == detections, "the model need not be called again"
    assert len((await gateway.inference.embed("e5", Embed(texts=["a"], dimensions=1))).items[0]) == 4
    sources.prompts = None
    renewed = await gateway.registry.edit(gateway.registry.find("e5"), Secret("hf_two"))
    assert renewed.facts.shorter_dimensions == (2, 3), "while the Hub is down"


@pytest.mark.parametrize(
    ("model", "prompts", "warned"),
    [
        (
            "someone/my-search",
            ModelPrompts(tuned_from="intfloat/e5-base-v2"),
            "is a fine-tune of intfloat/e5-base-v2, which needs prefixes (search: [query: ]",
        ),
        ("someone/my-search", ModelPrompts(tuned_from="org/plain"), ""),
        ("someone/my-search", ModelPrompts(texts={"query": "q: "}, tuned_from="intfloat/e5-base-v2"), ""),
        (
            "someone/bge-base-en-v1.5-legal",
            ModelPrompts(),
            "The prefixes are those of BAAI/bge-large-en-v1.5",
        ),
        (
            "someone/bge-base-en-v1.5",
            ModelPrompts(tuned_from="BAAI/bge-base-en-v1.5"),
            "which seems to be a fine-tune",
        ),
        (
            "someone/bge-base-en-v1.5-legal",
            ModelPrompts(original="BAAI/bge-base-en-v1.5"),
            "",
        ),
        ("Qwen/Qwen3-Embedding-0.6B", ModelPrompts(tuned_from="Qwen/Qwen3-0.6B-Base"), ""),
        ("hkunlp/instructor-xl", ModelPrompts(), "expects an instruction before each text"),
        (
            "someone/quantized",
            ModelPrompts(original="hkunlp/instructor-xl"),
            "expects an instruction before each text",
        ),
    ],
)
async def test_warns_of_prefixes_that_a_fine_tune_may_need_or_not(
    gateway: Gateway, sources: StubSources, model: str, prompts: ModelPrompts, warned: str
) -> None:
    serve(sources, model, prompts)
    warnings = (await gateway.registry.register(dedicated(), None)).facts.warnings
    if not warned:
        assert warnings == ()
        return
    (warning,) = warnings
    assert warned in warning
    chosen = await gateway.registry.register(dedicated("chosen", prefixes={SEARCH: "mine: "}), None)
    assert chosen.facts.warnings == ()
