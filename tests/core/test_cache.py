"""The vector cache."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from msgspec.structs import fields, replace
from scripted_upstream import ScriptedUpstream, embed, fresh, vector
from virtual_time import run

from hubgate.core.cache import CacheStep, MemoryCache
from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import CachedVector, Embed, Encoding, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from hubgate.domain.calls import Call, FreshVectors, Result

IDENTITY = ("intfloat/e5-small-v2", "ffb93f3", "mean", None)


def ask(cached: CacheStep, *calls: Embed) -> list[Vectors]:
    """Results of sequential calls; each is checked."""

    async def main() -> list[Vectors]:
        results = []
        for call in calls:
            result = await cached(call)
            assert isinstance(result, Vectors)
            assert list(result.items) == [vector(text) for text in call.texts]
            results.append(result)
        return results

    return run(main())


def test_requests_each_uncached_text_once() -> None:
    server = ScriptedUpstream()
    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    ask(cached, embed("a", "b"), embed("b", "c", "a", "c"), embed("c", "b"))
    assert server.asked == [["a", "b"], ["c"]]
    assert (cached.hits, cached.misses) == (5, 3)


def test_returns_upstream_result_when_nothing_is_cached() -> None:
    own = Vectors(items=[b"[0.5,1]"], encoding=Encoding.JSON)

    async def server(call: Call) -> Result:
        return own

    assert run(CacheStep(server, MemoryCache(10_000), identity=IDENTITY)(embed("a"))) is own


def test_caches_vectors_in_original_encoding_and_converts_mixed_results() -> None:
    async def server(call: Call) -> Result:
        if call.texts[0] == "json":
            return Vectors(items=[b"[0.5,1]"], encoding=Encoding.JSON)
        return Vectors(items=[struct.pack("<2f", 2, 3)], encoding=Encoding.F32)

    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)

    async def main() -> list[tuple[Encoding, list[bytes]]]:
        results = []
        for texts in (["json"], ["f32"], ["json", "json"], ["f32"], ["f32", "json"]):
            result = await cached(embed(*texts))
            assert isinstance(result, Vectors)
            results.append((result.encoding, list(result.items)))
        return results

    one, two = struct.pack("<2f", 0.5, 1), struct.pack("<2f", 2, 3)
    assert run(main())[2:] == [
        (Encoding.JSON, [b"[0.5,1]", b"[0.5,1]"]),
        (Encoding.F32, [two]),
        (Encoding.F32, [two, one]),
    ]


def test_cached_texts_keep_token_and_truncation_counts() -> None:
    async def server(call: Call) -> Result:
        return Vectors(
            items=[vector(text) for text in call.texts],
            encoding=Encoding.F32,
            tokens=sum(map(len, call.texts)),
            exact=True,
            text_tokens=[len(text) for text in call.texts],
            text_truncated=[len(text) > 3 for text in call.texts],
            warnings=("slow",),
            waited=1.5,
        )

    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    _, some, none = ask(cached, embed("a", "bbbb"), embed("bbbb", "cc", "bbbb"), embed("a", "cc"))
    assert (some.tokens, some.exact, some.truncated) == (10, True, 2)
    assert (some.warnings, some.waited) == (("slow",), 1.5)
    assert (none.tokens, none.exact, none.truncated, none.waited) == (3, True, 0, 0.0)


def test_divided_token_total_is_not_exact() -> None:
    cached = CacheStep(ScriptedUpstream(), MemoryCache(10_000), identity=IDENTITY)
    whole, part, single, again = ask(cached, embed("a", "bbb"), embed("a"), embed("z"), embed("z"))
    assert (whole.tokens, whole.exact) == (20, True)
    assert (part.tokens, part.exact) == (6, False)
    assert (single.tokens, single.exact) == (again.tokens, again.exact) == (10, True)


def test_counts_missing_from_the_reply_stay_unknown() -> None:
    async def server(call: Call) -> Result:
        return Vectors(items=[vector(text) for text in call.texts], encoding=Encoding.F32)

    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    result = ask(cached, embed("a"), embed("a"))[1]
    assert (result.tokens, result.exact, result.truncated) == (None, False, None)


def test_cache_key_depends_on_identity_and_options() -> None:
    server = ScriptedUpstream()
    cache = MemoryCache(10_000)
    calls = [
        embed("a"),
        Embed(texts=["a"], input_type=InputType.SEARCH),
        Embed(texts=["a"], prompt_name="None"),
        Embed(texts=["a"], dimensions=2),
        Embed(texts=["a"], normalize=True),
        Embed(texts=["a"], truncate=True),
        Embed(texts=["a"], truncate_left=True),
    ]
    ask(CacheStep(server, cache, identity=IDENTITY), *calls)
    ask(CacheStep(server, cache, identity=("another", *IDENTITY[1:])), *calls)
    ask(CacheStep(server, cache, identity=IDENTITY), *calls)
    assert len(server.asked) == 2 * len(calls)


def test_options_include_every_field_that_changes_the_vector() -> None:
    """A new field must be added to `options`, else calls that differ in it would share vectors."""
    assert len(embed("a").options) == len(fields(Embed)) - len(["texts", "context", "cached", "encoding"])


def test_bypassing_call_neither_reads_nor_writes_the_cache() -> None:
    server = ScriptedUpstream()
    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    fresh = replace(embed("a"), cached=False)
    ask(cached, fresh, fresh, embed("a"), fresh)
    assert len(server.asked) == 4


def test_passes_other_calls_through_cache() -> None:
    cached = CacheStep(ScriptedUpstream(), MemoryCache(10_000), identity=IDENTITY)

    async def main() -> Result:
        return await cached(Tokenize(texts=["a"]))

    assert isinstance(run(main()), Tokens)


def test_caches_text_with_lone_surrogate() -> None:
    server = ScriptedUpstream()

    async def odd(call: Call) -> Result:
        return await server(replace(call, texts=["odd"]))

    cached = CacheStep(odd, MemoryCache(10_000), identity=IDENTITY)

    async def main() -> None:
        await cached(embed("\ud800"))
        await cached(embed("\ud800"))

    run(main())
    assert len(server.asked) == 1


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_memory_cache_is_bounded_and_evicts_least_recently_used() -> None:
    async def main() -> tuple[set[bytes], int]:
        cache = MemoryCache(5000)
        for number in range(10):
            cache.put(fresh({key(number): CachedVector(bytes(600))}))
            await cache.get_many([key(0)])
        cache.put(fresh({key(0): CachedVector(bytes(600))}))
        return set(await cache.get_many([key(number) for number in range(10)])), cache.bytes

    kept, size = run(main())
    assert kept == {key(number) for number in (0, 6, 7, 8, 9)}
    assert size == 5000


def test_clear_empties_the_memory_cache() -> None:
    async def main() -> None:
        cache = MemoryCache(5000)
        cache.put(fresh({key(1): CachedVector(b"1234")}))
        assert len(cache) == 1
        cache.clear()
        assert (len(cache), cache.bytes) == (0, 0)
        assert not await cache.get_many([key(1)])

    run(main())


class Broken:
    """A cache whose disk fails."""

    is_near = False

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        raise StoreFailed("disk I/O error")

    def put(self, fresh: FreshVectors) -> None:
        pass


class Behind(MemoryCache):
    """A second level in memory."""

    is_near = False


def test_reads_and_writes_through_to_the_second_level() -> None:
    async def main() -> None:
        behind = Behind(10_000)
        behind.put(fresh({key(1): CachedVector(b"0001")}))
        front = MemoryCache(10_000, behind)
        front.put(fresh({key(2): CachedVector(b"0002")}))
        found = await front.get_many([key(1), key(2), key(3)])
        assert {entry.vector for entry in found.values()} == {b"0001", b"0002"}
        assert len(front) == len(behind) == 2

    run(main())


def test_keeps_in_memory_only_what_is_asked_for_again_if_the_second_level_is_near() -> None:
    async def main() -> None:
        behind = Behind(10_000)
        behind.is_near = True
        front = MemoryCache(10_000, behind)
        front.put(fresh({key(1): CachedVector(b"0001"), key(2): CachedVector(b"0002")}))
        assert (len(front), len(behind)) == (0, 2)
        assert list(await front.get_many([key(2)])) == [key(2)]
        assert len(front) == 1
        behind.clear()
        assert list(await front.get_many([key(1), key(2)])) == [key(2)]

    run(main())


def test_failing_disk_cache_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    server = ScriptedUpstream()
    ask(CacheStep(server, MemoryCache(10_000, Broken()), identity=IDENTITY), embed("a"), embed("a", "b"))
    assert server.asked == [["a"], ["b"]]
    assert "disk I/O error" in caplog.text


def test_cancelled_caller_does_not_affect_others() -> None:
    server = ScriptedUpstream()
    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)

    async def main() -> None:
        leaver, stayer = (asyncio.create_task(cached(embed("a"))) for _ in range(2))
        await asyncio.sleep(0.05)
        leaver.cancel()
        assert isinstance(await stayer, Vectors)

    run(main())


def test_keeps_what_is_asked_for_again_in_the_encoding_of_the_call() -> None:
    server = ScriptedUpstream()
    memory = MemoryCache(10_000)
    cached = CacheStep(server, memory, identity=IDENTITY)
    as_json = replace(embed("a", "b"), encoding=Encoding.JSON)
    as_f32 = replace(as_json, encoding=Encoding.F32)

    async def main() -> None:
        first = await cached(embed("a", "b"))
        for call in (as_json, as_f32, as_json):
            answer = await cached(call)
            assert isinstance(first, Vectors)
            assert isinstance(answer, Vectors)
            assert answer.encoding is call.encoding
            assert in_encoding(answer, Encoding.F32).items == in_encoding(first, Encoding.F32).items
            again = await cached(call)
            assert isinstance(again, Vectors)
            assert all(one is other for one, other in zip(again.items, answer.items, strict=True))
        assert len(memory) == 2

    run(main())
    assert server.asked == [["a", "b"]]
