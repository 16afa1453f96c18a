"""The order of the wrappers, and what endpoints share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs
from stub_sources import StubSources, dedicated, local, until

from hubgate.core.cache import MemoryCache
from hubgate.core.queue.batch_queue import BatchQueue
from hubgate.domain.calls import Context, Embed, Vectors
from hubgate.domain.endpoint import Engine, Facts, InputType, Target
from hubgate.domain.errors import Cause, DeadlineExceeded, UpstreamRefused
from hubgate.domain.secret import Secret
from hubgate.service.inference.pipeline import Pipelines, identity

if TYPE_CHECKING:
    from hubgate.domain.endpoint import Endpoint
    from hubgate.service.inference.pipeline import Pipeline

E5 = dedicated(
    facts=Facts(
        engine=Engine.TEI,
        model="intfloat/multilingual-e5-small",
        revision="abc",
        dimensions=2,
        precision="float32",
        prefixes={InputType.SEARCH: "query: ", InputType.INGEST: "passage: "},
    )
)
HERE = replace(local(), facts=E5.facts)
CALL = Embed(texts=["one", "two"], input_type=InputType.SEARCH)


@pytest.fixture
async def sources() -> StubSources:
    return StubSources()


def pipelines(cache: MemoryCache | None = None) -> Pipelines:
    return Pipelines(cache, time.monotonic)


def build(sources: StubSources, endpoint: Endpoint, *, cache: MemoryCache | None = None) -> Pipeline:
    return pipelines(cache).build(Target(endpoint), sources.open(Target(endpoint)))


def texts(sources: StubSources) -> list[list[str]]:
    """What each actor's calls held, one actor after the other."""
    return [list(call.texts) for actor in sources.upstreams for call in actor.calls]


class TestOrder:
    async def test_cache_key_includes_the_prefix(self, sources: StubSources) -> None:
        answer = build(sources, E5, cache=MemoryCache(1 << 20)).answer
        await answer(CALL)
        await answer(structs.replace(CALL, input_type=InputType.INGEST))
        await answer(Embed(texts=["query: one", "query: two"]))
        assert texts(sources) == [["query: one", "query: two"], ["passage: one", "passage: two"]]

    async def test_cached_texts_skip_the_queue(self, sources: StubSources) -> None:
        pipeline = build(sources, E5, cache=MemoryCache(1 << 20))
        await pipeline.answer(CALL)
        await pipeline.answer(CALL)
        assert pipeline.queue is not None
        assert pipeline.queue.requests == 1
        assert pipeline.cached is not None
        assert (pipeline.cached.hits, pipeline.cached.misses) == (2, 2)

    async def test_invalid_vector_is_never_cached(self, sources: StubSources) -> None:
        cache = MemoryCache(1 << 20)
        answer = build(sources, E5, cache=cache).answer
        sources.vector = (0.6, 0.8, 0.0)
        with pytest.raises(Exception, match="3 dimensions"):
            await answer(CALL)
        assert len(cache) == 0

    async def test_retry_happens_below_the_queue_and_takes_its_own_permit(self, sources: StubSources) -> None:
        endpoint = replace(E5, requests_per_minute=1)
        pipeline = build(sources, endpoint)
        sources.failure = UpstreamRefused("Busy.", status=503, cause=Cause.WAKING, retryable=True)
        with pytest.raises(UpstreamRefused):  # the next permit is a minute away, and its caller has 45 s
            await pipeline.answer(CALL)
        assert pipeline.queue is not None
        assert (pipeline.queue.requests, sources.call_count) == (1, 1)

    async def test_queue_wait_is_limited_by_a_default_deadline(self, sources: StubSources) -> None:
        answer = build(sources, replace(E5, requests_per_minute=1)).answer
        await answer(CALL)
        with pytest.raises(DeadlineExceeded, match=r"its deadline is in 4[345] s"):
            await answer(CALL)

    async def test_callers_deadline_overrides_the_default(self, sources: StubSources) -> None:
        answer = build(sources, replace(E5, requests_per_minute=1)).answer
        await answer(CALL)
        context = Context(deadline=time.monotonic() + 20.0)
        with pytest.raises(DeadlineExceeded, match=r"its deadline is in (1\d|20) s"):
            await answer(structs.replace(CALL, context=context))

    async def test_operators_prefixes_override_the_models(self, sources: StubSources) -> None:
        await build(sources, replace(E5, prefixes={})).answer(CALL)
        assert texts(sources) == [["one", "two"]]


