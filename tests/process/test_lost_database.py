"""A lost database is detected, and a world-writable home is rejected."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from running_gateway import RunningGateway

from hubgate.domain.errors import StoreFailed

if TYPE_CHECKING:
    from commands import Command

    from hubgate.settings import Settings


@pytest.mark.parametrize("how", ["deleted", "emptied", "another"])
def test_lost_database_is_not_silently_recreated(settings: Settings, how: str, hubgate: Command) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add()
    settings.database.unlink()
    if how == "emptied":
        settings.database.touch()
    elif how == "another":
        with closing(sqlite3.connect(settings.database)) as other:
            other.execute("PRAGMA user_version = 1")
    with (
        pytest.raises(StoreFailed, match="is missing or empty, but this gateway had one"),
        RunningGateway(settings),
    ):
        pass
    refused = hubgate("list")
    assert (refused.status, "Restore it from a backup" in refused.err) == (1, True)
    settings.database.with_name("hubgate.db.exists").unlink()
    settings.database.unlink(missing_ok=True)
    with RunningGateway(settings) as gateway:
        assert gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}


@pytest.mark.parametrize("replaced", [False, True])
def test_changes_are_rejected_while_the_database_is_lost(settings: Settings, *, replaced: bool) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add()
        kept = settings.database.with_name("kept")
        settings.database.rename(kept)
        if replaced:
            settings.database.write_bytes(kept.read_bytes())
        reply = gateway.request("POST", "/api/keys", {"name": "app"})
        assert (reply.status, reply.json()["error"]["cause"]) == (503, "store_failed")
        assert "was deleted or replaced" in reply.json()["error"]["message"]
        embedded = gateway.request("POST", "/v1/embeddings", {"model": "fake", "input": "a"})
        assert embedded.status == 200
        kept.rename(settings.database)
        assert gateway.request("POST", "/api/keys", {"name": "app"}).status == 201


def test_world_writable_home_is_rejected(settings: Settings, hubgate: Command) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o777)
    with pytest.raises(StoreFailed, match="Every user of this machine can write"), RunningGateway(settings):
        pass
    assert "chmod o-w" in hubgate("add", "words", "--fake").err
    settings.home.chmod(0o755)
    assert hubgate("add", "words", "--fake").status == 0


def test_cache_file_cannot_be_probed_without_the_secret_key(settings: Settings) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add()
        gateway.request("POST", "/v1/embeddings", {"model": "fake", "input": "a secret text"})
        admin = gateway.admin_key

    def hits(settings: Settings) -> int:
        with RunningGateway(settings) as gateway:
            gateway.admin_key = admin
            gateway.request("POST", "/v1/embeddings", {"model": "fake", "input": "a secret text"})
            found: int = gateway.request("GET", "/api/cache").json()["disk"]["hits"]
            return found

    assert hits(settings) == 1
    settings.secret_key_file.unlink()
    assert hits(settings) == 0


def test_configuration_with_too_many_entries_is_rejected_at_once(gateway: RunningGateway) -> None:
    many = "\n".join(f"  e{number}: {{source: fake}}" for number in range(20_000))
    reply = gateway.request("POST", "/api/config", {"yaml": f"endpoints:\n{many}"})
    assert reply.status == 400
    assert "has 20000 entries; the maximum is 2000" in reply.json()["error"]["message"]
