"""The shared vector cache, on a real server: killed, frozen, restarted empty, full."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import fresh
from servers.valkey import command

from hubgate.domain.calls import CachedVector, Encoding
from hubgate.domain.errors import StoreFailed
from hubgate.store.vectors.shared import SharedVectors
from hubgate.store.vectors.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from servers.valkey import ValkeyServer


MAC_KEY = b"the secret of all gateways"


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "little")).digest()


def vectors(*numbers: int, size: int = 384) -> dict[bytes, CachedVector]:
    """Vectors that are unique to their numbers."""
    return {
        key(number): CachedVector(
            number.to_bytes(4, "little") * size, tokens=number, exact=True, truncated=False
        )
        for number in numbers
    }


@asynccontextmanager
async def caches(server: ValkeyServer, count: int = 2) -> AsyncIterator[list[SharedVectors]]:
    """The caches of that many gateways."""
    async with AsyncExitStack() as closing:
        opened = []
        for _ in range(count):
            cache = SharedVectors(server.url, MAC_KEY, read_seconds=60.0, write_seconds=60.0, pause=0.05)
            closing.push_async_callback(cache.close)
            opened.append(cache)
        yield opened


@asynccontextmanager
async def console(server: ValkeyServer) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """Executes commands on the server."""
    there = Valkey(server.url)
    try:
        yield partial(command, there)
    finally:
        await there.close()


async def found(cache: SharedVectors, *numbers: int, size: int = 384) -> list[int]:
    """Which of the vectors the cache has; each is checked."""
    answer = await cache.get_many([key(number) for number in numbers])
    assert answer == {k: v for k, v in vectors(*numbers, size=size).items() if k in answer}
    return [number for number in numbers if key(number) in answer]


async def until_shared(one: SharedVectors, other: SharedVectors, number: int) -> None:
    """Store a vector at one gateway until the other one finds it."""
    while not await found(other, number):
        one.put(fresh(vectors(number)))
        await one.flush()
        await asyncio.sleep(0.01)


async def test_vector_of_one_gateway_is_found_by_another(valkey: ValkeyServer) -> None:
    async with caches(valkey) as (one, other), console(valkey) as command:
        one.put(fresh(vectors(1, 2)))
        json = CachedVector(b"[0.5, 1]", encoding=Encoding.JSON)
        one.put(fresh({key(3): json, key(4): CachedVector(b"[1e300]", encoding=Encoding.JSON)}))
        await one.flush()
        assert await found(other, 1, 2, 5) == [1, 2]
        assert (await other.get_many([key(3)]))[key(3)] == CachedVector(
            b"\0\0\0\x3f\0\0\x80\x3f", exact=False
        )
        assert await other.get_many([key(4)]) == {}  # too large for single precision
        stats = await other.stats()
        assert (stats["hits"], stats["misses"], stats["dropped"], stats["available"]) == (3, 2, 0, True)
        assert stats["bytes"] > 0
        ttl = {await command("TTL", place) for place in await command("KEYS", "*:v:*")}  # type: ignore[attr-defined]
        assert all(isinstance(seconds, int) and 0 < seconds <= 30 * 86400 for seconds in ttl)
        assert await command("TTL", "{hg}:vectors") == -1


async def test_damaged_vector_is_not_used(valkey: ValkeyServer) -> None:
    async with caches(valkey, 1) as (cache,), console(valkey) as command:
        cache.put(fresh(vectors(1, 2)))
        await cache.flush()
        generation = await command("GET", "{hg}:vectors")
        assert isinstance(generation, bytes)
        place = b"{hg}:v:%b:%b" % (generation, key(1))
        await command("SETRANGE", place, 100, b"x")
        assert await found(cache, 1, 2) == [2]
        await command("SET", place, b"short")
        assert await found(cache, 1, 2) == [2]


async def test_clearing_at_one_gateway_clears_all(valkey: ValkeyServer) -> None:
    async with caches(valkey) as (one, other), console(valkey) as command:
        cleared = asyncio.Event()
        other.when_cleared(cleared.set)
        await until_shared(one, other, 1)
        await one.clear()
        assert await found(other, 1) == []
        assert cleared.is_set()
        assert await found(one, 1) == []
        await until_shared(other, one, 2)
        await one.cleaned()
        assert await command("DBSIZE") == 2  # the generation and the new vector
        assert await found(one, 1, 2) == [2]


async def test_clearing_reaches_a_gateway_that_asks_nothing(valkey: ValkeyServer) -> None:
    async with caches(valkey) as (one, idle):
        cleared = asyncio.Event()
        idle.when_cleared(cleared.set)
        await until_shared(one, idle, 1)
        await one.clear()
        await cleared.wait()


async def test_killed_server_fails_no_call_and_works_again_when_it_is_back_empty(
    valkey: ValkeyServer,
) -> None:
    async with caches(valkey) as (one, other):
        cleared = asyncio.Event()
        other.when_cleared(cleared.set)
        await until_shared(one, other, 1)
        valkey.kill()
        for _ in range(10):
            assert await found(other, 1) == []
            one.put(fresh(vectors(2)))
            await one.flush()
        assert (await one.stats())["dropped"] == 10
        assert (await one.stats())["available"] is False
        with pytest.raises(StoreFailed, match="cannot be reached"):
            await one.clear()
        valkey.start()
        await until_shared(one, other, 3)
        assert await found(other, 1) == []
        assert not cleared.is_set()  # a restart is no reason to embed again what is in memory


async def test_frozen_server_is_not_asked_for_long(valkey: ValkeyServer) -> None:
    quick = SharedVectors(valkey.url, MAC_KEY, read_seconds=0.2, pause=60.0)
    while not await found(quick, 1):
        quick.put(fresh(vectors(1)))
        await quick.flush()
    async with console(valkey) as command:
        await command("CONFIG", "RESETSTAT")
        valkey.freeze()
        for _ in range(500):
            assert await found(quick, 1) == []
        valkey.thaw()
        asked = await command("INFO", "commandstats")
        assert isinstance(asked, bytes)
        calls = [line for line in asked.splitlines() if line.startswith(b"cmdstat_mget:")]
        assert all(int(line.split(b"calls=")[1].split(b",")[0]) < 10 for line in calls)
    await quick.close()


async def test_full_server_loses_vectors_but_no_state(new_valkey: Callable[..., ValkeyServer]) -> None:
    evicting = new_valkey("--maxmemory", "6mb", "--maxmemory-policy", "volatile-lru")
    async with caches(evicting, 1) as (cache,), console(evicting) as command:
        await command("SET", "{hg}:state", "kept")
        for start in range(0, 3000, 500):
            cache.put(fresh(vectors(*range(start, start + 500), size=1024)))
            await cache.flush()
        assert (await cache.stats())["dropped"] == 0
        kept = 0
        for start in range(0, 3000, 20):  # a reply takes memory, too
            kept += len(await found(cache, *range(start, start + 20), size=1024))
        assert 0 < kept < 3000
        assert await command("GET", "{hg}:state") == b"kept"


async def test_server_that_is_full_and_evicts_nothing_can_still_be_read(
    new_valkey: Callable[..., ValkeyServer],
) -> None:
    full = new_valkey("--maxmemory-policy", "noeviction")
    async with caches(full, 1) as (cache,), console(full) as command:
        cache.put(fresh(vectors(1)))
        await cache.flush()
        await command("CONFIG", "SET", "maxmemory", "1mb")
        cache.put(fresh(vectors(2)))
        await cache.flush()
        assert await found(cache, 1, 2) == [1]
        assert (await cache.stats())["dropped"] == 1
