"""Three gateways on one PostgreSQL database: 100 revocations with and without notifications, and 200 edits at once."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from servers.trio import Trio

ROUNDS = 100


@pytest.mark.timeout(600)
@pytest.mark.parametrize("notified", [True, False])
def test_revoked_key_is_refused_by_all_within_a_second(trio: Trio, *, notified: bool) -> None:
    """Without notifications: each gateway loses the connection on which it listens before each revocation."""
    name = "keyed" if notified else "keyed-by-poll"
    trio.register(name)
    times = []
    for number in range(ROUNDS):
        key = trio.change(1 + number % 3, "POST", "/api/keys", {"name": "app"})["key"]
        assert trio.statuses(name, key) == [200] * 3
        if not notified:
            _cut_listeners(trio.url)
        started = time.monotonic()
        trio.change(1 + (number + 1) % 3, "DELETE", "/api/keys/app")
        times.append(time.monotonic() - started)
        trio.check_refused(name, key)
    print(
        f"{ROUNDS} revocations {'with' if notified else 'without'} notifications: "
        f"{trio.late} of {trio.changes} changes late, median {statistics.median(times) * 1000:.0f} ms, longest {max(times) * 1000:.0f} ms",
        flush=True,
    )


@pytest.mark.timeout(600)
def test_two_hundred_concurrent_edits_are_all_kept(trio: Trio) -> None:
    names = [f"edited{number}" for number in range(20)]
    for name in names:
        trio.register(name)
    answered = trio.check_concurrent_edits(names, rounds=4)
    print(
        f"{answered} of {3 * 4 * len(names)} concurrent edits were answered with 200, and all are kept",
        flush=True,
    )
    assert answered >= 200


def _cut_listeners(url: str) -> None:
    """Close the connections on which gateways listen."""
    with psycopg.connect(url, autocommit=True) as connection:
        cut = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ~ '^(LISTEN|SELECT version FROM feed|UPDATE gateways)'"
        ).fetchall()
    assert cut
