"""Slots of shared rate limits from PostgreSQL: the same answers as those of the server in Python, with which the rule is tested."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import psycopg
import pytest
from servers.limit_server import LimitServer
from virtual_time import run

from hubgate.core.traffic.slots import WINDOW
from hubgate.domain.cluster_ports import SlotQuestion
from hubgate.domain.errors import StoreFailed
from hubgate.store.cluster.postgres_link import PostgresLink
from hubgate.store.cluster.postgres_permits import PostgresPermits
from hubgate.store.postgres import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.domain.cluster_ports import SlotAnswer

RATE = 60_000
_NUMBERS = [(1, 1), (5, 1), (60, 1), (60, 3), (3000, 150), (60_000, 1)]
_EMPTY = b"TRUNCATE rate_limits, rate_limit_gateways, rate_limit_server"


def question(wanted: int = 1, *, key: str = "limit", pause: float = 0.0) -> SlotQuestion:
    return SlotQuestion(
        key=key, wanted=wanted, per_window=RATE, burst=1, window=WINDOW, known_gateways=1, pause=pause
    )


@pytest.fixture
async def permits(migrated_url: str) -> AsyncIterator[PostgresPermits]:
    link = PostgresLink(PostgresDatabase(migrated_url, 5.0))
    yield PostgresPermits(link)
    await link.close()


async def test_no_two_gateways_get_the_same_slot(permits: PostgresPermits, migrated_url: str) -> None:
    links = [PostgresLink(PostgresDatabase(migrated_url, 5.0)) for _ in range(2)]
    others = [PostgresPermits(link) for link in links]
    now = (await permits.beat("a", None)).now
    for name in ("a", "b", "c"):
        answer = await permits.beat(name, now)
    assert answer.gateways == 3
    answers: list[SlotAnswer] = []
    while sum(one.granted for one in answers) < 100:
        answers += await asyncio.gather(*(each.take(question(3)) for each in (permits, *others)))
    slots = sorted(one.first + number * one.step for one in answers for number in range(one.granted))
    assert all(after - before >= WINDOW / RATE - 2e-6 for before, after in pairwise(slots))
    await permits.leave("c")
    assert (await permits.beat("a", None)).gateways == 2
    for link in links:
        await link.close()


async def test_pause_of_one_gateway_holds_for_all(permits: PostgresPermits) -> None:
    await permits.take(question())
    await permits.take(question(0, pause=100.0))
    answer = await permits.take(question())
    assert answer.granted == 0
    assert 99.0 <= answer.first - answer.now <= 100.0
    assert (await permits.take(question(key="other limit"))).granted == 1


async def test_lost_connection_fails_once_and_is_made_again(
    permits: PostgresPermits, migrated_url: str
) -> None:
    await permits.beat("a", None)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StoreFailed):
        await permits.beat("a", None)
    await permits.beat("a", None)


async def test_locked_row_is_not_waited_for(permits: PostgresPermits, migrated_url: str) -> None:
    await permits.take(question())
    with psycopg.connect(migrated_url) as connection:
        connection.execute("SELECT * FROM rate_limits FOR UPDATE")
        for _ in range(2):
            with pytest.raises(StoreFailed, match="did not respond in time"):
                await permits.take(question())
    assert (await permits.take(question())).granted in {0, 1}


def test_answers_are_those_of_the_server_in_python(migrated_url: str) -> None:
    """In 20 histories of random questions, gaps, restarts, clock steps and gateways."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        for seed in range(20):
            connection.execute(_EMPTY)
            run(compare(connection, Random(seed)))


async def compare(connection: psycopg.Connection[tuple[list[int]]], chance: Random) -> None:
    server = LimitServer()
    model = server.connection()
    rate, burst = chance.choice(_NUMBERS)

    version = 1

    def execute(statement: str, *arguments: object) -> list[int]:
        row = connection.execute(statement.encode(), arguments).fetchone()
        assert row is not None
        return row[0]

    async def ask(statement: str, *arguments: object) -> list[int]:
        here = round((await model.beat("", None)).now * 1e6)  # it also shows the server which one it is
        execute("SELECT hubgate_beat('', 0, %s, %s)", here, str(server.epoch))
        return execute(statement, *arguments, here, str(server.epoch))

    for _ in range(60):
        await asyncio.sleep(chance.choice([0.0, 0.0, 0.001, 0.3, 2.0, 5.0, 40.0]))
        what = chance.random()
        if what < 0.02:
            server.restart()
            connection.execute(_EMPTY)
        elif what < 0.04:
            server.offset += chance.choice([-100.0, -1.0, 0.7, 50.0])
        elif what < 0.4:
            name = chance.choice("abc")
            sent_at = (await model.beat("", None)).now - chance.choice([0.0, 0.0, 0.5, 1.5])
            told = await ask("SELECT hubgate_beat(%s, %s, %s, %s)", name, round(sent_at * 1e6))
            answer = await model.beat(name, sent_at)
            assert told == [round(answer.now * 1e6), answer.gateways]
        else:
            if chance.random() < 0.1:
                rate, burst = chance.choice(_NUMBERS)
                version += 1
            asked = SlotQuestion(
                version=version - (chance.random() < 0.2),
                key="limit",
                wanted=chance.choice([0, 1, 1, 5]),
                per_window=rate,
                burst=burst,
                window=WINDOW,
                known_gateways=chance.randint(0, 3),
                unsure=chance.random() < 0.05,
                was_alone=chance.random() < 0.05,
                pause=chance.choice([0.0] * 9 + [7.0]),
                slow_seconds=chance.choice([0.0] * 9 + [20.0]),
                slow_step=2.0,
            )
            statement = "SELECT hubgate_take(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            arguments = ("limit", asked.wanted, rate, burst, round(WINDOW * 1e6), asked.known_gateways)
            flags = (
                asked.unsure,
                asked.was_alone,
                *(round(each * 1e6) for each in (asked.pause, asked.slow_seconds, 2.0)),
                asked.version,
            )
            row = await ask(statement, *arguments, *flags)
            given = await model.take(asked)
            times = [round(each * 1e6) for each in (given.now, given.first, given.step, given.horizon)]
            assert [row[0], row[1], row[3], row[4]] == times
            assert [row[2], row[5]] == [given.granted, given.gateways]
