"""Leases of limits from PostgreSQL: the same answers as those of the server in Python, with which the rule is tested."""

from __future__ import annotations

import asyncio
from random import Random

import psycopg
from servers.limit_server import LimitServer
from virtual_time import run

from hubgate.domain.cluster_ports import LeaseQuestion
from hubgate.store.cluster.postgres_leases import PostgresLeases
from hubgate.store.cluster.postgres_link import PostgresLink
from hubgate.store.postgres import PostgresDatabase

_EMPTY = b"TRUNCATE rate_limit_leases, rate_limit_totals, rate_limit_gateways, rate_limit_server"


async def test_gateway_that_comes_first_gets_all_and_others_nothing_until_it_has_less(
    migrated_url: str,
) -> None:
    link = PostgresLink(PostgresDatabase(migrated_url, 5.0), 10.0)
    leases = PostgresLeases(link)
    granted = [await leases.lease(question(name)) for name in "abc"]
    assert granted == [8, 0, 0]
    await link.close()


async def test_gateway_with_an_older_configuration_gets_its_part_of_the_newest_limit(
    migrated_url: str,
) -> None:
    link = PostgresLink(PostgresDatabase(migrated_url, 5.0), 10.0)
    leases = PostgresLeases(link)
    assert await leases.lease(question("stale")) == 8
    assert await leases.lease(question("new", limit=2, version=2)) == 0
    assert await leases.lease(question("stale", holds=8, number=2)) == 1
    assert await leases.lease(question("stale", holds=1, number=3)) == 1
    assert await leases.lease(question("new", limit=2, version=2, number=2)) == 1
    assert await leases.lease(question("new", limit=2, version=2, wants=False, number=3)) == 0
    assert await leases.lease(question("stale", holds=1, number=4)) == 2  # also while no other uses it
    assert await leases.lease(question("stale", limit=6, version=3, number=5)) == 6
    await link.close()


def question(
    gateway: str, *, limit: int = 8, version: int = 1, holds: int = 0, wants: bool = True, number: int = 1
) -> LeaseQuestion:
    return LeaseQuestion(
        key="k",
        gateway=gateway,
        limit=limit,
        version=version,
        holds=holds,
        wants=wants,
        known_gateways=1,
        was_away=False,
        number=number,
    )


def test_answers_are_those_of_the_server_in_python(migrated_url: str) -> None:
    """In 20 histories of random questions, pauses, restarts, clock steps and gateways."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        granted = 0
        for seed in range(20):
            connection.execute(_EMPTY)
            granted += run(compare(connection, Random(seed)))
        assert granted > 100


async def compare(connection: psycopg.Connection[tuple[object]], chance: Random) -> int:
    """Returns how often something was granted."""
    server = LimitServer()
    model = server.connection()
    limit, number, granted = chance.choice([1, 2, 5, 12]), 100, 0
    for _ in range(60):
        await asyncio.sleep(chance.choice([0.0, 0.0, 0.3, 1.0, 4.0, 6.0, 40.0]))
        what = chance.random()
        if what < 0.03:
            server.restart()
            connection.execute(_EMPTY)
        elif what < 0.06:
            server.offset += chance.choice([-100.0, -1.0, 0.7, 50.0])
        here = round((await model.beat("", None)).now * 1e6)
        connection.execute("SELECT hubgate_beat('', 0, %s, %s)", (here, str(server.epoch)))
        name = chance.choice("abc")
        if chance.random() < 0.7:
            await model.beat(name, here / 1e6)
            connection.execute("SELECT hubgate_beat(%s, %s, %s, %s)", (name, here, here, str(server.epoch)))
        number += chance.choice([1, 1, 1, -1])
        asked = LeaseQuestion(
            key="limit",
            gateway=name,
            limit=chance.choice([limit, limit, 7]),
            version=chance.choice([1, 1, 2, 3]),
            holds=chance.choice([0, 0, 1, 3]),
            wants=chance.random() < 0.8,
            known_gateways=chance.randint(0, 3),
            was_away=chance.random() < 0.2,
            number=number,
        )
        row = connection.execute(
            "SELECT hubgate_lease(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *("limit", name, asked.limit, asked.holds, asked.wants, asked.known_gateways, asked.was_away),
                *(number, asked.version, here, str(server.epoch)),
            ),
        ).fetchone()
        answer = await model.lease(asked)
        assert row == (answer,)
        granted += answer > 0
    return granted
