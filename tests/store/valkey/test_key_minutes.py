"""The limits of gateway keys at several gateways: the script in virtual time, and on real servers that fail."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from limited_keys import GATEWAYS, admits, key, limits_of_gateways, until
from servers.lua_valkey import LuaValkey
from virtual_time import now, run

from hubgate.domain.errors import KeyLimit
from hubgate.service.keys.shared_limits import SharedKeyLimits
from hubgate.store.valkey.connection import ValkeyConnection
from hubgate.store.valkey.minutes import ValkeyKeyMinutes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers.valkey import ValkeyServer


def most_in_a_minute(times: list[float]) -> int:
    return max((sum(start <= at < start + 60 for at in times) for start in times), default=0)


@settings(max_examples=examples(20))
@given(
    st.lists(st.sampled_from([0.0, 0.01, 0.3, 0.99, 1.0, 7.0, 30.0, 59.0, 60.0, 61.0, 200.0]), max_size=60),
    st.integers(1, 5),
    st.floats(0, 1),
)
def test_no_minute_has_more_requests_than_the_limit_and_waits_are_right(
    pauses: list[float], limit: int, offset: float
) -> None:
    async def main() -> None:
        server = LuaValkey(offset=1_750_000_000 + offset)
        minutes = ValkeyKeyMinutes(cast("ValkeyConnection", server.connection()))
        admitted = []
        for pause in pauses:
            await asyncio.sleep(pause)
            exhausted = await minutes.admit(key(limit))
            if exhausted is None:
                admitted.append(now())
                continue
            assert exhausted.what == "requests"
            assert 0 < exhausted.seconds <= 61
            assert sum(at > now() - 61 for at in admitted) >= limit  # refused for a reason
            await asyncio.sleep(exhausted.seconds + 0.001)
            assert await minutes.admit(key(limit)) is None
            admitted.append(now())
        assert most_in_a_minute(admitted) <= limit
        stored = server.hashes.get("{hg}:key:0a1b2c3d", {})
        assert len(stored) <= 62

    run(main())


def test_tokens_of_the_last_minute_refuse_requests() -> None:
    async def main() -> None:
        server = LuaValkey()
        minutes = ValkeyKeyMinutes(cast("ValkeyConnection", server.connection()))
        limited = key(100, tokens=1000)
        await minutes.spend(limited.id, 600)
        assert await minutes.admit(limited) is None
        await asyncio.sleep(10)
        await minutes.spend(limited.id, 600)
        exhausted = await minutes.admit(limited)
        assert exhausted
        assert exhausted.what == "tokens"
        assert 50 <= exhausted.seconds <= 51
        await asyncio.sleep(exhausted.seconds + 0.001)
        assert await minutes.admit(limited) is None

    run(main())


def test_clock_that_is_set_back_blocks_no_key() -> None:
    async def main() -> None:
        server = LuaValkey()
        minutes = ValkeyKeyMinutes(cast("ValkeyConnection", server.connection()))
        assert await minutes.admit(key(1)) is None
        server.offset -= 3600
        assert await minutes.admit(key(1)) is None
        assert await minutes.admit(key(1)) is not None

    run(main())


@asynccontextmanager
async def gateways(server: ValkeyServer, patience: float = 5.0) -> AsyncIterator[list[SharedKeyLimits]]:
    """The limits of three gateways."""
    connections = [ValkeyConnection(server.url, "TEST", patience=patience) for _ in range(GATEWAYS)]
    yield limits_of_gateways([ValkeyKeyMinutes(connection) for connection in connections])
    for connection in connections:
        await connection.close()


async def test_requests_at_all_gateways_count_together(valkey: ValkeyServer) -> None:
    async with gateways(valkey) as all_limits:
        asked = await asyncio.gather(*(admits(limits, key(10)) for limits in all_limits * 10))
        assert sum(asked) == 10
        with pytest.raises(KeyLimit, match="exceeded its limit of 10 requests per minute"):
            await all_limits[0].admit(key(10), time.monotonic())


async def test_tokens_spent_at_one_gateway_count_at_another(valkey: ValkeyServer) -> None:
    async with gateways(valkey) as (one, other, _):
        assert await admits(other, key(tokens=100))
        one.spend(key(tokens=100), 100, time.monotonic())
        await until(other, key(tokens=100), admitted=False)


async def test_revoked_key_is_forgotten(valkey: ValkeyServer) -> None:
    async with gateways(valkey) as (one, other, _):
        assert await admits(one, key(1))
        assert not await admits(other, key(1))
        other.forget(key().id)
        await until(other, key(1), admitted=True)


async def test_each_gateway_allows_its_share_while_the_server_is_away(valkey: ValkeyServer) -> None:
    async with gateways(valkey) as all_limits:
        assert await admits(all_limits[0], key(9))
        valkey.kill()
        alone = [[await admits(limits, key(9)) for _ in range(5)] for limits in all_limits]
        assert [sum(asked) for asked in alone] == [2, 3, 3]  # the first had one of its three before


async def test_frozen_server_stops_no_call(valkey: ValkeyServer) -> None:
    async with gateways(valkey, patience=0.1) as (one, *_):
        valkey.freeze()
        assert sum([await admits(one, key(300)) for _ in range(200)]) == 100
        valkey.thaw()
