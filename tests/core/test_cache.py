"""The vector cache."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from scripted_upstream import ScriptedUpstream, embed, vector
from virtual_time import run

from hubgate.core.cache import CacheStep, MemoryCache
from hubgate.domain.calls import CachedVector, Embed, Encoding, InputType, Tokenize, Tokens, Vectors
from hubgate.domain.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from hubgate.domain.calls import Call, Result

IDENTITY = ("intfloat/e5-small-v2", "ffb93f3", "mean", None)


def ask(cached: CacheStep, *calls: Embed) -> list[Vectors]:
    """The results of calls made one after the other; each is checked."""

    async def main() -> list[Vectors]:
        results = []
        for call in calls:
            result = await cached(call)
            assert isinstance(result, Vectors)
            assert list(result.items) == [vector(text) for text in call.texts]
            results.append(result)
        return results

    return run(main())


def test_only_what_is_not_remembered_is_asked_for_and_each_text_once() -> None:
    server = ScriptedUpstream()
    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    ask(cached, embed("a", "b"), embed("b", "c", "a", "c"), embed("c", "b"))
    assert server.asked == [["a", "b"], ["c"]]
    assert (cached.hits, cached.misses) == (5, 3)


def test_with_nothing_remembered_the_result_is_the_upstreams_own() -> None:
    own = Vectors(items=[b"[0.5,1]"], encoding=Encoding.JSON)

    async def server(call: Call) -> Result:
        return own

    assert run(CacheStep(server, MemoryCache(10_000), identity=IDENTITY)(embed("a"))) is own


def test_a_vector_is_remembered_as_it_came_and_those_that_came_in_two_encodings_become_one() -> None:
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


def test_tokens_and_cuts_of_remembered_texts_count_as_before() -> None:
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


def test_a_total_of_tokens_divided_among_texts_is_no_longer_exact() -> None:
    cached = CacheStep(ScriptedUpstream(), MemoryCache(10_000), identity=IDENTITY)
    whole, part, single, again = ask(cached, embed("a", "bbb"), embed("a"), embed("z"), embed("z"))
    assert (whole.tokens, whole.exact) == (20, True)
    assert (part.tokens, part.exact) == (6, False)
    assert (single.tokens, single.exact) == (again.tokens, again.exact) == (10, True)


def test_what_the_engine_does_not_tell_stays_unknown() -> None:
    async def server(call: Call) -> Result:
        return Vectors(items=[vector(text) for text in call.texts], encoding=Encoding.F32)

    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    result = ask(cached, embed("a"), embed("a"))[1]
    assert (result.tokens, result.exact, result.truncated) == (None, False, None)


def test_another_identity_or_option_is_another_vector() -> None:
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


def test_the_options_of_a_call_are_all_but_its_texts_its_context_and_the_cache() -> None:
    """A new field must be added to `options`, else calls that differ in it would share vectors."""
    assert len(embed("a").options) == len(fields(Embed)) - len(["texts", "context", "cached"])


def test_a_call_that_bypasses_the_cache_neither_reads_nor_writes_it() -> None:
    server = ScriptedUpstream()
    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)
    fresh = replace(embed("a"), cached=False)
    ask(cached, fresh, fresh, embed("a"), fresh)
    assert len(server.asked) == 4


def test_other_calls_pass() -> None:
    cached = CacheStep(ScriptedUpstream(), MemoryCache(10_000), identity=IDENTITY)

    async def main() -> Result:
        return await cached(Tokenize(texts=["a"]))

    assert isinstance(run(main()), Tokens)


def test_broken_unicode_has_a_key_too() -> None:
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


def test_memory_is_bounded_and_what_was_used_last_stays() -> None:
    async def main() -> tuple[set[bytes], int]:
        cache = MemoryCache(5000)
        for number in range(10):
            await cache.put_many({key(number): CachedVector(bytes(600))})
            await cache.get_many([key(0)])
        await cache.put_many({key(0): CachedVector(bytes(600))})
        return set(await cache.get_many([key(number) for number in range(10)])), cache.bytes

    kept, size = run(main())
    assert kept == {key(number) for number in (0, 6, 7, 8, 9)}
    assert size == 5000


def test_clearing_forgets_everything() -> None:
    async def main() -> None:
        cache = MemoryCache(5000)
        await cache.put_many({key(1): CachedVector(b"1234")})
        assert len(cache) == 1
        cache.clear()
        assert (len(cache), cache.bytes) == (0, 0)
        assert not await cache.get_many([key(1)])

    run(main())


class Broken:
    """A cache whose disk is gone."""

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        raise StoreFailed("disk I/O error")

    async def put_many(self, vectors: Mapping[bytes, CachedVector]) -> None:
        raise StoreFailed("disk is full")


def test_what_is_behind_is_asked_for_what_is_not_in_memory_and_told_what_is_new() -> None:
    async def main() -> None:
        behind = MemoryCache(10_000)
        await behind.put_many({key(1): CachedVector(b"0001")})
        front = MemoryCache(10_000, behind)
        await front.put_many({key(2): CachedVector(b"0002")})
        found = await front.get_many([key(1), key(2), key(3)])
        assert {entry.vector for entry in found.values()} == {b"0001", b"0002"}
        assert len(front) == len(behind) == 2

    run(main())


def test_a_broken_disk_costs_no_call(caplog: pytest.LogCaptureFixture) -> None:
    server = ScriptedUpstream()
    ask(CacheStep(server, MemoryCache(10_000, Broken()), identity=IDENTITY), embed("a"), embed("a", "b"))
    assert server.asked == [["a"], ["b"]]
    assert "disk I/O error" in caplog.text
    assert "disk is full" in caplog.text


def test_a_caller_who_leaves_takes_nothing_from_others() -> None:
    server = ScriptedUpstream()
    cached = CacheStep(server, MemoryCache(10_000), identity=IDENTITY)

    async def main() -> None:
        leaver, stayer = (asyncio.create_task(cached(embed("a"))) for _ in range(2))
        await asyncio.sleep(0.05)
        leaver.cancel()
        assert isinstance(await stayer, Vectors)

    run(main())
