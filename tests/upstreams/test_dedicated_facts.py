"""Registering a dedicated endpoint with a namespace: facts from the server and from Hugging Face, over sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.deployments import TOKEN, DeploymentsApi, deployment, running_deployments

from hubgate.domain.endpoint import Endpoint, Engine, Source, Target, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, UpstreamError, UpstreamUnreadable
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

OWNER = Secret(TOKEN)
MODEL = "intfloat/e5-small-v2"


@pytest.fixture
def site() -> Iterator[DeploymentsApi]:
    with running_deployments() as site:
        yield site


@pytest.fixture
async def sources(site: DeploymentsApi, tmp_path: Path) -> AsyncIterator[ModelSources]:
    settings = Settings(home=tmp_path, secret_key_file=tmp_path / "key", endpoints_api_url=site.url + "/v2")
    sources = ModelSources(settings)
    yield sources
    await sources.close()


def endpoint(url: str, **fields: Any) -> Endpoint:
    return Endpoint(
        **{
            "name": "e",
            "task": Task.TEXT_EMBEDDING,
            "source": Source.DEDICATED,
            "url": url,
            "namespace": "acme",
        }
        | fields
    )


async def test_facts_missing_from_server_come_from_hugging_face(
    sources: ModelSources, site: DeploymentsApi
) -> None:
    with lookalike("tei", name="/repository") as server:
        site.items["acme"] = [deployment("a", url=server.url)]
        facts = await sources.detect(Target(endpoint(server.url + "/v1/", model=MODEL), OWNER))
    assert (facts.engine, facts.model, facts.engine_version) == (Engine.TEI, MODEL, "1.9.3")
    assert facts.max_input_tokens == 512
    assert [seen.token for seen in site.asked] == [TOKEN]


async def test_first_of_several_tokens_is_used_for_lookup(
    sources: ModelSources, site: DeploymentsApi
) -> None:
    with lookalike("tei") as server:
        site.items["acme"] = [deployment("a", url=server.url)]
        await sources.detect(Target(endpoint(server.url), Secret(f"{TOKEN}\nhf_another")))
    assert [seen.token for seen in site.asked] == [TOKEN]


async def test_engine_is_identified_by_image_when_server_does_not_report_it(
    sources: ModelSources, site: DeploymentsApi
) -> None:
    with lookalike("unknown") as server:
        image = {"custom": {"url": "vllm/vllm-openai:v0.32"}}
        site.items["acme"] = [deployment("a", url=server.url, image=image)]
        facts = await sources.detect(Target(endpoint(server.url), OWNER))
        assert (facts.engine, facts.model) == (Engine.VLLM, MODEL)
        with pytest.raises(UpstreamUnreadable):
            await sources.detect(Target(endpoint(server.url, namespace=None), OWNER))


async def test_hugging_face_is_not_queried_without_namespace(
    sources: ModelSources, site: DeploymentsApi
) -> None:
    with lookalike("tei") as server:
        await sources.detect(Target(endpoint(server.url, namespace=None), OWNER))
    assert site.asked == []


async def test_token_without_list_permission_registers_with_a_warning(
    sources: ModelSources, site: DeploymentsApi
) -> None:
    site.fail("no-right")
    with lookalike("tei") as server:
        facts = await sources.detect(Target(endpoint(server.url), OWNER))
    assert facts.engine is Engine.TEI
    assert "could not be listed" in facts.warnings[-1]


async def test_embedding_model_mismatch_is_rejected_naming_both_models(
    sources: ModelSources,
) -> None:
    with lookalike("tei", name=MODEL) as server:
        with pytest.raises(InvalidEndpoint) as caught:
            await sources.detect(Target(endpoint(server.url, namespace=None, model="BAAI/bge-m3")))
        assert f"[{MODEL}] according to the server, not [BAAI/bge-m3]" in caught.value.message
        named = endpoint(server.url, namespace=None, model=MODEL.upper())
        assert (await sources.detect(Target(named))).model == MODEL


@pytest.mark.parametrize("task", [Task.COMPLETION, Task.CHAT_COMPLETION])
async def test_text_generation_accepts_any_model_name(sources: ModelSources, task: Task) -> None:
    with lookalike("vllm", kind="llm", name="meta/llama") as server:
        draft = endpoint(server.url, namespace=None, model="whatever/name", task=task)
        assert (await sources.detect(Target(draft))).model == "meta/llama"


async def test_paused_or_failed_endpoint_is_reported_before_calling_it(
    sources: ModelSources, site: DeploymentsApi
) -> None:
    with lookalike("tei") as server:
        site.items["acme"] = [deployment("a", url=server.url, state="paused", message="Paused by ada.")]
        with pytest.raises(UpstreamError, match=r"\[a\] is paused. Paused by ada.") as caught:
            await sources.detect(Target(endpoint(server.url), OWNER))
        assert server.requests == []
    assert caught.value.cause is Cause.PAUSED
