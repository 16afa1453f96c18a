"""Scores and sparse vectors from each kind of server, over a socket and from recordings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import LookAlike, lookalike
from lookalikes.ranker import score_of
from msgspec import structs

from hubgate.domain.calls import Rerank, Scores, SparseEmbed, SparseVectors
from hubgate.domain.endpoint import Endpoint, Engine, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, InvalidRequest
from hubgate.settings import Settings
from hubgate.upstreams.engines.rerank import RerankRoute
from hubgate.upstreams.engines.specs import SPECS
from hubgate.upstreams.engines.token_routes import SparseRoute
from hubgate.upstreams.http.messages import HttpReply
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.domain.ports import Upstream

ENGINES = Path(__file__).parents[2] / "data" / "engines"


def route(engine: Engine) -> RerankRoute:
    found = SPECS[engine].rerank
    assert found is not None
    return found


TEXTS = ["nothing of it", "the red fox", "a fox"]
CALL = Rerank(query="red fox", texts=TEXTS)


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[ModelSources]:
    sources = ModelSources(Settings(home=tmp_path, secret_key_file=tmp_path / "key"))
    yield sources
    await sources.close()


async def opened(
    sources: ModelSources, server: LookAlike, task: Task = Task.RERANK, **fields: Any
) -> Upstream:
    draft = Endpoint(name="r", task=task, source=Source.DEDICATED, url=server.url, **fields)
    return sources.open(Target(replace(draft, facts=await sources.detect(Target(draft)))))


async def scores(upstream: Upstream, call: Rerank) -> Scores:
    result = await upstream(call)
    assert isinstance(result, Scores)
    return result


SERVERS: list[tuple[str, dict[str, Any]]] = [
    ("tei", {}),
    ("vllm", {}),
    ("sglang", {}),
    ("llamacpp", {}),
    ("infinity", {}),
    ("infinity", {"prefix": ""}),
    ("toolkit", {}),
]


@pytest.mark.parametrize(("engine", "model"), SERVERS)
async def test_every_server_reranks_in_one_request_in_input_order(
    sources: ModelSources, engine: str, model: dict[str, Any]
) -> None:
    with lookalike(engine, kind="reranker", **model) as server:
        upstream = await opened(sources, server)
        before = len(server.requests)
        told = await scores(upstream, CALL)
        assert len(server.requests) == before + 1
    assert told.items == pytest.approx([score_of("red fox", text) for text in TEXTS])
    assert told.exact == (engine in {"tei", "vllm", "llamacpp"})
    assert (told.tokens is None) == (engine in {"infinity", "toolkit", "sglang"})


async def test_raw_scores_require_engine_support(sources: ModelSources) -> None:
    call = structs.replace(CALL, raw_scores=True)
    for engine in ("tei", "llamacpp"):
        with lookalike(engine, kind="reranker") as server:
            told = await scores(await opened(sources, server), call)
        assert told.items == [score_of("red fox", text, raw=True) for text in TEXTS]
    with pytest.raises(InvalidRequest, match="raw_scores"):
        route(Engine.VLLM).request("http://h", None, call)


def test_raw_scores_get_a_sigmoid_unless_requested() -> None:
    """The order is preserved, however large the scores are."""
    ranker = route(Engine.LLAMACPP)
    given = [-800.0, -40.0, -39.5, 0.0, 3.0, 800.0]
    call = Rerank(query="q", texts=["t"] * len(given))
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(given)]
    told = ranker.read(call, reply({"results": results})).items
    assert all(0 <= score <= 1 for score in told)
    assert told == sorted(told)
    assert len(set(told)) == len(told)
    assert told[3] == 0.5
    assert ranker.read(structs.replace(call, raw_scores=True), reply({"results": results})).items == given


def test_qwen3_reranker_probabilities_get_no_second_sigmoid() -> None:
    ranker = route(Engine.LLAMACPP).for_model("/models/Qwen3-Reranker-0.6B-Q8_0.gguf")
    results = [{"index": index, "relevance_score": 0.25 * index} for index in range(3)]
    assert ranker.read(CALL, reply({"results": results})).items == [0.0, 0.25, 0.5]


async def test_too_long_text_is_truncated_unless_disabled_by_caller(sources: ModelSources) -> None:
    call = Rerank(query="a", texts=["word " * 20])
    with lookalike("tei", kind="reranker", max_tokens=10) as server:
        upstream = await opened(sources, server)
        assert len((await scores(upstream, call)).items) == 1
        with pytest.raises(HubgateError) as caught:
            await upstream(structs.replace(call, truncate=False))
    assert caught.value.cause is Cause.INPUT_TOO_LONG
    assert "allow truncation" in caught.value.remedy


async def test_classifier_and_embedding_model_do_not_rerank(sources: ModelSources) -> None:
    for kind in ("classifier", "embedding"):
        with lookalike("tei", kind=kind) as server, pytest.raises(InvalidEndpoint) as caught:
            await opened(sources, server)
        assert caught.value.cause is Cause.WRONG_TASK


def reply(body: object, **headers: str) -> HttpReply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status=200, headers=headers, body=raw)


def test_recorded_vllm_scores_are_read() -> None:
    exchanges = json.loads((ENGINES / "vllm-0.32.0-embed.json").read_text("utf-8"))
    response = next(e["response"] for e in exchanges if e["label"] == "rerank cohere")
    told = route(Engine.VLLM).read(Rerank(query="q", texts=["a", "b"]), reply(response["body"].encode()))
    assert told.items == [0.4893016815185547, 0.6005219221115112]
    assert (told.tokens, told.exact) == (9, True)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ([{"index": 0, "score": 1}], Cause.WRONG_COUNT),
        ([{"index": 0, "score": 1}, {"index": 0, "score": 1}, {"index": 2, "score": 1}], Cause.WRONG_COUNT),
        ([{"index": 0, "score": 1}, {"index": 1, "score": 1}, {"index": 3, "score": 1}], Cause.WRONG_COUNT),
        ([{"index": 0}, {"index": 1, "score": 1}, {"index": 2, "score": 1}], Cause.NOT_A_NUMBER),
        (b'[{"index":0,"score":1e999},{"index":1,"score":1},{"index":2,"score":1}]', Cause.UNREADABLE_REPLY),
        (b'[{"index":0,"score":NaN},{"index":1,"score":1},{"index":2,"score":1}]', Cause.UNREADABLE_REPLY),
        ([[0.1, 0.2]], Cause.UNREADABLE_REPLY),
        ({"data": []}, Cause.UNREADABLE_REPLY),
        (b"<html></html>", Cause.NOT_AN_API),
    ],
)
def test_reply_without_one_score_per_text_is_rejected(body: object, cause: Cause) -> None:
    with pytest.raises(HubgateError) as caught:
        route(Engine.TEI).read(CALL, reply(body))
    assert caught.value.cause is cause


SPARSE = SparseEmbed(texts=["one two three", "four"])


@pytest.mark.parametrize("engine", ["tei", "toolkit"])
async def test_sparse_vectors_are_sorted_by_descending_weight(sources: ModelSources, engine: str) -> None:
    """TEI reports vocabulary indices, a custom handler reports words."""
    with lookalike(engine, kind="sparse") as server:
        told = await (await opened(sources, server, Task.SPARSE_EMBEDDING))(SPARSE)
    assert isinstance(told, SparseVectors)
    names = ["1000", "1001", "1002", "1000"] if engine == "tei" else ["one", "two", "three", "four"]
    assert [list(json.loads(item).items()) for item in told.items] == [
        [(names[2], 0.75), (names[1], 0.5), (names[0], 0.25)],
        [(names[3], 0.25)],
    ]
    assert told.exact == (engine == "tei")


async def test_server_without_sparse_vectors_reports_it(sources: ModelSources) -> None:
    with lookalike("vllm") as server:
        upstream = await opened(sources, server, Task.TEXT_EMBEDDING)
        with pytest.raises(InvalidRequest, match="no sparse vectors"):
            await upstream(SPARSE)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ([{"a": 1}], Cause.WRONG_COUNT),
        ([{"a": "b"}, {}], Cause.UNREADABLE_REPLY),
        (b'[{"a": 1e999}, {}]', Cause.UNREADABLE_REPLY),
        (b"<html></html>", Cause.NOT_AN_API),
    ],
)
def test_invalid_sparse_vector_is_rejected(body: object, cause: Cause) -> None:
    with pytest.raises(HubgateError) as caught:
        SparseRoute(path="").read(SPARSE, reply(body))
    assert caught.value.cause is cause
