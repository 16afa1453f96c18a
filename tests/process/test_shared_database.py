"""`hubgate serve` on PostgreSQL, alone and with others: first start, restart, outage, concurrent changes."""

from __future__ import annotations

import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from gateway_process import Home
from postgres.server import PostgresServer
from running_gateway import RunningGateway, eventually
from servers.wire import Wire

from hubgate.domain.errors import StoreFailed
from hubgate.domain.records import DAY, UsageQuery
from hubgate.features.usage.store import SqlUsage
from hubgate.features.usage.usage import Usage
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from gateway_process import GatewayProcess

    from hubgate.settings import Settings

EDITED = ("requests_per_minute", "burst", "tokens_per_minute")


def shared_home(folder: Path, url: str, admin_key: str = "", secret_key: str = "") -> Home:
    """A home on another machine, as far as hubgate can see."""
    folder.mkdir(exist_ok=True)
    home = Home(folder, admin_key)
    home.env |= {
        "HUBGATE_DATABASE_URL": url,
        "HUBGATE_SECRET_KEY": secret_key or secrets.token_urlsafe(32),
    }
    return home


def requests_of(gateway: GatewayProcess, key: str) -> int:
    rows = gateway.request("GET", "/api/usage", key=key).json()["rows"]
    total: int = sum(row["requests"] for row in rows)
    return total


def test_newcomer_serves_all_faces_from_postgresql_and_restarts(tmp_path: Path, database_url: str) -> None:
    home = shared_home(tmp_path / "one", database_url)
    with home.serve() as gateway:
        admin = gateway.wait_for(r"hg_[0-9a-f]{8}_\S+")[0]
        assert "password" not in gateway.output
        assert gateway.request("GET", "/v1/models", key=admin).json()["data"] == [], "no local model is added"
        added = home.run("add", "words", "--fake", "--dimensions", "8")
        assert added.status == 0, added.err
        key = home.run("key", "create", "app").out.strip()
        assert gateway.embed("words", "a text", key=key).status == 200
        elastic = gateway.request("POST", "/_inference/text_embedding/words", {"input": ["a text"]}, key=key)
        assert len(elastic.json()["text_embedding"][0]["embedding"]) == 8
        tei = gateway.request("POST", "/hf/words/embed", {"inputs": "a text"}, key=key)
        assert len(tei.json()[0]) == 8
        assert requests_of(gateway, admin) == 3
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    assert not (tmp_path / "one" / "data" / "hubgate.db").exists()
    elsewhere = shared_home(tmp_path / "two", database_url, secret_key=home.env["HUBGATE_SECRET_KEY"])
    assert "words" in elsewhere.run("list").out, "a command works without a gateway"
    with elsewhere.serve(HUBGATE_MIGRATE="never") as gateway:
        assert "hg_" not in gateway.output
        assert gateway.embed("words", "a text", key=key).status == 200
        assert requests_of(gateway, admin) == 4


def test_start_without_what_postgresql_needs_fails_with_the_remedy(tmp_path: Path, database_url: str) -> None:
    home = shared_home(tmp_path / "one", database_url)
    refused = home.run("serve", HUBGATE_SECRET_KEY="")
    assert (refused.status, refused.out) == (1, "")
    assert "HUBGATE_SECRET_KEY must be set with HUBGATE_DATABASE_URL" in refused.err
    assert "Run `hubgate migrate`." in home.run("serve", HUBGATE_MIGRATE="never").err


