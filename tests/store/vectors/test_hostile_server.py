"""A server that answers the shared vector cache with what it likes: each such reply is a miss, and none lasts."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from raw_server import raw_server
from running_gateway import Reply, RunningGateway, eventually
from scripted_upstream import fresh

from hubgate.domain.calls import CachedVector
from hubgate.domain.errors import StoreFailed
from hubgate.store.vectors.record import HEAD, records_of
from hubgate.store.vectors.shared import SharedVectors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.settings import Settings

KEY, OTHER = hashlib.sha256(b"a text").digest(), hashlib.sha256(b"another").digest()
VECTOR = CachedVector(struct.pack("<4f", 1, 2, 3, 4), tokens=3, exact=True, truncated=False)
GENERATION = b"0123456789abcdef"
INTEGER = b":7\r\n"


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(*parts: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Hostile:
    """Keeps what gateways store. `replies` replaces the reply to a command, `values` what MGET finds, if not `None`."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.replies: dict[bytes, bytes] = {}
        self.value: bytes | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            parts = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(size + 2))[:-2])
            writer.write(self.answer(*parts))

    def answer(self, command: bytes, *arguments: bytes) -> bytes:
        if command in self.replies:
            return self.replies[command]
        if command == b"SET":
            if b"NX" not in arguments:
                self.kept[arguments[0]] = arguments[1]
            return b"+OK\r\n"
        if command == b"GET":
            return bulk(GENERATION)
        if command == b"MGET":
            return array(bulk(GENERATION), *(self.found(place) for place in arguments[1:]))
        return bulk(b"run_id:1\r\nused_memory:5\r\nmaxmemory:9\r\n") if command == b"INFO" else b"+OK\r\n"

    def found(self, place: bytes) -> bytes:
        value = self.kept.get(place) if self.value is None else self.value
        return b"$-1\r\n" if value is None else bulk(value)


@asynccontextmanager
async def cache_at_hostile_server() -> AsyncIterator[tuple[Hostile, SharedVectors]]:
    """A cache that has stored `VECTOR` under `KEY`."""
    hostile = Hostile()
    async with raw_server(hostile.talk) as port:
        url = f"valkey://127.0.0.1:{port}/0"
        cache = SharedVectors(url, b"secret", read_seconds=60, write_seconds=60, pause=0)
        try:
            cache.put(fresh({KEY: VECTOR}))
            await cache.flush()
            assert await cache.get_many([KEY]) == {KEY: VECTOR}
            yield hostile, cache
        finally:
            await cache.close()


def forged(vector: bytes, facts: int = 0) -> bytes:
    """A record with its right checksum."""
    return HEAD.pack(len(vector), KEY, crc32(vector, facts), facts) + vector


@pytest.mark.parametrize(
    "record",
    [
        forged(struct.pack("<4f", 4, 3, 2, 1)),
        forged(struct.pack("<3f", 1, 2, 3)),
        forged(b""),
        forged(b"12345"),
        forged(struct.pack("<4f", float("nan"), float("inf"), 0, 0)),
        forged(VECTOR.vector, 0xFFFFFFFF),
        b"",
    ],
    ids=["vector", "dimensions", "empty", "bytes", "not-a-number", "facts", "nothing"],
)
async def test_vector_that_no_gateway_stored_is_a_miss(record: bytes) -> None:
    async with cache_at_hostile_server() as (hostile, cache):
        (genuine,) = (value for place, value in hostile.kept.items() if place.endswith(KEY))
        for value in (record, bytes(16) + record, genuine[:16] + record, genuine[:-1], genuine + b"x"):
            hostile.value = value
            assert await cache.get_many([KEY]) == {}
        hostile.value = genuine
        assert await cache.get_many([OTHER]) == {}, "it belongs to another text"
        assert await cache.get_many([KEY]) == {KEY: VECTOR}


async def test_vector_of_gateways_with_another_secret_is_a_miss() -> None:
    async with cache_at_hostile_server() as (hostile, cache):
        record = records_of({KEY: VECTOR})[KEY]
        hostile.value = hashlib.blake2b(record, key=b"another", digest_size=16).digest() + record
        assert await cache.get_many([KEY]) == {}


