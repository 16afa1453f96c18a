"""Recorded usage and audit entries survive a kill, and the gateway keeps serving while its database is locked."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway_process import GatewayProcess, Home


def requests_of(gateway: GatewayProcess, key: str) -> int:
    """Of endpoint `words`, as the gateway tells them: what it tells is written down."""
    rows: list[dict[str, Any]] = gateway.request("GET", "/api/usage?by=endpoint", key=key).json()["rows"]
    return sum(row["requests"] for row in rows if row["endpoint"] == "words")


def test_killed_gateway_keeps_flushed_usage(home: Home) -> None:
    with home.serve() as gateway:
        for _ in range(3):
            assert gateway.embed("words", "a text", key=home.admin_key).status == 200
        assert requests_of(gateway, home.admin_key) == 3
        gateway.signal(signal.SIGKILL)
        gateway.wait()
    with home.serve() as gateway:
        assert requests_of(gateway, home.admin_key) == 3
        changes = gateway.request("GET", "/api/audit", key=home.admin_key).json()["changes"]
        assert [(change["who"], change["verb"], change["subject"]) for change in changes] == [
            ("cli", "endpoint.add", "words")
        ]


def test_stopped_gateway_records_the_last_calls(home: Home) -> None:
    with home.serve() as gateway:
        gateway.embed("words", "a text", key=home.admin_key)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    with home.serve() as gateway:
        assert requests_of(gateway, home.admin_key) == 1


def test_failed_final_write_does_not_prevent_the_others(home: Home) -> None:
    folder = Path(home.env["HUBGATE_HOME"])
    with home.serve() as gateway:
        gateway.embed("words", "a text", key=home.admin_key)
        with closing(sqlite3.connect(folder / "hubgate.db")) as database:
            database.execute("DROP TABLE keys")  # when they were used cannot be written down any more
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 1
    with closing(sqlite3.connect(folder / "hubgate.db")) as database:
        assert database.execute("SELECT sum(requests) FROM usage WHERE key = 'admin'").fetchone() == (1,)
    (vectors,) = (folder / "vectors").glob("*.log")
    assert vectors.stat().st_size > 16  # more than its head


def test_locked_database_delays_no_call_and_loses_none(home: Home) -> None:
    database = Path(home.env["HUBGATE_HOME"]) / "hubgate.db"
    with home.serve() as gateway:
        with closing(sqlite3.connect(os.fspath(database))) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(20):
                assert gateway.embed("words", f"text {number}", key=home.admin_key).status == 200
            gateway.wait_for("could not store usage, retrying")
            assert gateway.embed("words", "and one more", key=home.admin_key).status == 200
            other.rollback()
        assert requests_of(gateway, home.admin_key) == 21
