"""The limits of gateway keys at several gateways through PostgreSQL: the same answers as those of the server in Python, with which the rule is tested."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING

import psycopg
import pytest
from limited_keys import GATEWAYS, admits, key, limits_of_gateways, until
from servers.limit_server import LimitServer
from virtual_time import run

from hubgate.service.keys.shared_limits import SharedKeyLimits
from hubgate.store.cluster.postgres_link import PostgresLink
from hubgate.store.cluster.postgres_minutes import PostgresKeyMinutes
from hubgate.store.postgres import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def gateways(migrated_url: str) -> AsyncIterator[list[SharedKeyLimits]]:
    """The limits of three gateways."""
    links = [PostgresLink(PostgresDatabase(migrated_url, 5.0)) for _ in range(GATEWAYS)]
    yield limits_of_gateways([PostgresKeyMinutes(link) for link in links])
    for link in links:
        await link.close()


async def test_requests_at_all_gateways_count_together(gateways: list[SharedKeyLimits]) -> None:
    asked = await asyncio.gather(*(admits(limits, key(10)) for limits in gateways * 10))
    assert sum(asked) == 10


async def test_tokens_count_at_all_and_a_revoked_key_is_forgotten(gateways: list[SharedKeyLimits]) -> None:
    one, other, _ = gateways
    assert await admits(other, key(tokens=100))
    one.spend(key(tokens=100), 100, time.monotonic())
    await until(other, key(tokens=100), admitted=False)
    one.forget(key().id)
    await until(other, key(tokens=100), admitted=True)


async def test_each_gateway_allows_its_share_while_the_database_does_not_answer(
    gateways: list[SharedKeyLimits], migrated_url: str
) -> None:
    with psycopg.connect(migrated_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('hubgate key 0a1b2c3d', 0))")
        asked = [await admits(gateways[0], key(9)) for _ in range(5)]
    assert asked == [True, True, True, False, False]


def test_answers_are_those_of_the_server_in_python(migrated_url: str) -> None:
    """In 10 histories of random requests, tokens, pauses and clock steps."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        refused = 0
        for seed in range(10):
            connection.execute("TRUNCATE rate_limit_keys")
            refused += run(compare(connection, Random(seed)))
        assert refused > 20


async def compare(connection: psycopg.Connection[tuple[list[int]]], chance: Random) -> int:
    """Returns how many requests were refused."""
    server = LimitServer(offset=1_750_000_000 + chance.random())
    model = server.connection()
    limited = key(chance.choice([None, 1, 5]), chance.choice([None, 100]))
    limits = limited.requests_per_minute or 0, limited.tokens_per_minute or 0
    refused = 0
    for _ in range(60):
        await asyncio.sleep(chance.choice([0.0, 0.01, 0.99, 1.0, 7.0, 30.0, 61.0]))
        if chance.random() < 0.05:
            server.offset += chance.choice([-100.0, -1.0, 0.7])
        tokens = chance.choice([0, 0, 0, 40])
        at = server.time
        row = connection.execute(
            "SELECT hubgate_minute(%s, %s, %s, %s, %s)", (limited.id, *limits, tokens, at)
        ).fetchone()
        assert row is not None
        if tokens:
            await model.spend(limited.id, tokens)
            assert row[0] == [0, 0]
            continue
        exhausted = await model.admit(limited)
        refused += exhausted is not None
        what, wait = ("", "requests", "tokens")[row[0][0]], row[0][1] / 1_000_000
        assert (exhausted.what, exhausted.seconds) == (what, wait) if exhausted else not what
    return refused