@pytest.mark.parametrize(
    "reply",
    [
        array(bulk(GENERATION)),
        array(bulk(GENERATION), bulk(b"x"), bulk(b"y")),
        array(),
        INTEGER,
        array(bulk(GENERATION), INTEGER),
        array(bulk(GENERATION), b"-ERR no\r\n"),
        array(bulk(GENERATION), array(bulk(b"x"))),
        array(INTEGER, b"$-1\r\n"),
        array(bulk(b"odd name:"), b"$-1\r\n"),
        array(b"$-1\r\n", b"$-1\r\n"),
        b"$-1\r\n",
        b"-ERR no\r\n",
        b":x\r\n",
        b"?\r\n",
    ],
)
async def test_odd_reply_is_a_miss_until_the_server_is_right_again(reply: bytes) -> None:
    async with cache_at_hostile_server() as (hostile, cache):
        for generation in (INTEGER, bulk(b"odd name:"), b"*0\r\n"):
            hostile.replies |= {b"MGET": reply, b"GET": generation, b"INFO": INTEGER}
            assert await cache.get_many([KEY]) == {}
            assert (await cache.stats())["bytes"] == 0
        hostile.replies.clear()
        assert await cache.get_many([KEY]) == {KEY: VECTOR}


@pytest.mark.parametrize("odd", [INTEGER, bulk(b"odd name:"), array(INTEGER)])
async def test_generation_that_is_none_at_the_start_is_not_kept(odd: bytes) -> None:
    hostile = Hostile()
    hostile.replies[b"GET"] = odd
    async with raw_server(hostile.talk) as port:
        url = f"valkey://127.0.0.1:{port}/0"
        cache = SharedVectors(url, b"secret", read_seconds=60, write_seconds=60, pause=0)
        try:
            assert await cache.get_many([KEY]) == {}
            cache.put(fresh({KEY: VECTOR}))
            await cache.flush()
            hostile.replies.clear()
            cache.put(fresh({KEY: VECTOR}))
            await cache.flush()
            assert await cache.get_many([KEY]) == {KEY: VECTOR}
        finally:
            await cache.close()


@pytest.mark.parametrize(
    ("report", "used"),
    [(bulk(b"used_memory:\xff\r\n"), 0), (bulk(b"used_memory:-1\r\n"), 0), (array(), 0), (INTEGER, 0)],
)
async def test_odd_report_of_the_server_is_no_error(report: bytes, used: int) -> None:
    async with cache_at_hostile_server() as (hostile, cache):
        hostile.replies[b"INFO"] = report
        assert (await cache.stats())["bytes"] == used


REPORTS = [
    bulk(b""),
    bulk(b"\xff\x00:\xff\r\n:\r\n::::"),
    *(
        bulk(b"used_memory:%b\r\nmaxmemory:%b\r\n" % (odd, odd))
        for odd in (b"", b"-1", b"1.5", b"1e9", b"x", b" 1")
    ),
    *(bulk(b"maxmemory:%b\nused_memory:%b" % (huge, huge)) for huge in (b"9" * 19, b"9" * 20, b"9" * 5000)),
    bulk(b"used_memory:1\r\nused_memory:\xb2\r\nmaxmemory:\xd9\xa3\r\n"),
    bulk(b"used_memory:5\r\n" * 100_000),
    array(),
    array(bulk(b"used_memory:5")),
    INTEGER,
    b"$-1\r\n",
    b"*-1\r\n",
    b"+used_memory:5\r\n",
    b"-ERR no\r\n",
    b":x\r\n",
    b"?\r\n",
]


async def test_a_gateway_shows_its_cache_whatever_the_server_reports(settings: Settings) -> None:
    hostile = Hostile()

    def ask(port: int) -> list[Reply]:
        url = f"valkey://127.0.0.1:{port}/0"
        with RunningGateway(replace(settings, cache_url=url)) as gateway:
            replies = []
            for report in REPORTS:
                hostile.replies[b"INFO"] = report
                replies.append(gateway.request("GET", "/api/cache"))
            hostile.replies.clear()
            eventually(lambda: gateway.request("GET", "/api/cache").json()["shared"]["available"])
            return replies

    async with raw_server(hostile.talk) as port:
        replies = await asyncio.to_thread(ask, port)
    assert [reply.status for reply in replies] == [200] * len(REPORTS)
    for reply in replies:
        shared = reply.json()["shared"]
        assert all(isinstance(shared[name], int) and shared[name] >= 0 for name in ("bytes", "most_bytes"))


@pytest.mark.parametrize("reply", [INTEGER, array(INTEGER, INTEGER), array(bulk(b"0"), array(INTEGER))])
async def test_odd_list_of_old_vectors_leaves_them(reply: bytes) -> None:
    async with cache_at_hostile_server() as (hostile, cache):
        hostile.replies[b"SCAN"] = reply
        await cache.clear()
        await cache.cleaned()
        hostile.replies[b"SET"] = b"-ERR no\r\n"
        with pytest.raises(StoreFailed):
            await cache.clear()