class TestLocal:
    async def test_local_model_has_no_queue_and_runs_calls_concurrently(self, sources: StubSources) -> None:
        pipeline = build(sources, HERE)
        assert pipeline.queue is None
        sources.hold()
        calls = [asyncio.ensure_future(pipeline.answer(CALL)) for _ in range(3)]
        await until(lambda: sources.call_count == 3)
        sources.go_on.set()
        assert len(await asyncio.gather(*calls)) == 3
        await pipeline.close()

    async def test_local_model_call_respects_the_deadline(self, sources: StubSources) -> None:
        answer = build(sources, HERE).answer
        sources.hold()
        with pytest.raises(DeadlineExceeded, match="did not answer before the caller's deadline"):
            await answer(structs.replace(CALL, context=Context(deadline=time.monotonic() + 0.01)))
        assert sources.upstreams[0].cancelled == 1

    async def test_local_model_answers_within_the_deadline(self, sources: StubSources) -> None:
        answer = build(sources, HERE).answer
        context = Context(deadline=time.monotonic() + 60)
        assert isinstance(await answer(structs.replace(CALL, context=context)), Vectors)


class TestCache:
    async def test_cache_is_off_when_the_endpoint_disables_it(self, sources: StubSources) -> None:
        pipeline = build(sources, replace(E5, cached=False), cache=MemoryCache(1 << 20))
        assert pipeline.cached is None
        await pipeline.answer(CALL)
        await pipeline.answer(CALL)
        assert sources.call_count == 2

    async def test_uncached_call_neither_reads_nor_writes_the_cache(self, sources: StubSources) -> None:
        cache = MemoryCache(1 << 20)
        answer = build(sources, E5, cache=cache).answer
        await answer(structs.replace(CALL, cached=False))
        assert len(cache) == 0
        await answer(CALL)
        await answer(structs.replace(CALL, cached=False))
        assert sources.call_count == 3

    async def test_endpoints_of_the_same_model_share_cached_vectors(self, sources: StubSources) -> None:
        cache = MemoryCache(1 << 20)
        await build(sources, E5, cache=cache).answer(CALL)
        other = replace(E5, name="other", url="http://127.0.0.1:2/", requests_per_minute=7)
        await build(sources, other, cache=cache).answer(CALL)
        assert sources.call_count == 1

    @pytest.mark.parametrize(
        "fact",
        [
            {"model": "intfloat/multilingual-e5-base"},
            {"revision": "def"},
            {"precision": "float16"},
            {"pooling": "cls"},
            {"engine": Engine.VLLM},
            {"max_input_tokens": 128},
        ],
        ids=lambda fact: next(iter(fact)),
    )
    async def test_endpoints_of_different_models_do_not_share_cached_vectors(
        self, sources: StubSources, fact: dict[str, object]
    ) -> None:
        cache = MemoryCache(1 << 20)
        await build(sources, E5, cache=cache).answer(CALL)
        other = replace(E5, facts=replace(E5.facts, **fact))  # type: ignore[arg-type]
        await build(sources, other, cache=cache).answer(CALL)
        assert sources.call_count == 2

    def test_fingerprint_distinguishes_models_without_a_revision(self) -> None:
        def of(fingerprint: str | None) -> list[str | None]:
            return identity(replace(E5, facts=replace(E5.facts, revision=None, fingerprint=fingerprint)))

        assert of("AAAA") == of("AAAA")
        assert of("AAAA") != of("BBBB") != of(None)