def test_killed_database_stops_changes_but_no_calls_and_loses_no_count(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    admin = secrets.token_urlsafe(24)
    home = shared_home(tmp_path / "one", own_postgres.url, admin)
    assert home.run("add", "words", "--fake").status == 0
    with home.serve() as gateway:
        assert gateway.embed("words", "before", key=admin).status == 200
        assert requests_of(gateway, admin) == 1
        own_postgres.kill()
        for number in range(20):
            assert gateway.embed("words", f"text {number}", key=admin).status == 200
        refused = gateway.request("POST", "/api/keys", {"name": "app"}, key=admin)
        assert (refused.status, refused.json()["error"]["cause"]) == (503, "store_failed")
        assert "cannot be reached" in refused.json()["error"]["message"]
        assert gateway.request("GET", "/readyz", key=admin).status == 200
        gateway.wait_for("could not store usage, retrying")
        own_postgres.start()
        eventually(lambda: gateway.request("POST", "/api/keys", {"name": "app"}, key=admin).status == 201)
        assert requests_of(gateway, admin) == 21
        assert not gateway.traceback, gateway.traceback


class CommitCutter(Wire):
    """A wire that breaks once, after a commit: the client does not learn that it succeeded."""

    armed = committed = False

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.committed:  # the server's reply
                await self._cut()
                await self._mend()
                self.armed = self.committed = False
                return
            self.committed = self.armed and b"COMMIT" in data
            writer.write(data)
            await writer.drain()


async def test_usage_is_counted_once_when_the_connection_breaks_at_the_commit(
    settings: Settings, own_postgres: PostgresServer
) -> None:
    with CommitCutter(urlsplit(own_postgres.url).port or 0) as wire:
        url = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres"
        shared = replace(settings, database_url=url, secret_keys=(secrets.token_urlsafe(32),))
        store = await SqlStore.open(shared)
        usage = Usage(SqlUsage(store.database), dict, lambda: float(DAY))

        def call() -> None:
            numbers = {"texts": 1, "prompt_tokens": 1, "completion_tokens": 0}
            usage.count("e5", "key", "ok", bulk=False, seconds=1.0, waited=0.0, **numbers)

        call()
        wire.armed = True
        with pytest.raises(StoreFailed, match="cannot be reached"):
            await usage.flush()
        eventually(lambda: not wire.armed)
        call()
        (row,) = await usage.report(UsageQuery(start=0, end=2 * DAY))
        assert row.tally.requests == 2
        await store.close()


def test_three_gateways_started_at_once_share_an_empty_database(tmp_path: Path, database_url: str) -> None:
    key = secrets.token_urlsafe(32)
    homes = [shared_home(tmp_path / str(number), database_url, secret_key=key) for number in range(3)]
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        gateways = [home.serve() for home in homes]
        for gateway in gateways:
            stack.push(gateway)
        list(threads.map(lambda gateway: gateway.__enter__(), gateways))

        def admin_keys() -> list[str]:
            return [word for each in gateways for word in each.output.split() if word.startswith("hg_")]

        eventually(lambda: bool(admin_keys()))  # it is printed after the URL
        for gateway in gateways:
            (admin,) = admin_keys()
            keys = gateway.request("GET", "/api/keys", key=admin).json()["keys"]
            assert [each["name"] for each in keys] == ["admin"]


def test_concurrent_edits_at_three_gateways_all_survive(settings: Settings, migrated_url: str) -> None:
    shared = replace(
        settings,
        database_url=migrated_url,
        secret_keys=(secrets.token_urlsafe(32),),
        admin_key="an-admin-key-of-all-three",
    )
    names = [f"e{number}" for number in range(10)]
    with ExitStack() as stack:
        gateways = []
        for number in range(3):
            own = replace(shared, home=settings.home.with_name(f"home{number}"))
            gateways.append(stack.enter_context(RunningGateway(own)))
            if not number:
                for name in names:
                    gateways[0].add(name)

        def edit(field: str) -> dict[tuple[str, str], int]:
            """Set a field of every endpoint three times at one gateway; returns what was answered with 200."""
            made = {}
            gateway = gateways[EDITED.index(field)]
            for value, name in product(range(11, 14), names):
                reply = gateway.request("PATCH", f"/api/endpoints/{name}", {"rate_limit": {field: value}})
                assert reply.status in {200, 409}, reply.body
                if reply.status == 200:
                    made[field, name] = value
            return made

        with ThreadPoolExecutor(3) as threads:
            made = {key: value for each in threads.map(edit, EDITED) for key, value in each.items()}
        with RunningGateway(replace(shared, home=settings.home.with_name("later"))) as later:
            found = later.request("GET", "/api/endpoints").json()["endpoints"]
            changes = later.request("GET", "/api/audit?limit=1000").json()["changes"]
        assert made == {
            (field, each["name"]): each["rate_limit"][field] for field in EDITED for each in found
        }
        assert len([change for change in changes if change["verb"] == "endpoint.change"]) > 80
