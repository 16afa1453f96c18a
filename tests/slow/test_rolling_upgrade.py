"""Three gateways on one database, replaced one after the other by another version and back, under load.

nginx with the shipped configuration is in front of them: it sends a call to another gateway only if nothing of it was
sent, and callers never repeat one. The other version is the commit in HUBGATE_UPGRADE_FROM, by default this one with one
more migration.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deploy.nginx import nginx_before
from deploy.steady_load import SteadyLoad
from lookalikes import lookalike
from servers.trio import Trio

if TYPE_CHECKING:
    from gateway_process import GatewayProcess, Home

ROOT = Path(__file__).parents[2]
CORE = 'CORE = Schema(part="core", metadata=metadata, created=_created_core'
ONE_MORE = f"""
def _add_column(operations: Operations) -> None:
    from sqlalchemy import Column, Text
    operations.add_column("endpoints", Column("more", Text))


{CORE}, migrations=(Migration(2, _add_column),)"""
FROM = os.environ.get("HUBGATE_UPGRADE_FROM")
PER_MINUTE = 600
PATIENCE = 300.0
"""Seconds for a gateway to start: it needs three of a processor, which the load and others use, too."""


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path]:
    """The source of the older version and that of the newer one."""
    this, other = ROOT / "src", tmp_path / "other"
    if FROM:
        other.mkdir()
        archive = subprocess.run(["git", "archive", FROM, "src"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "--extract"], input=archive.stdout, cwd=other, check=True)
        return other / "src", this
    shutil.copytree(this, other / "src", ignore=shutil.ignore_patterns("__pycache__"))
    versions = other / "src/hubgate/store/schema/versions.py"
    migrated = versions.read_text().replace(CORE, ONE_MORE)
    assert ONE_MORE in migrated
    versions.write_text(migrated)
    return this, other / "src"


def lasting_port() -> int:
    """A free port that no connection takes while its gateway is replaced: those get higher ones."""
    for port in random.sample(range(20000, 30000), 100):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


class Machine:
    """Has one gateway, which can be replaced by one of another version at the same address."""

    def __init__(self, home: Home, running: ExitStack) -> None:
        self._home = home
        self._running = running
        self._gateway: GatewayProcess | None = None

    def run(self, source: Path) -> GatewayProcess:
        """Stop what runs here, as a service manager does, and start the version in `source`."""
        if self._gateway is not None:
            self._gateway.signal(signal.SIGTERM)
            assert self._gateway.wait() == 0
        self._gateway = self._running.enter_context(self._home.serve(PYTHONPATH=str(source)))
        return self._gateway


def check_changes_reach_all(trio: Trio, number: int) -> None:
    """What is changed at this gateway and at its neighbour is in force at all, whatever their versions."""
    name = f"key-{secrets.token_hex(4)}"
    key = trio.change(number, "POST", "/api/keys", {"name": name})["key"]
    assert trio.statuses("words", key) == [200] * 3
    trio.change(number % 3 + 1, "DELETE", f"/api/keys/{name}")
    trio.check_refused("words", key)
    assert trio.check_concurrent_edits(["edited"], 2)


@pytest.mark.timeout(3600)
def test_rolling_upgrade_and_the_way_back_fail_no_call(
    tmp_path: Path, database_url: str, versions: tuple[Path, Path]
) -> None:
    older, newer = versions
    trio = Trio(database_url, tmp_path)
    machines, urls, revisions = [], [], set()
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        server = stack.enter_context(lookalike("tei", name="intfloat/e5-small-v2"))
        for number in (1, 2, 3):
            home, port = trio.home(f"gate-{number}"), lasting_port()
            home.patience = PATIENCE
            home.env |= {
                "HUBGATE_PORT": str(port),
                "HUBGATE_DRAIN_DELAY": "2",
            }
            machines.append(Machine(home, stack))
            urls.append(f"http://127.0.0.1:{port}")
        trio.gateways = gateways = list(threads.map(lambda machine: machine.run(older), machines))
        for name in ("words", "edited"):
            trio.register(name)
        limit = {"requests_per_minute": PER_MINUTE}
        trio.register("e5", source="dedicated", url=server.url, cache=False, rate_limit=limit)
        server.requests.clear()
        url = stack.enter_context(nginx_before(urls, tmp_path))
        began = time.monotonic()
        with (
            SteadyLoad([url], key=trio.admin, model="e5", callers=8, pause=0.1) as limited,
            SteadyLoad([url], key=trio.admin, model="words", callers=4, keep_alive=False, pause=0.1) as brief,
        ):
            for source in (newer, older):
                for index, machine in enumerate(machines):
                    gateways[index] = machine.run(source)
                    check_changes_reach_all(trio, index + 1)
                    revisions |= {gate["revision"] for gate in trio.gates() if gate["state"] == "serving"}
                    for load in (limited, brief):
                        load.wait_for(5)
            seconds = time.monotonic() - began
        assert limited.failures + brief.failures == []
        assert server.most_in(60.0) <= PER_MINUTE
    assert FROM or len(revisions) == 2, "both versions have served"
    print(
        f"{sum(limited.answered)} calls under a rate limit and {sum(brief.answered)} others, none failed; 6 replacements "
        f"in {seconds:.0f} s; {trio.changes} changes, {trio.late} not followed at once; {server.most_in(60.0)} requests "
        f"in the fullest minute, of {PER_MINUTE}; tables {sorted(revisions)}",
        flush=True,
    )
