"""Detecting a server at registration, and the errors reported when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from lookalikes import lookalike

from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.engines.embeddings import POOLED_BY_HUBGATE
from hubgate.upstreams.engines.specs import SPECS
from hubgate.upstreams.engines.toolkit import check_deployed_task, task_in_error, task_in_reply
from hubgate.upstreams.http.messages import HttpReply
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[ModelSources]:
    sources = ModelSources(Settings(home=tmp_path, secret_key_file=tmp_path / "key"))
    yield sources
    await sources.close()


def endpoint(url: str, **fields: Any) -> Endpoint:
    return Endpoint(
        **{"name": "e", "task": Task.TEXT_EMBEDDING, "source": Source.DEDICATED, "url": url} | fields
    )


async def refused(
    sources: ModelSources, url: str, token: Secret | None = None, **fields: Any
) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await sources.detect(Target(endpoint(url, **fields), token))
    return caught.value


LEARNED = {
    "tei": Facts(
        engine=Engine.TEI,
        engine_version="1.9.3",
        model="look/alike",
        revision="fca14538aa9956a46526bd1d0d11d69e19b5a101",
        max_input_tokens=512,
        max_batch_texts=32,
        max_concurrent_requests=512,
        auto_truncate=True,
        pooling="mean",
        precision="float16",
    ),
    "vllm": Facts(
        engine=Engine.VLLM,
        engine_version="0.32.0",
        model="look/alike",
        max_input_tokens=512,
        auto_truncate=False,
    ),
    "sglang": Facts(engine=Engine.SGLANG, engine_version="0.5.23", model="look/alike", max_input_tokens=512),
    "llamacpp": Facts(
        engine=Engine.LLAMACPP,
        engine_version="b6700-abc",
        model="look/alike",
        max_input_tokens=512,
        auto_truncate=False,
    ),
    "infinity": Facts(engine=Engine.INFINITY, model="look/alike", max_batch_texts=2048, auto_truncate=True),
    "toolkit": Facts(engine=Engine.TOOLKIT),
}


@pytest.mark.parametrize(("engine", "facts"), LEARNED.items())
async def test_each_server_is_detected_with_its_facts(
    sources: ModelSources, engine: str, facts: Facts
) -> None:
    with lookalike(engine) as server:
        assert await sources.detect(Target(endpoint(server.url))) == facts
        assert len(server.posts) == (1 if engine in {"toolkit", "llamacpp"} else 0)


async def test_url_with_a_route_is_accepted(sources: ModelSources) -> None:
    with lookalike("vllm") as server:
        assert (await sources.detect(Target(endpoint(server.url + "/v1/embeddings")))).engine is Engine.VLLM


async def test_infinity_without_prefix_is_detected_at_its_own_routes(sources: ModelSources) -> None:
    with lookalike("infinity", prefix="") as server:
        facts = await sources.detect(Target(endpoint(server.url)))
    assert (facts.engine, facts.route) == (Engine.INFINITY, "/embeddings")


async def test_token_is_sent_with_every_detection_request(sources: ModelSources) -> None:
    for engine in LEARNED:
        with lookalike(engine, key="hf_secret") as server:
            await sources.detect(Target(endpoint(server.url), Secret("hf_secret")))
            assert {asked.token for asked in server.requests} == {"hf_secret"}


@pytest.mark.parametrize("engine", ["tei", "vllm", "infinity", "toolkit", "litellm"])
async def test_wrong_or_missing_token_is_reported_at_detection(sources: ModelSources, engine: str) -> None:
    with lookalike(engine, key="hf_secret") as server:
        assert (await refused(sources, server.url, Secret("hf_wrong"))).cause is Cause.WRONG_TOKEN
        assert (await refused(sources, server.url)).cause is Cause.TOKEN_MISSING


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("paused", Cause.PAUSED),
        ("waking-503", Cause.WAKING),
        ("waking-502", Cause.WAKING),
        ("loading", Cause.WAKING),
        ("wrong-token", Cause.WRONG_TOKEN),
        ("no-right", Cause.TOKEN_LACKS_SCOPE),
        ("too-many", Cause.OVERLOADED),
        ("redirect", Cause.UPSTREAM_REDIRECTS),
        ("close", Cause.CONNECTION_LOST),
        ("html", Cause.NOT_AN_API),
        ("not-json", Cause.NOT_AN_API),
        ("failing", Cause.NOT_AN_API),
    ],
)
async def test_server_that_cannot_answer_is_reported_with_cause(
    sources: ModelSources, fault: str, cause: Cause
) -> None:
    with lookalike("tei", fault=fault) as server:
        assert (await refused(sources, server.url, Secret("hf_one"))).cause is cause


@pytest.mark.parametrize(
    ("engine", "kind", "word"),
    [
        ("tei", "reranker", "rerank"),
        ("tei", "classifier", "none of the tasks"),
        ("tei", "sparse", "sparse_embedding"),
        ("vllm", "llm", "chat_completion"),
        ("sglang", "llm", "completion"),
        ("infinity", "reranker", "rerank"),
        ("llamacpp", "reranker", "rerank"),
        ("toolkit", "classifier", "text-classification"),
        ("transformers", "llm", "chat_completion"),
        ("tgi", "llm", "completion"),
    ],
)
async def test_model_of_another_task_is_rejected(
    sources: ModelSources, engine: str, kind: str, word: str
) -> None:
    with lookalike(engine, kind=kind) as server:
        error = await refused(sources, server.url)
    assert error.cause is Cause.WRONG_TASK
    assert word in error.message


WRITES = {
    "tgi": Facts(
        engine=Engine.TGI,
        engine_version="3.3.6",
        model="look/alike",
        revision="e2d8c2f1",
        max_input_tokens=512,
        max_concurrent_requests=128,
    ),
    "transformers": Facts(engine=Engine.TRANSFORMERS),
    "vllm": LEARNED["vllm"],
    "sglang": LEARNED["sglang"],
    "llamacpp": LEARNED["llamacpp"],
    "toolkit": LEARNED["toolkit"],
}


@pytest.mark.parametrize("task", [Task.COMPLETION, Task.CHAT_COMPLETION])
@pytest.mark.parametrize(("engine", "facts"), WRITES.items())
async def test_only_the_toolkit_is_detected_by_a_generation_request(
    sources: ModelSources, engine: str, facts: Facts, task: Task
) -> None:
    with lookalike(engine, kind="llm") as server:
        assert await sources.detect(Target(endpoint(server.url, task=task))) == facts
        assert len(server.posts) == (engine == "toolkit" and task is Task.COMPLETION)


async def test_infinity_without_prefix_reranks_at_its_own_route(sources: ModelSources) -> None:
    with lookalike("infinity", prefix="", kind="reranker") as server:
        facts = await sources.detect(Target(endpoint(server.url, task=Task.RERANK)))
    assert facts.route == "/rerank"


async def test_task_of_the_server_is_accepted(sources: ModelSources) -> None:
    with lookalike("tei", kind="reranker") as server:
        facts = await sources.detect(Target(endpoint(server.url, task=Task.RERANK)))
    assert facts.engine is Engine.TEI


TOOLKITS = {
    "embedding": ("sentence-embeddings", Task.TEXT_EMBEDDING),
    "tokens": ("feature-extraction", Task.TEXT_EMBEDDING),
    "reranker": ("text-ranking", Task.RERANK),
    "llm": ("text-generation", Task.COMPLETION),
    "text2text": ("text-generation", Task.COMPLETION),
    "summarization": ("summarization", Task.COMPLETION),
    "translation": ("translation", Task.COMPLETION),
    "similarity": ("sentence-similarity", None),
    "classifier": ("text-classification", None),
}
DEPLOY_AS = {
    Task.TEXT_EMBEDDING: "Sentence Embeddings",
    Task.RERANK: "Text Ranking",
    Task.COMPLETION: "Text Generation",
}


@pytest.mark.parametrize("wanted", DEPLOY_AS)
@pytest.mark.parametrize("kind", TOOLKITS)
async def test_toolkit_with_another_task_is_rejected_naming_the_right_task(
    sources: ModelSources, kind: str, wanted: Task
) -> None:
    deployed, does = TOOLKITS[kind]
    with lookalike("toolkit", kind=kind) as server:
        if does is wanted:
            facts = await sources.detect(Target(endpoint(server.url, task=wanted)))
            assert (facts.engine, len(server.posts)) == (Engine.TOOLKIT, 1)
            return
        error = await refused(sources, server.url, task=wanted)
    assert error.cause is Cause.WRONG_TASK
    assert error.message == f"The endpoint was deployed with the task {deployed}, which does not do {wanted}."
    assert error.remedy.startswith(f"Deploy it with the task {DEPLOY_AS[wanted]}")
    assert error.remedy.endswith(f", or register it for {does}." if does else ".")


@pytest.mark.parametrize(
    "answer", [[], {}, "text", [[True]], [{"word": 0.5}], {"vectors": []}, [{"predictions": [1]}]]
)
def test_custom_handler_reply_is_not_mistaken_for_another_task(answer: object) -> None:
    reply = HttpReply(status=200, headers={}, body=orjson.dumps(answer))
    check_deployed_task(task_in_reply(reply), Task.RERANK)
    check_deployed_task(task_in_error("Body needs a query"), Task.RERANK)


async def test_toolkit_is_not_probed_when_reply_would_be_inconclusive(sources: ModelSources) -> None:
    with lookalike("toolkit", kind="sparse") as server:
        facts = await sources.detect(Target(endpoint(server.url, task=Task.SPARSE_EMBEDDING)))
        assert (facts.engine, server.posts) == (Engine.TOOLKIT, [])


async def test_toolkit_without_pooling_is_accepted_with_a_warning(sources: ModelSources) -> None:
    with lookalike("toolkit", kind="tokens") as server:
        assert (await sources.detect(Target(endpoint(server.url)))).warnings == (POOLED_BY_HUBGATE,)


async def test_invalid_toolkit_reply_is_not_mistaken_for_another_task(sources: ModelSources) -> None:
    with lookalike("toolkit") as server:
        server.fail("nan")
        assert (await refused(sources, server.url)).cause is Cause.NOT_A_NUMBER


async def test_unknown_server_error_has_a_remedy(sources: ModelSources) -> None:
    with lookalike("unknown") as server:
        error = await refused(sources, server.url)
    assert error.cause is Cause.NOT_AN_API
    supported = sorted(engine for engine, spec in SPECS.items() if spec.tasks)
    assert {"openai", "tei"} < set(supported)
    assert f"choose its engine yourself: {', '.join(supported)}." in error.remedy


async def test_configured_engine_overrides_detected_engine(sources: ModelSources) -> None:
    with lookalike("infinity", prefix="") as server:
        facts = await sources.detect(Target(endpoint(server.url, engine=Engine.OPENAI)))
    assert (facts.engine, facts.model, facts.route) == (Engine.OPENAI, "look/alike", "/embeddings")
    assert "treated as openai" in facts.warnings[0]


async def test_configured_engine_uses_its_own_route(sources: ModelSources) -> None:
    with lookalike("infinity", prefix="") as server:
        facts = await sources.detect(Target(endpoint(server.url, engine=Engine.TEI)))
    assert (facts.engine, facts.route) == (Engine.TEI, None)


async def test_configured_engine_is_queried_for_its_facts(sources: ModelSources) -> None:
    with lookalike("tei") as server:
        assert await sources.detect(Target(endpoint(server.url, engine=Engine.TEI))) == LEARNED["tei"]
    with lookalike("tei", kind="reranker") as server:
        assert (await refused(sources, server.url, engine=Engine.TEI)).cause is Cause.WRONG_TASK


async def test_configured_engine_is_accepted_for_server_without_description(sources: ModelSources) -> None:
    with lookalike("unknown") as server:
        facts = await sources.detect(Target(endpoint(server.url, engine=Engine.INFINITY)))
    assert (facts.engine, facts.max_batch_texts) == (Engine.INFINITY, 2048)
    assert "does not report what it is" in facts.warnings[0]


async def test_configured_model_is_chosen_among_served_models(sources: ModelSources) -> None:
    with lookalike("vllm") as server:
        facts = await sources.detect(Target(endpoint(server.url, model="look/alike")))
    assert facts.model == "look/alike"


SEVERAL = ("all-minilm", "bge-m3:latest")


@pytest.mark.parametrize("named", ["BAAI/bge-m3", "bge-m3", "BGE-M3", "bge-m3:latest", "bge-m3-GGUF"])
async def test_model_is_called_by_the_servers_own_name(sources: ModelSources, named: str) -> None:
    with lookalike("litellm", models=SEVERAL) as server:
        facts = await sources.detect(Target(endpoint(server.url, model=named)))
    assert (facts.model, facts.warnings) == ("bge-m3:latest", ())


async def test_servers_name_and_name_on_the_hub_can_both_be_given(sources: ModelSources) -> None:
    with lookalike("litellm", models=SEVERAL) as server:
        both = endpoint(server.url, model="all-minilm", hub_model="sentence-transformers/all-MiniLM-L6-v2")
        of_hub = endpoint(server.url, hub_model="BAAI/bge-m3")
        assert (await sources.detect(Target(both))).model == "all-minilm"
        assert (await sources.detect(Target(of_hub))).model == "bge-m3:latest"
    assert both.repository == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("task", [Task.TEXT_EMBEDDING, Task.CHAT_COMPLETION])
@pytest.mark.parametrize("named", ["bge-m33", "intfloat/e5-small-v2"])
async def test_another_model_than_the_named_one_is_never_called(
    sources: ModelSources, named: str, task: Task
) -> None:
    with lookalike("litellm", models=SEVERAL) as server:
        error = await refused(sources, server.url, model=named, task=task)
        assert server.posts == []
    assert error.cause is Cause.MODEL_NOT_FOUND
    assert error.message == f"The server has no model [{named}]. Its models: all-minilm, bge-m3:latest."


async def test_name_that_fits_several_models_is_refused(sources: ModelSources) -> None:
    with lookalike("litellm", models=("qwen3:4b", "qwen3:8b", "llama3")) as server:
        error = await refused(sources, server.url, model="Qwen/qwen3", task=Task.CHAT_COMPLETION)
        exact = endpoint(server.url, model="qwen3:8b", task=Task.CHAT_COMPLETION)
        assert (await sources.detect(Target(exact))).model == "qwen3:8b"
    assert error.message.endswith("several models that fit [Qwen/qwen3]. Its models: qwen3:4b, qwen3:8b.")


async def test_only_model_of_a_server_is_used_with_a_warning_if_it_has_another_name(
    sources: ModelSources,
) -> None:
    with lookalike("litellm", models=("embedder",)) as server:
        facts = await sources.detect(Target(endpoint(server.url, model="BAAI/bge-m3")))
        settled = endpoint(server.url, model="embedder", hub_model="BAAI/bge-m3")
        assert (await sources.detect(Target(settled))).warnings == ()
    assert facts.model == "embedder"
    assert "calls its model [embedder], not [BAAI/bge-m3]" in facts.warnings[0]


async def test_warns_which_of_several_models_is_used_if_none_is_named(sources: ModelSources) -> None:
    with lookalike("litellm", models=SEVERAL) as server:
        facts = await sources.detect(Target(endpoint(server.url)))
    assert facts.model == "all-minilm"
    assert "[all-minilm] is used: all-minilm, bge-m3:latest" in facts.warnings[0]


async def test_copy_of_another_owner_is_used_with_a_warning(sources: ModelSources) -> None:
    with lookalike("litellm", models=("ollama/bge-m3",)) as server:
        facts = await sources.detect(Target(endpoint(server.url, model="BAAI/bge-m3")))
    assert facts.model == "ollama/bge-m3"
    assert "calls its model [ollama/bge-m3]" in facts.warnings[0]


async def test_server_of_a_chosen_engine_is_asked_for_a_model_that_it_does_not_list(
    sources: ModelSources,
) -> None:
    with lookalike("litellm", models=SEVERAL) as server:
        chosen = endpoint(server.url, model="unlisted", engine=Engine.OPENAI)
        assert (await sources.detect(Target(chosen))).model == "unlisted"


@pytest.mark.parametrize(
    ("listed", "named", "model"),
    [
        (("pinned",), None, "pinned"),
        (("pinned",), "org/named", "pinned"),
        (("org/one", "org/two"), "org/two", "org/two"),
        (("org/one", "org/two"), "org/not-loaded-yet", "org/not-loaded-yet"),
    ],
)
async def test_transformers_serve_is_recognized_by_its_list_of_models(
    sources: ModelSources, listed: tuple[str, ...], named: str | None, model: str
) -> None:
    with lookalike("transformers", kind="llm", models=listed) as server:
        draft = endpoint(server.url, task=Task.CHAT_COMPLETION, model=named)
        facts = await sources.detect(Target(draft))
    assert (facts.engine, facts.model) == (Engine.TRANSFORMERS, model)


async def test_detection_respects_private_address_rule(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, secret_key_file=tmp_path / "key", allow_private_addresses=False)
    strict = ModelSources(settings)
    with lookalike("tei") as server:
        assert (await refused(strict, server.url)).cause is Cause.ADDRESS_REFUSED
        assert server.requests == []
    await strict.close()
