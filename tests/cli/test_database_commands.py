"""`hubgate migrate` creates the tables; `hubgate move` copies a SQLite home into PostgreSQL with its tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from running_gateway import RunningGateway

from hubgate.store.schema.versions import schemas

if TYPE_CHECKING:
    from commands import Command

    from hubgate.settings import Settings

TOKEN = "hf_" + "t" * 20


def key_in(settings: Settings) -> str:
    return settings.secret_key_file.read_text().splitlines()[-1]


def calls(gateway: RunningGateway) -> int:
    rows = gateway.request("GET", "/api/usage?by=endpoint&endpoint=words").json()["rows"]
    total: int = sum(row["requests"] for row in rows)
    return total


def test_moved_home_keeps_tokens_keys_usage_and_audit(
    settings: Settings, hubgate: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add("words", dimensions=8, rate_limit={"requests_per_minute": 600})
        app = gateway.create_key("app", endpoints=["words"])
        gateway.request("POST", "/api/connections", {"name": "mine", "token": TOKEN})
        body = {"model": "words", "input": "a text"}
        assert gateway.request("POST", "/v1/embeddings", body, key=app).status == 200
        refused = hubgate("move", "--to", database_url)
        assert (refused.status, "Another gateway runs" in refused.err) == (1, True)
        audit = gateway.request("GET", "/api/audit").json()
        configuration = gateway.request("GET", "/api/config").body
        admin, before = gateway.admin_key, calls(gateway)
    before_move = settings.database.read_bytes()
    moved = hubgate("move", "--to", database_url)
    assert moved.status == 0, moved.err
    assert "endpoints 1, keys 2, connections 1" in moved.out
    assert str(settings.secret_key_file) in moved.out
    assert settings.database.read_bytes() == before_move
    monkeypatch.setenv("HUBGATE_DATABASE_URL", database_url)
    again = hubgate("move")
    assert (again.status, "was moved to that database before" in again.out) == (0, True)
    shared = replace(
        settings,
        home=settings.home.with_name("elsewhere"),
        database_url=database_url,
        secret_keys=(key_in(settings),),
    )
    with RunningGateway(shared) as gateway:
        gateway.admin_key = admin
        assert gateway.request("GET", "/api/audit").json() == audit
        assert gateway.request("GET", "/api/config").body == configuration
        assert gateway.service.connections.find("mine").token is not None
        assert gateway.request("POST", "/v1/embeddings", body, key=app).status == 200
        assert calls(gateway) == before + 1
        gateway.add("more")  # the ids of the audit log go on after the moved ones
        newest = gateway.request("GET", "/api/audit").json()["changes"][0]
        assert (newest["verb"], newest["subject"]) == ("endpoint.add", "more")
    with psycopg.connect(database_url) as database:
        rows = database.execute("SELECT token_box FROM connections").fetchall()
    assert TOKEN.encode() not in rows[0][0]


def test_move_refuses_a_database_with_other_data(
    settings: Settings, hubgate: Command, migrated_url: str
) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add("words")
    with psycopg.connect(migrated_url) as database:
        database.execute("INSERT INTO notes VALUES ('mine', '')")
    refused = hubgate("move", "--to", migrated_url)
    assert (refused.status, "is not empty: there are rows in notes" in refused.err) == (1, True)
    with psycopg.connect(migrated_url) as database:
        assert database.execute("SELECT count(*) FROM endpoints").fetchone() == (0,)


def test_move_names_tokens_that_cannot_be_decrypted(
    settings: Settings, hubgate: Command, migrated_url: str
) -> None:
    with RunningGateway(settings) as gateway:
        gateway.request("POST", "/api/connections", {"name": "mine", "token": TOKEN})
    settings.secret_key_file.unlink()
    assert "cannot be decrypted, here or there: connection mine." in hubgate("move", "--to", migrated_url).out


def test_move_without_a_home_or_a_target_says_so(settings: Settings, hubgate: Command) -> None:
    assert "There is no database to move to" in hubgate("move").err
    assert "--to must be a URL that starts with postgresql://" in hubgate("move", "--to", "mysql://h").err
    assert "There is no gateway at" in hubgate("move", "--to", "postgresql://h/d").err
    assert not settings.home.exists()


def test_migrate_brings_either_database_up_to_date(
    settings: Settings, hubgate: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no gateway at" in hubgate("migrate").err
    with RunningGateway(settings):
        pass
    on_sqlite = hubgate("migrate")
    assert (
        on_sqlite.out
        == "The tables are up to date: " + ", ".join(f"{one.part} {one.version}" for one in schemas()) + ".\n"
    )
    monkeypatch.setenv("HUBGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("HUBGATE_SECRET_KEY", key_in(settings))
    assert "The database has no tables. Run `hubgate migrate`." in hubgate("list").err
    assert hubgate("migrate").out == hubgate("migrate").out == on_sqlite.out
    assert hubgate("list").status == 0