async def test_queues_hold_as_many_calls_as_they_are_given(sources: StubSources) -> None:
    target = Target(replace(E5, cached=False))
    queue = Pipelines(None, time.monotonic, max_waiting_calls=7).build(target, sources.open(target)).queue
    assert isinstance(queue, BatchQueue)
    assert queue.limits.max_waiting_calls == 7


class TestAllowance:
    """Two endpoints share a rate limit of 1 per minute: the second call exceeds the longest wait."""

    @staticmethod
    async def _shared(first: Endpoint, second: Endpoint, tokens: tuple[str | None, str | None]) -> bool:
        sources, both = StubSources(), pipelines()
        built = [
            both.build(Target(endpoint, Secret(token) if token else None), sources.open(Target(endpoint)))
            for endpoint, token in zip((first, second), tokens, strict=True)
        ]
        await built[0].answer(CALL)
        try:
            await built[1].answer(CALL)
        except DeadlineExceeded:
            return True
        return False

    @pytest.mark.parametrize("tokens", [(None, None), ("hf_one", "hf_one")])
    async def test_endpoints_with_equal_url_token_and_rate_share_the_rate_limit(
        self, tokens: tuple[str | None, str | None]
    ) -> None:
        slow = replace(E5, requests_per_minute=1)
        assert await self._shared(slow, replace(slow, name="other", cached=False), tokens)

    @pytest.mark.parametrize(
        ("other", "tokens"),
        [
            ({"url": "http://127.0.0.1:2/"}, (None, None)),
            ({"requests_per_minute": 2}, (None, None)),
            ({"tokens_per_minute": 100}, (None, None)),
            ({"max_concurrent_requests": 5}, (None, None)),
            ({"burst": 2}, (None, None)),
            ({}, ("hf_one", "hf_two")),
            ({}, ("hf_one", None)),
        ],
        ids=["url", "requests", "tokens", "concurrency", "burst", "token", "no token"],
    )
    async def test_endpoints_that_differ_have_separate_rate_limits(
        self, other: dict[str, object], tokens: tuple[str | None, str | None]
    ) -> None:
        slow = replace(E5, requests_per_minute=1)
        assert not await self._shared(slow, replace(slow, **other), tokens)  # type: ignore[arg-type]

    async def test_rate_limit_state_survives_an_update_of_other_settings(self, sources: StubSources) -> None:
        both = pipelines()
        slow = replace(E5, requests_per_minute=1)
        old = both.build(Target(slow), sources.open(Target(slow)))
        await old.answer(CALL)
        new = both.build(Target(replace(slow, cached=False)), sources.open(Target(slow)))
        del old
        with pytest.raises(DeadlineExceeded):
            await new.answer(CALL)


async def test_tokens_of_a_batched_request_are_divided_and_marked_inexact(sources: StubSources) -> None:
    pipeline = build(sources, E5)
    one, two = await asyncio.gather(
        pipeline.answer(Embed(texts=["one"])), pipeline.answer(Embed(texts=["two", "three"]))
    )
    assert isinstance(one, Vectors)
    assert isinstance(two, Vectors)
    assert sources.call_count == 1
    assert (one.exact, two.exact) == (False, False)
    assert (one.tokens or 0) + (two.tokens or 0) == 9
    alone = await pipeline.answer(Embed(texts=["one", "two"]))
    assert isinstance(alone, Vectors)
    assert (alone.tokens, alone.exact) == (6, True)


async def test_local_model_has_only_the_configured_rate_limit(
    sources: StubSources,
) -> None:
    for _ in range(10):
        await build(sources, HERE).answer(CALL)
    limited = build(sources, replace(HERE, requests_per_minute=6))
    await limited.answer(structs.replace(CALL, texts=[f"{number}" for number in range(100)]))  # one request
    soon = Context(deadline=time.monotonic() + 1)
    with pytest.raises(DeadlineExceeded):
        await limited.answer(structs.replace(CALL, texts=["another"], context=soon))
    await limited.close()
