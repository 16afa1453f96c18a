"""Gateways on one PostgreSQL database and one Valkey server share the rate limit of an endpoint."""

from __future__ import annotations

import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from gateway_process import Home
from lookalikes import lookalike
from running_gateway import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_process import GatewayProcess
    from servers.valkey import ValkeyServer

PER_MINUTE = 600
ADMIN = secrets.token_urlsafe(24)


def metric(gateway: GatewayProcess, name: str) -> float:
    lines = gateway.request("GET", "/metrics", key=ADMIN).body.decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def complete(gateway: GatewayProcess) -> int:
    return gateway.request(
        "POST", "/_inference/completion/writer", {"input": "Once upon a time"}, key=ADMIN
    ).status


def test_two_gateways_share_a_limit_and_go_on_alone(
    tmp_path: Path, migrated_url: str, valkey: ValkeyServer
) -> None:
    """Requests of both are a tenth of a second apart, and go on while Valkey is away and when it is back, empty."""
    home = Home(tmp_path, ADMIN)
    shared = {"HUBGATE_DATABASE_URL": migrated_url, "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32)}
    home.env |= shared | {"HUBGATE_VALKEY_URL": valkey.url}
    with ExitStack() as stack, ThreadPoolExecutor(8) as callers:
        server = stack.enter_context(lookalike("tgi"))
        added = home.run(
            *("add", "writer", "--url", server.url, "--task", "completion"),
            *("--requests-per-minute", str(PER_MINUTE)),
        )
        assert added.status == 0, added.err
        gateways = [
            stack.enter_context(home.serve(HUBGATE_HOME=str(tmp_path / str(number)))) for number in range(2)
        ]
        assert [metric(each, "hubgate_alone") for each in gateways] == [0.0, 0.0]
        started = time.monotonic()
        sent = list(callers.map(complete, gateways * 15))
        assert sent == [200] * 30
        assert time.monotonic() - started >= 29 * 60 / PER_MINUTE - 0.3

        valkey.kill()
        for gateway in gateways:
            gateway.wait_for("is away: this gateway goes on alone, at 1/2 of each rate limit")
        assert [metric(each, "hubgate_alone") for each in gateways] == [1.0, 1.0]
        assert list(callers.map(complete, gateways)) == [200, 200]
        valkey.start()
        for gateway in gateways:
            gateway.wait_for("rate limits are shared through the Valkey server .* again")
        eventually(lambda: [metric(each, "hubgate_alone") for each in gateways] == [0.0, 0.0])
        assert list(callers.map(complete, gateways)) == [200, 200]
        for gateway in gateways:
            gateway.signal(signal.SIGTERM)
            assert gateway.wait() == 0
            assert "Traceback" not in gateway.output
