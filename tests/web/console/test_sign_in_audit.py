"""Sign-ins, sign-outs and failures are recorded in the audit log with the address."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from console_client import ConsoleClient
from running_gateway import RunningGateway

from hubgate.service.keys.limits import MAX_WRONG_KEYS

if TYPE_CHECKING:
    from hubgate.settings import Settings


def noted(gateway: RunningGateway) -> list[dict[str, Any]]:
    """Lines about sessions, the oldest first."""
    lines = gateway.request("GET", "/api/audit").json()["changes"]
    return [line for line in reversed(lines) if line["verb"].startswith("session.")]


def told(gateway: RunningGateway) -> list[tuple[str, str, str]]:
    return [(line["verb"], line["who_name"], line["changes"]["address"][1]) for line in noted(gateway)]


def test_signing_in_and_out_is_recorded_with_the_address(gateway: RunningGateway) -> None:
    console = ConsoleClient(gateway)
    console.sign_in()
    console.post("/ui/sign-out")
    console.post("/ui/sign-out")
    assert told(gateway) == [("session.begin", "admin", "127.0.0.1"), ("session.end", "admin", "127.0.0.1")]
    assert gateway.admin_key not in str(noted(gateway))


def test_wrong_keys_are_recorded_without_the_key_up_to_the_limit(
    gateway: RunningGateway,
) -> None:
    mere = gateway.request("POST", "/api/keys", {"name": "app"}).json()["key"]
    console = ConsoleClient(gateway)
    for key in ("hg_wrong", "ä", mere, *("x" * MAX_WRONG_KEYS)):
        console.post("/ui/sign-in", {"key": key})
    assert told(gateway) == [
        ("session.refuse", who, "127.0.0.1")
        for who in ("console", "console", "app", *["console"] * (MAX_WRONG_KEYS - 2))
    ]
    assert "hg_wrong" not in str(noted(gateway))
    assert mere not in str(noted(gateway))


def test_the_recorded_address_comes_from_a_trusted_proxy(settings: Settings) -> None:
    with RunningGateway(replace(settings, trusted_proxies="127.0.0.1")) as gateway:
        ConsoleClient(gateway).post(
            "/ui/sign-in", {"key": gateway.admin_key}, **{"x-forwarded-for": "192.0.2.7"}
        )
        assert told(gateway) == [("session.begin", "admin", "192.0.2.7")]


def test_signing_in_works_if_the_audit_log_cannot_be_written(gateway: RunningGateway) -> None:
    console = ConsoleClient(gateway)
    database = sqlite3.connect(gateway.settings.home / "hubgate.db")
    database.execute("drop table audit")
    database.close()
    assert console.sign_in().status == 303
    assert console.get("/ui/models").status == 200
