"""Gateways on one PostgreSQL database share the rate limit of an endpoint, and what they find out about its server."""

from __future__ import annotations

import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from gateway_process import Home
from lookalikes import lookalike
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway_process import GatewayProcess
    from lookalikes import LookAlike
    from postgres.server import PostgresServer
    from running_gateway import Reply

PER_MINUTE = 600
ADMIN = secrets.token_urlsafe(24)


def metric(gateway: GatewayProcess, name: str) -> float:
    lines = gateway.request("GET", "/metrics", key=ADMIN).body.decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def reply(gateway: GatewayProcess) -> Reply:
    return gateway.request("POST", "/_inference/completion/writer", {"input": "Once upon a time"}, key=ADMIN)


def complete(gateway: GatewayProcess) -> int:
    return reply(gateway).status


@pytest.fixture
def home(tmp_path: Path, migrated_url: str) -> Home:
    home = Home(tmp_path, ADMIN)
    home.env |= {"HUBGATE_DATABASE_URL": migrated_url, "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32)}
    return home


@contextmanager
def two_gateways(home: Home) -> Iterator[tuple[LookAlike, list[GatewayProcess]]]:
    """Two gateways with an endpoint whose server takes ten requests a second, and two at once."""
    with ExitStack() as stack:
        server = stack.enter_context(lookalike("tgi", seconds=0.3))
        added = home.run(
            *("add", "writer", "--url", server.url, "--task", "completion"),
            *("--requests-per-minute", str(PER_MINUTE), "--max-concurrent-requests", "2"),
        )
        assert added.status == 0, added.err
        yield (
            server,
            [
                stack.enter_context(home.serve(HUBGATE_HOME=home.env["HOME"] + f"/{number}"))
                for number in range(2)
            ],
        )


def check_rate(gateways: list[GatewayProcess]) -> None:
    """Requests of both are a tenth of a second apart."""
    eventually(lambda: [metric(each, "hubgate_alone") for each in gateways] == [0.0, 0.0])
    with ThreadPoolExecutor(8) as callers:
        started = time.monotonic()
        assert list(callers.map(complete, gateways * 15)) == [200] * 30
        assert time.monotonic() - started >= 29 * 60 / PER_MINUTE - 0.3


def check_breaker(server: LookAlike, gateways: list[GatewayProcess]) -> None:
    """A server that fails at one gateway is not called by the other, until a call of one of them succeeds."""
    first, second = gateways
    server.fail("no-credit")
    assert [complete(first) for _ in range(5)].count(200) == 0
    second.wait_for("are paused, as another gateway does: out_of_credit")
    received = len(server.requests)
    refused = reply(second)
    assert refused.status == reply(first).status
    assert b"are paused: the last 5 failed" in refused.body
    assert len(server.requests) == received
    server.heal()
    eventually(lambda: [complete(each) for each in gateways] == [200, 200])


def test_two_gateways_share_a_limit(home: Home) -> None:
    with two_gateways(home) as (server, gateways):
        check_rate(gateways)
        assert server.most_at_once == 2
        check_breaker(server, gateways)


def test_two_gateways_go_on_alone_while_the_database_is_away(
    home: Home, own_postgres: PostgresServer
) -> None:
    """Requests go on while it is away, and when it is back without its memory."""
    home.env["HUBGATE_DATABASE_URL"] = own_postgres.url
    with two_gateways(home) as (_, gateways), ThreadPoolExecutor(2) as callers:
        check_rate(gateways)
        own_postgres.kill()
        for gateway in gateways:
            gateway.wait_for("is away: this gateway goes on alone, at 1/2 of each rate limit")
        assert [metric(each, "hubgate_alone") for each in gateways] == [1.0, 1.0]
        assert list(callers.map(complete, gateways)) == [200, 200]
        own_postgres.start()
        for gateway in gateways:
            gateway.wait_for("rate limits are shared through the PostgreSQL database .* again")
        eventually(lambda: [metric(each, "hubgate_alone") for each in gateways] == [0.0, 0.0])
        assert list(callers.map(complete, gateways)) == [200, 200]
        for gateway in gateways:
            gateway.signal(signal.SIGTERM)
            assert gateway.wait() == 0
            assert not gateway.traceback, gateway.traceback
