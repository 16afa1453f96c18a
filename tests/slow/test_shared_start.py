"""Three gateways that start at once on an empty PostgreSQL database, twenty times: one admin key, and all serve."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from gateway_process import GatewayProcess, Home
from running_gateway import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from postgres.databases import Databases

ROUNDS = 20


def check_one_admin_key(gateways: list[GatewayProcess]) -> None:
    def printed() -> list[str]:
        return [word for each in gateways for word in each.output.split() if word.startswith("hg_")]

    eventually(lambda: bool(printed()))  # it is printed after the URL
    for gateway in gateways:
        (key,) = printed()
        keys = gateway.request("GET", "/api/keys", key=key).json()["keys"]
        assert [each["name"] for each in keys] == ["admin"]


@pytest.mark.timeout(1800)
def test_three_gateways_start_at_once_on_an_empty_database(tmp_path: Path, databases: Databases) -> None:
    for round_ in range(ROUNDS):
        with databases.empty() as url, ExitStack() as stack, ThreadPoolExecutor(3) as threads:
            secret_key = secrets.token_urlsafe(32)
            gateways: list[GatewayProcess] = []
            for number in range(3):
                folder = tmp_path / f"{round_}-{number}"
                folder.mkdir()
                gateway = Home(folder).serve(HUBGATE_DATABASE_URL=url, HUBGATE_SECRET_KEY=secret_key)
                gateways.append(stack.push(gateway))
            list(threads.map(GatewayProcess.__enter__, gateways))
            check_one_admin_key(gateways)
        print(f"round {round_ + 1}: three gateways, one admin key", flush=True)
