"""The prompts of remote models are read from the Hub, and are never made up."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.hub_api import PROMPTS, HubModels

from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.errors import HubgateError, UpstreamUnreachable
from hubgate.domain.hub import ModelPrompts
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.hub.client import HubClient, open_hub
from hubgate.upstreams.hub.prompts import read_prompts
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POOLING = "1_Pooling/config.json"
NESTED = """# A model
* Loss: [<code>MatryoshkaLoss</code>](https://sbert.net) with these parameters:
  ```json
  {
      "loss": "CoSENTLoss",
      "matryoshka_dims": [
          768,
          256,
          64
      ],
      "matryoshka_weights": [1, 1, 1]
  }
  ```
"""
QUERY = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}


@pytest.fixture
def site() -> Iterator[HubModels]:
    files: dict[str, dict[str, Any]] = {
        "org/model": {
            PROMPTS: QUERY,
            POOLING: {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False},
        },
        "org/new": {
            PROMPTS: QUERY,
            "modules.json": [{"type": "sentence_transformers.models.Pooling", "path": "2_Pool"}],
            "2_Pool/config.json": {"pooling_mode": "cls", "include_prompt": False},
        },
        "org/null": {PROMPTS: {"prompts": {"query": None, "passage": "passage: "}}},
        "org/plain": {"config.json": {}},
        "org/broken": {PROMPTS: None},
        "org/odd": {PROMPTS: {"prompts": {"query": ["query: "]}}},
        "org/huge": {PROMPTS: {"prompts": {"query": "q" * 100_001}}},
        "org/model-GGUF": {},
        "org/e5-copy": {},
        "org/nested": {"README.md": NESTED},
        "org/plainly": {"README.md": NESTED},
        "org/vague": {"README.md": "# Trained with MatryoshkaLoss"},
        "org/hidden": {"README.md": None},
        "org/orphan": {},
        "org/tuned": {},
    }
    nested = {"tags": ["sentence-transformers", "loss:MatryoshkaLoss", "loss:CoSENTLoss"]}
    cards = {
        **dict.fromkeys(("org/nested", "org/vague", "org/hidden"), nested),
        "org/model-GGUF": {"tags": ["gguf", "base_model:org/model", "base_model:quantized:org/model"]},
        "org/e5-copy": {"tags": ["base_model:quantized:intfloat/e5-small-v2"]},
        "org/orphan": {"tags": ["base_model:quantized:org/absent"]},
        "org/tuned": {"tags": ["base_model:finetune:org/model"]},
    }
    hub = HubModels(files, cards)
    with hub.running():
        yield hub


async def prompts_of(
    url: str, model: str | None, *, named: str | None = None, token: str | None = None, within: float = 20
) -> ModelPrompts:
    endpoint = Endpoint(
        name="e",
        task=Task.TEXT_EMBEDDING,
        source=Source.DEDICATED,
        url="http://127.0.0.1:9",
        model=named,
        facts=Facts(engine=Engine.TEI, model=model),
    )
    hub: HubClient = open_hub(replace(Settings.from_env({}), hf_endpoint=url))
    try:
        return await read_prompts(hub, Target(endpoint, Secret(token) if token else None), within)
    finally:
        await hub.close()


async def test_prompts_and_pooling_come_from_the_models_files(site: HubModels) -> None:
    expected = ModelPrompts(texts={"query": "query: "}, default="query", pooling="lasttoken")
    assert await prompts_of(site.url, "org/model") == expected
    assert await prompts_of(site.url, "served-name", named="org/model") == expected


async def test_pooling_module_is_found_by_modules_json(site: HubModels) -> None:
    found = await prompts_of(site.url, "org/new")
    assert (found.pooling, found.pools_prompt) == ("cls", False)


async def test_prompt_that_is_null_is_empty(site: HubModels) -> None:
    assert (await prompts_of(site.url, "org/null")).texts == {"query": "", "passage": "passage: "}


async def test_model_without_the_file_has_no_prompts(site: HubModels) -> None:
    assert await prompts_of(site.url, "org/plain") == ModelPrompts()


async def test_quantized_copy_has_the_prompts_of_its_original_and_a_finetuned_model_does_not(
    site: HubModels,
) -> None:
    copied = await prompts_of(site.url, "org/model-GGUF")
    assert (copied.texts, copied.original) == ({"query": "query: "}, "org/model")
    tuned = await prompts_of(site.url, "org/tuned")
    assert (tuned.texts, tuned.original, tuned.tuned_from) == ({}, None, "org/model")


@pytest.mark.parametrize(
    ("model", "sizes"),
    [("org/nested", (64, 256, 768)), ("org/plainly", ()), ("org/vague", ()), ("org/hidden", ())],
)
async def test_sizes_of_shorter_vectors_come_from_the_readme_of_a_tagged_model(
    site: HubModels, model: str, sizes: tuple[int, ...]
) -> None:
    assert (await prompts_of(site.url, model)).shorter_dimensions == sizes


async def test_original_that_cannot_be_read_is_an_error_unless_the_table_knows_it(site: HubModels) -> None:
    assert await prompts_of(site.url, "org/e5-copy") == ModelPrompts(original="intfloat/e5-small-v2")
    with pytest.raises(HubgateError):
        await prompts_of(site.url, "org/orphan")


@pytest.mark.parametrize("model", ["org/broken", "org/odd", "org/huge", "org/absent", "model.gguf", None])
async def test_unreadable_prompts_are_an_error(site: HubModels, model: str | None) -> None:
    with pytest.raises(HubgateError):
        await prompts_of(site.url, model)


async def test_silent_hub_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UpstreamUnreachable, match="did not respond within"):
            await asyncio.wait_for(prompts_of(url, "org/model", within=0.05), 240)


@pytest.mark.parametrize(
    ("token", "sent"), [("hf_ownersTokenMadeUp", "hf_ownersTokenMadeUp"), ("sk-own", None)]
)
async def test_only_a_hub_token_is_sent_to_the_hub(site: HubModels, token: str, sent: str | None) -> None:
    await prompts_of(site.url, "org/model", token=token)
    assert {seen.token for seen in site.asked} == {sent}


async def test_local_model_is_not_looked_up(site: HubModels, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, secret_key_file=tmp_path / "key", hf_endpoint=site.url)
    sources = ModelSources(settings)
    facts = Facts(prompts={"query": "q: "}, default_prompt="query")
    local = Endpoint(name="e", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model", facts=facts)
    found = await sources.read_prompts(Target(local))
    await sources.close()
    assert (found, site.asked) == (ModelPrompts(texts={"query": "q: "}, default="query"), [])
