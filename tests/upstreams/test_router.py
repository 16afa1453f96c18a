"""Hosted models: providers are looked up on the Hub, and each one gets its own request format."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from lookalikes import LookAlike, lookalike, vector_of
from lookalikes.hub_api import HubApi
from lookalikes.model import Answer
from lookalikes.ranker import score_of

from hubgate.core.vectors import floats, in_encoding
from hubgate.domain.calls import Chat, Complete, Embed, Encoding, Rerank, Scores, SparseEmbed, Vectors
from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, InvalidRequest, NotFound
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lookalikes.site import Seen

MODEL = "org/model"
TOKEN = Secret("hf_MadeUpForTheRouter")


class Hub(HubApi):
    """A Hub with one model, `MODEL`, served according to `mapping`."""

    mapping: Any = ()

    def reply(self, seen: Seen) -> Answer:
        if seen.path.removeprefix("/api/models/") != MODEL:
            return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return Answer(200, {"id": MODEL, "sha": "c" * 40, "inferenceProviderMapping": self.mapping})


@contextmanager
def served(*mapping: tuple[str, str] | tuple[str, str, str]) -> Iterator[Hub]:
    """A Hub that names these providers and tasks (and a status, if not `live`)."""
    hub = Hub()
    hub.mapping = [
        {
            "provider": one[0],
            "task": one[1],
            "status": one[2] if len(one) > 2 else "live",
            "providerId": MODEL,
        }
        for one in mapping
    ]
    with hub.running():
        yield hub


def opened(home: Path, hub: Hub | None, router: LookAlike | None = None, **settings: Any) -> ModelSources:
    return ModelSources(
        Settings(
            home=home,
            secret_key_file=home / "key",
            hf_endpoint=hub.url if hub else "http://127.0.0.1:9",
            router_url=router.url if router else "http://127.0.0.1:9",
            **settings,
        )
    )


@pytest.fixture
def router() -> Iterator[LookAlike]:
    with lookalike("router", name=MODEL, kind="llm", key=TOKEN.reveal()) as server:
        yield server


def endpoint(task: Task, **fields: Any) -> Endpoint:
    return Endpoint(**{"name": "h", "task": task, "source": Source.ROUTER, "model": MODEL} | fields)


@pytest.fixture
async def closing() -> AsyncIterator[list[ModelSources]]:
    opened: list[ModelSources] = []
    yield opened
    for sources in opened:
        await sources.close()


async def detected(sources: ModelSources, draft: Endpoint) -> Endpoint:
    return replace(draft, facts=await sources.detect(Target(draft, TOKEN)))


EMBEDS = ["hf-inference", "deepinfra", "scaleway", "together"]


@pytest.mark.parametrize("provider", EMBEDS)
async def test_every_embedding_provider_works(
    tmp_path: Path, router: LookAlike, closing: list[ModelSources], provider: str
) -> None:
    with served((provider, "feature-extraction")) as hub:
        sources = opened(tmp_path, hub, router)
        closing.append(sources)
        proven = await detected(sources, endpoint(Task.TEXT_EMBEDDING, bill_to="acme"))
        asked = len(hub.asked)
        upstream = sources.open(Target(proven, TOKEN))
        vectors = await upstream(Embed(texts=["a b", "c"], normalize=True))
        await upstream.close()
        assert len(hub.asked) == asked, "the Hub is never asked on the way of a call"
    assert isinstance(vectors, Vectors)
    told = [floats(item) for item in in_encoding(vectors, Encoding.F32).items]
    assert told == [pytest.approx(vector_of(text, 8), abs=1e-6) for text in ("a b", "c")]
    assert (proven.facts.engine, proven.facts.provider) == (Engine.PROVIDER, provider)
    assert router.posts[-1].headers["x-hf-bill-to"] == "acme"


async def test_model_tagged_sentence_similarity_embeds(tmp_path: Path, closing: list[ModelSources]) -> None:
    """All sentence-transformers models have this tag."""
    with served(("hf-inference", "sentence-similarity")) as hub:
        sources = opened(tmp_path, hub)
        closing.append(sources)
        proven = await detected(sources, endpoint(Task.TEXT_EMBEDDING, provider="auto"))
    assert proven.facts.provider_model == MODEL


async def test_hub_reply_is_cached_and_requested_with_the_endpoint_token(
    tmp_path: Path, closing: list[ModelSources]
) -> None:
    with served(("hf-inference", "feature-extraction")) as hub:
        sources = opened(tmp_path, hub)
        closing.append(sources)
        for _ in range(3):
            await sources.detect(
                Target(endpoint(Task.TEXT_EMBEDDING), Secret("hf_first_of_two\nhf_second_of_two"))
            )
        assert [seen.token for seen in hub.asked] == ["hf_first_of_two"]
        await sources.detect(Target(endpoint(Task.TEXT_EMBEDDING)))
        assert [seen.token for seen in hub.asked] == ["hf_first_of_two", None]


async def test_provider_reranks(tmp_path: Path, router: LookAlike, closing: list[ModelSources]) -> None:
    with served(("hf-inference", "text-ranking")) as hub:
        sources = opened(tmp_path, hub, router)
        closing.append(sources)
        upstream = sources.open(Target(await detected(sources, endpoint(Task.RERANK)), TOKEN))
        told = await upstream(Rerank(query="red fox", texts=["no", "a fox"]))
        with pytest.raises(InvalidRequest):
            await upstream(SparseEmbed(texts=["a"]))
    assert isinstance(told, Scores)
    assert told.items == [score_of("red fox", "no"), score_of("red fox", "a fox")]


COMPLETES = ["deepinfra", "featherless-ai", "novita", "together", "hf-inference"]


@pytest.mark.parametrize("provider", COMPLETES)
async def test_every_completion_provider_works_with_and_without_streaming(
    tmp_path: Path, router: LookAlike, closing: list[ModelSources], provider: str
) -> None:
    with served((provider, "text-generation")) as hub:
        sources = opened(tmp_path, hub, router)
        closing.append(sources)
        proven = await detected(sources, endpoint(Task.COMPLETION))
    assert (proven.facts.chats, proven.facts.completes) == (False, True)
    writer = sources.open_generator(Target(proven, TOKEN))
    call = Complete(prompt="one two", fields={"max_tokens": b"3"})
    whole = json.loads((await writer.generate(call)).body)
    events = await writer.stream(call)
    payloads = [json.loads(payload) async for together in events for payload in together]
    await events.aclose()
    if provider == "hf-inference":
        assert whole["generated_text"] == payloads[-1]["generated_text"] == "You said: one"
    else:
        assert whole["choices"][0]["text"] == "You said: one"
        assert "".join(p["choices"][0]["text"] for p in payloads if p["choices"]) == "You said: one"


@pytest.mark.parametrize(
    ("provider", "name"),
    [(None, MODEL), ("auto", MODEL), ("groq", f"{MODEL}:groq"), ("cheapest", f"{MODEL}:cheapest")],
)
async def test_chat_uses_one_url_and_the_model_suffix_selects_the_provider(
    tmp_path: Path, router: LookAlike, closing: list[ModelSources], provider: str | None, name: str
) -> None:
    with served(("groq", "conversational")) as hub:
        sources = opened(tmp_path, hub, router)
        closing.append(sources)
        proven = await detected(sources, endpoint(Task.CHAT_COMPLETION, provider=provider))
    writer = sources.open_generator(Target(proven, TOKEN))
    call = Chat(fields={"messages": orjson.dumps([{"role": "user", "content": "one"}])})
    assert (await writer.generate(call)).tokens == 4
    events = await writer.stream(call)
    assert [payload async for together in events for payload in together]
    await events.aclose()
    assert {(asked.path, asked.field("model")) for asked in router.posts} == {("/v1/chat/completions", name)}
    assert proven.facts.chats


async def test_chat_only_model_registers_for_completion_through_chat(
    tmp_path: Path, closing: list[ModelSources]
) -> None:
    with served(("groq", "conversational")) as hub:
        sources = opened(tmp_path, hub)
        closing.append(sources)
        proven = await detected(sources, endpoint(Task.COMPLETION))
    assert (proven.facts.chats, proven.facts.completes) == (True, False)
    with pytest.raises(InvalidRequest):
        await sources.open_generator(Target(proven, TOKEN)).generate(Complete(prompt="a", fields={}))


REFUSED = [
    (Task.TEXT_EMBEDDING, None, [], Cause.NOT_SERVED, "No Inference Provider serves [org/model] now"),
    (Task.TEXT_EMBEDDING, None, [("together", "feature-extraction", "error")], Cause.NOT_SERVED, "is down"),
    (Task.TEXT_EMBEDDING, "groq", [("together", "feature-extraction")], Cause.NOT_SERVED, "together"),
    (Task.TEXT_EMBEDDING, None, [("groq", "conversational")], Cause.WRONG_TASK, "conversational (groq)"),
    (
        Task.TEXT_EMBEDDING,
        None,
        [("newcomer", "feature-extraction")],
        Cause.NOT_SERVED,
        "hubgate does not support",
    ),
    (
        Task.CHAT_COMPLETION,
        None,
        [("together", "text-generation")],
        Cause.WRONG_TASK,
        "not for conversational",
    ),
    (Task.RERANK, None, [("hf-inference", "feature-extraction")], Cause.WRONG_TASK, "not for text-ranking"),
    (Task.SPARSE_EMBEDDING, None, [], Cause.NOT_SERVED, "sparse"),
]


@pytest.mark.parametrize("row", REFUSED)
async def test_unserved_model_is_rejected_at_registration(
    tmp_path: Path, closing: list[ModelSources], row: tuple[Task, str | None, list[Any], Cause, str]
) -> None:
    task, provider, mapping, cause, words = row
    with served(*mapping) as hub:
        sources = opened(tmp_path, hub)
        closing.append(sources)
        with pytest.raises(InvalidEndpoint) as caught:
            await sources.detect(Target(endpoint(task, provider=provider), TOKEN))
    assert caught.value.cause is cause
    assert words in caught.value.message
    assert caught.value.remedy


async def test_model_missing_from_the_hub_is_reported(tmp_path: Path, closing: list[ModelSources]) -> None:
    with served() as hub:
        sources = opened(tmp_path, hub)
        closing.append(sources)
        with pytest.raises(NotFound) as caught:
            await sources.detect(Target(endpoint(Task.TEXT_EMBEDDING, model="org/other"), TOKEN))
    assert caught.value.cause is Cause.MODEL_NOT_FOUND


async def test_configured_values_are_accepted_without_the_hub(
    tmp_path: Path, closing: list[ModelSources]
) -> None:
    sources = opened(tmp_path, None)
    closing.append(sources)
    chat = await sources.detect(Target(endpoint(Task.CHAT_COMPLETION), TOKEN))
    embeds = await sources.detect(Target(endpoint(Task.TEXT_EMBEDDING, provider="hf-inference"), TOKEN))
    assert (chat.chats, embeds.provider, embeds.provider_model) == (True, "hf-inference", MODEL)
    assert "settings are used" in chat.warnings[0]
    with pytest.raises(HubgateError) as caught:
        await sources.detect(Target(endpoint(Task.TEXT_EMBEDDING), TOKEN))
    assert caught.value.cause is Cause.CONNECTION_REFUSED


FAULTS = {
    "wrong-token": Cause.WRONG_TOKEN,
    "no-scope": Cause.TOKEN_LACKS_SCOPE,
    "no-credit": Cause.OUT_OF_CREDIT,
    "gated": Cause.GATED_MODEL,
    "gone": Cause.OLD_ADDRESS,
    "too-many": Cause.OVERLOADED,
}


async def test_every_router_error_maps_to_its_cause(
    tmp_path: Path, router: LookAlike, closing: list[ModelSources]
) -> None:
    sources = opened(tmp_path, None, router)
    closing.append(sources)
    facts = Facts(engine=Engine.PROVIDER, provider="hf-inference", provider_model=MODEL)
    upstream = sources.open(Target(endpoint(Task.TEXT_EMBEDDING, facts=facts), TOKEN))
    for fault, cause in FAULTS.items():
        router.fail(fault, times=1)
        with pytest.raises(HubgateError) as caught:
            await upstream(Embed(texts=["a"]))
        assert (fault, caught.value.cause) == (fault, cause)


async def test_endpoint_without_a_known_provider_cannot_be_opened(
    tmp_path: Path, closing: list[ModelSources]
) -> None:
    sources = opened(tmp_path, None)
    closing.append(sources)
    with pytest.raises(InvalidEndpoint, match="not known to be served"):
        sources.open(Target(endpoint(Task.TEXT_EMBEDDING), TOKEN))


async def test_reach_reports_each_step_to_the_router(
    tmp_path: Path, router: LookAlike, closing: list[ModelSources]
) -> None:
    sources = opened(tmp_path, None, router)
    closing.append(sources)
    steps = [step async for step in sources.reach(endpoint(Task.TEXT_EMBEDDING))]
    assert steps == [Step.ADDRESS, Step.DNS, Step.TCP]
