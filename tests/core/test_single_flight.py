"""Calls that need the same text at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import ScriptedUpstream, embed, refused, vector
from virtual_time import now, run

from hubgate.core.cache import CacheStep, MemoryCache
from hubgate.domain.calls import CachedVector, Vectors
from hubgate.domain.errors import UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubgate.domain.calls import Embed, FreshVectors


def step(server: ScriptedUpstream, cache: MemoryCache | None = None) -> CacheStep:
    return CacheStep(server, MemoryCache(100_000) if cache is None else cache, identity=["model"])


async def answer(cached: CacheStep, call: Embed, after: float = 0.0) -> Vectors:
    """The checked result of a call that starts later."""
    await asyncio.sleep(after)
    result = await cached(call)
    assert isinstance(result, Vectors)
    assert list(result.items) == [vector(text) for text in call.texts]
    return result


def test_text_that_several_calls_need_at_once_is_requested_once() -> None:
    server = ScriptedUpstream()
    cached = step(server)

    async def main() -> None:
        await asyncio.gather(
            answer(cached, embed("a", "b")),
            answer(cached, embed("b", "c", "b"), after=0.01),
            answer(cached, embed("c", "a"), after=0.02),
            answer(cached, embed("a"), after=0.09),
        )
        assert now() == pytest.approx(0.11)

    run(main())
    assert server.asked == [["a", "b"], ["c"]]
    assert (cached.hits, cached.misses) == (5, 3)


def test_tokens_of_a_shared_text_are_counted_as_for_a_cached_one() -> None:
    cached = step(ScriptedUpstream())

    async def main() -> tuple[Vectors, Vectors]:
        return await asyncio.gather(answer(cached, embed("a")), answer(cached, embed("a", "b"), after=0.01))

    first, second = run(main())
    assert (first.tokens, first.exact) == (10, True)
    assert (second.tokens, second.exact) == (20, True)


def test_failure_reaches_only_the_call_that_requested() -> None:
    faults = [refused(), None]
    server = ScriptedUpstream(fault=lambda texts: faults.pop(0))
    cached = step(server)

    async def main() -> None:
        first = asyncio.create_task(answer(cached, embed("a")))
        second = asyncio.create_task(answer(cached, embed("b", "a"), after=0.01))
        with pytest.raises(UpstreamRefused):
            await first
        await second

    faults.insert(1, None)
    run(main())
    assert server.asked == [["a"], ["b"], ["a"]]
    assert (cached.hits, cached.misses) == (0, 3)


def test_calls_that_waited_for_a_failed_one_do_not_wait_for_each_other() -> None:
    server = ScriptedUpstream(fault=lambda texts: refused())
    cached = step(server)

    async def main() -> None:
        failures = await asyncio.gather(
            *(answer(cached, embed("a")) for _ in range(10)), return_exceptions=True
        )
        assert all(isinstance(failure, UpstreamRefused) for failure in failures)
        assert now() == pytest.approx(0.2)

    run(main())


def test_cancelled_calls_do_not_harm_others() -> None:
    server = ScriptedUpstream()
    cached = step(server)

    async def main() -> None:
        first, waiting, second, third = (
            asyncio.create_task(answer(cached, embed("a"), after=after)) for after in (0, 0.01, 0.02, 0.03)
        )
        await asyncio.sleep(0.04)
        waiting.cancel()
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(second, third)

    run(main())
    assert server.asked[0] == ["a"]
    assert server.cancelled == 1
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("first", "second", "requests"),
    [
        (embed("a", caller="one"), embed("a", caller="one"), 1),
        (embed("a", caller="one"), embed("a", caller="two"), 2),
        (embed("a", bulk=True), embed("a"), 2),
        (embed("a"), embed("a", bulk=True), 1),
        (embed("a", deadline=5), embed("a", deadline=4), 2),
        (embed("a"), embed("a", deadline=4), 2),
        (embed("a", deadline=5), embed("a"), 1),
    ],
)
def test_no_call_waits_in_the_queue_of_another_caller_or_class_or_past_its_deadline(
    first: Embed, second: Embed, requests: int
) -> None:
    server = ScriptedUpstream()
    cached = step(server)

    async def main() -> None:
        await asyncio.gather(answer(cached, first), answer(cached, second, after=0.01))

    run(main())
    assert server.asked == [["a"]] * requests


class SlowBacking:
    """A slower cache, whose answers take long."""

    is_near = False

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        await asyncio.sleep(0.5)
        return {}

    def put(self, fresh: FreshVectors) -> None:
        pass


def test_text_stored_while_the_slower_cache_is_read_is_not_requested_again() -> None:
    server = ScriptedUpstream()
    cached = step(server, MemoryCache(100_000, backing=SlowBacking()))

    async def main() -> None:
        await asyncio.gather(answer(cached, embed("a")), answer(cached, embed("a"), after=0.3))

    run(main())
    assert server.asked == [["a"]]
