"""On PostgreSQL: gateways share one database, and its errors are in plain words, with the right advice and no secret."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import threading
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres.server import free_port
from scripted_gateway import authenticate
from sqlalchemy import Connection, func, insert, inspect, select, text, update

from hubgate.domain.errors import DiskFull, StoreFailed
from hubgate.domain.records import DAY, HOUR, Slot, Tally, UsageQuery
from hubgate.features.usage.store import KEPT_HOURS, SqlUsage
from hubgate.service.keys.access import Access
from hubgate.settings import InvalidSetting, Settings
from hubgate.store.database import Database
from hubgate.store.postgres import BoundedConnection
from hubgate.store.schema.versions import CORE, schemas
from hubgate.store.store import SqlStore
from hubgate.store.tables import audit, notes, schema_versions
from hubgate.store.vault import Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET_KEY = secrets.token_urlsafe(32)

DECLARED: Any = [schema.metadata for schema in schemas()]
"""`compare_metadata` also takes several."""


@asynccontextmanager
async def opened(url: str, patience: float = 5.0) -> AsyncIterator[Database]:
    database = await Database.open(url, patience=patience)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def kind() -> str:
    return "postgresql"


def raising(state: str) -> Callable[[Connection], object]:
    """Work that fails with this SQLSTATE, and has a detail that must not be shown."""
    block = (
        f"DO $$ BEGIN RAISE EXCEPTION 'a message' USING ERRCODE = '{state}', DETAIL = 'row hf_secret'; END $$"
    )
    return lambda connection: connection.exec_driver_sql(block)


def put(name: str) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(insert(notes).values(name=name, value=""))


def names(connection: Connection) -> list[str]:
    return list(connection.execute(select(notes.c.name).order_by(notes.c.name)).scalars())


async def test_a_new_database_has_exactly_the_declared_tables(database_url: str) -> None:
    def compare(connection: Connection) -> None:
        # Those of shared rate limits are used by functions only.
        options = {"include_name": lambda name, kind, _: not (name or "").startswith("rate_limit")}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, DECLARED) == []
        columns = {column["name"]: column["type"] for column in inspect(connection).get_columns("audit")}
        assert repr(columns["id"]) == "BIGINT()"
        connection.execute(text("ALTER SEQUENCE audit_id_seq RESTART WITH 3000000000"))
        row = {"at": 1.0, "who": "w", "verb": "v", "subject": "s", "changes": "{}"}
        assert connection.execute(insert(audit).values(row)).inserted_primary_key == (3_000_000_000,)

    async with opened(database_url) as database:
        await database.do(compare)


async def test_opens_of_one_process_create_the_tables_once(database_url: str) -> None:
    for database in await asyncio.gather(*(Database.open(database_url) for _ in range(3))):
        await database.close()


async def test_gateways_that_start_together_create_one_admin_key(settings: Settings) -> None:
    stores = [await SqlStore.open(settings) for _ in range(3)]
    loaded = await asyncio.gather(*(Access.load(store, None) for store in stores))
    (created,) = [key for _, key in loaded if key]
    for access, _ in loaded:
        assert [key.name for key in access.list()] == ["admin"]
        assert authenticate(access, f"Bearer {created}").admin
    for store in stores:
        await store.close()


async def test_usage_of_three_writers_is_exact_while_old_hours_are_merged(settings: Settings) -> None:
    stores = [await SqlStore.open(settings) for _ in range(3)]
    now = 20_000 * DAY
    old = now - KEPT_HOURS - DAY
    slots = [Slot(old + hour * HOUR, endpoint, "key") for hour in range(4) for endpoint in "abcdef"]

    async def write(store: SqlStore, number: int) -> None:
        for round_ in range(8):
            shuffled = slots[number * 7 :] + slots[: number * 7]  # each writer in another order
            await SqlUsage(store.database).add(
                {slot: Tally(requests=1, causes={"waking": 1}) for slot in shuffled}
            )
            if round_ % 2:
                await SqlUsage(store.database).roll(now)

    await asyncio.gather(*(write(store, number) for number, store in enumerate(stores)))
    await asyncio.gather(*(SqlUsage(store.database).roll(now) for store in stores))
    query = UsageQuery(start=0, end=now, by=("endpoint",))
    rows = await SqlUsage(stores[0].database).read(query, 100)
    assert [(*row.group, row.tally.requests) for row in rows] == [(name, 3 * 8 * 4) for name in "abcdef"]
    assert all(type(row.tally.requests) is int for row in rows)
    causes = await SqlUsage(stores[0].database).read(replace(query, by=("cause",)), 100)
    assert [(*row.group, row.tally.requests) for row in causes] == [("waking", 3 * 8 * 4 * 6)]
    for store in stores:
        await store.close()


async def test_row_limit_merges_early_and_exactly(settings: Settings) -> None:
    store = await SqlStore.open(settings)
    small = SqlUsage(store.database, max_rows=2)
    for hours in range(4):
        await small.add({Slot(DAY + hours * HOUR, "e5", "one"): Tally(requests=2**40)})
    await small.roll(2 * DAY + HOUR)
    ((_, tally),) = await SqlUsage(store.database).read(UsageQuery(start=0, end=2**40), 10)
    assert tally.requests == 4 * 2**40
    await store.close()


async def test_deadlocked_transaction_is_run_again(migrated_url: str) -> None:
    both_have_one = threading.Barrier(2)

    def touch(first: str, second: str) -> Callable[[Connection], None]:
        tries: list[int] = []

        def work(connection: Connection) -> None:
            tries.append(1)
            for name in (first, second):
                connection.execute(
                    update(notes).where(notes.c.name == name).values(value=notes.c.value + "x")
                )
                if name == first and len(tries) == 1:
                    both_have_one.wait(240)

        return work

    async with opened(migrated_url, patience=30) as one, opened(migrated_url, patience=30) as other:
        await one.do(put("a"))
        await one.do(put("b"))
        await asyncio.gather(one.do(touch("a", "b")), other.do(touch("b", "a")))
        stored = await one.do(lambda c: c.execute(select(notes.c.value)).scalars().all())
        assert list(stored) == ["xx", "xx"]


async def test_a_transaction_that_keeps_colliding_fails_and_is_retryable(migrated_url: str) -> None:
    tries: list[int] = []

    def collide(connection: Connection) -> None:
        put("a")(connection)
        tries.append(1)
        if len(tries) < 3 or len(tries) > 3:
            raising("40001")(connection)

    async with opened(migrated_url) as database:
        await database.do(collide)
        assert await database.do(names) == ["a"]
        with pytest.raises(StoreFailed, match="too many colliding changes") as failed:
            await database.do(raising("40001"))
        assert failed.value.retryable


@pytest.mark.parametrize(
    ("state", "words", "retryable"),
    [
        ("53100", "its disk is full", False),
        ("53200", "is out of resources", True),
        ("57P01", "is starting or stopping", True),
        ("57014", "did not respond in time", True),
        ("25006", "is read-only", False),
        ("42501", "refuses this to hubgate's user", False),
        ("XX001", "is damaged", False),
        ("P0001", r"failed \(a message\)", False),
    ],
)
async def test_errors_of_the_server_are_in_plain_words(
    migrated_url: str, state: str, words: str, retryable: bool
) -> None:
    async with opened(migrated_url) as database:
        with pytest.raises(StoreFailed, match=words) as failed:
            await database.do(raising(state))
        assert failed.value.retryable is retryable
        assert failed.value.remedy
        assert "hf_secret" not in str(failed.value)
        assert not isinstance(failed.value, DiskFull), "the vector cache is on another disk"
        await database.do(put("it still works"))


async def test_lock_of_another_program_is_waited_for_and_then_reported(migrated_url: str) -> None:
    async with opened(migrated_url, patience=0.2) as database:
        with psycopg.connect(migrated_url) as other:
            other.execute("LOCK TABLE notes")
            with pytest.raises(StoreFailed, match="is locked by another program") as failed:
                await database.do(put("a"))
        assert failed.value.retryable
        await database.do(put("a"))


async def test_read_only_server_is_reported(migrated_url: str) -> None:
    def write(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        put("a")(connection)

    async with opened(migrated_url) as database:
        with pytest.raises(StoreFailed, match="is read-only") as failed:
            await database.do(write)
        assert "target_session_attrs" in failed.value.remedy


async def test_lost_connection_fails_one_transaction_at_most(migrated_url: str) -> None:
    def end_all() -> None:
        with psycopg.connect(migrated_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def write_and_lose(connection: Connection) -> None:
        put("lost")(connection)
        end_all()
        put("later")(connection)

    async with opened(migrated_url) as database:
        end_all()  # between two transactions it is not noticed
        await database.do(put("a"))
        with pytest.raises(StoreFailed) as failed:
            await database.do(write_and_lose)
        assert failed.value.retryable
        assert await database.do(names) == ["a"]


def test_server_that_does_not_answer_breaks_the_connection(migrated_url: str) -> None:
    with BoundedConnection.connect(migrated_url) as connection:
        connection.answer_seconds = 0.2
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed


async def test_unreachable_server_is_retryable() -> None:
    url = f"postgresql://app:hf_secret@127.0.0.1:{free_port()}/gate"
    with pytest.raises(StoreFailed, match=r"gate at 127.0.0.1:\d+ cannot be reached") as failed:
        await Database.open(url)
    assert failed.value.retryable
    assert "hf_secret" not in "".join(traceback.format_exception(failed.value))


async def test_unknown_host_is_reported() -> None:
    with pytest.raises(StoreFailed, match="its host name is not found") as failed:
        await Database.open("postgresql://app@no-such-host.invalid/gate")
    assert failed.value.retryable


async def test_missing_database_is_reported(migrated_url: str) -> None:
    with pytest.raises(StoreFailed, match="does not exist") as failed:
        await Database.open(migrated_url.replace("hubgate_test_", "no_"))
    assert "createdb" in failed.value.remedy
    assert not failed.value.retryable


@pytest.mark.skipif("HUBGATE_TEST_POSTGRES" in os.environ, reason="its pg_hba.conf is unknown")
@pytest.mark.parametrize("user", ["locked:hf_secret@", "locked@"])
async def test_wrong_password_is_reported_without_it(migrated_url: str, user: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as admin:
        found = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = 'locked'").fetchone()
        if not found:
            admin.execute("CREATE ROLE locked LOGIN PASSWORD 'another'")
    with pytest.raises(StoreFailed, match="rejects the user or the password") as failed:
        await Database.open(migrated_url.replace("postgres@", user, 1))
    assert not failed.value.retryable
    assert "hf_secret" not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    "url", ["postgresql://a:pass%word@host/gate", "postgresql://host/gate?no_such=hf_secret"]
)
async def test_invalid_url_is_reported_without_it(url: str) -> None:
    with pytest.raises(InvalidSetting, match="must look like postgresql://") as failed:
        await Database.open(url)
    assert failed.value.__suppress_context__
    assert "pass%" not in str(failed.value)
    assert "hf_secret" not in str(failed.value)


def test_missing_driver_is_reported_with_the_command_to_install_it() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from hubgate.store.database import open_backend\n"
        "from hubgate.domain.errors import StoreFailed\n"
        "try:\n    open_backend('postgresql://host/gate')\n"
        "except StoreFailed as error:\n    print(error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "needs psycopg, which is not installed" in printed
    assert 'pip install "hubgate[scale]"' in printed


async def test_newer_version_is_accepted_only_if_it_says_so(migrated_url: str) -> None:
    async with opened(migrated_url) as database:
        await database.do(lambda c: c.execute(update(schema_versions).values(version=CORE.version + 1)))
    async with opened(migrated_url) as database:
        await database.do(lambda c: c.execute(update(schema_versions).values(oldest_able=CORE.version + 1)))
    with pytest.raises(StoreFailed, match=f"newer version of hubgate .version {CORE.version + 1}"):
        await Database.open(migrated_url)


async def test_vault_of_a_shared_database_is_given_its_key(settings: Settings) -> None:
    without = replace(settings, secret_keys=())
    with pytest.raises(
        InvalidSetting, match="HUBGATE_SECRET_KEY must be set with HUBGATE_DATABASE_URL"
    ) as refused:
        await SqlStore.open(without)
    assert "secrets.token_urlsafe(32)" in str(refused.value)
    assert not settings.secret_key_file.exists()
    settings.secret_key_file.parent.mkdir()
    settings.secret_key_file.write_text(SECRET_KEY)
    settings.secret_key_file.chmod(0o400)
    assert Vault.from_settings(without).newest == Vault([SECRET_KEY]).newest
    with pytest.raises(StoreFailed, match="Gateways that share a database need the new key"):
        Vault.from_settings(without).rotate()
    assert settings.secret_key_file.read_text() == SECRET_KEY


def test_url_is_a_secret() -> None:
    settings = Settings.from_env({"HOME": "/h", "HUBGATE_DATABASE_URL": "postgresql://a:hf_secret@h/d"})
    assert settings.database_url == "postgresql://a:hf_secret@h/d"
    assert "hf_secret" not in repr(settings)
    with pytest.raises(
        InvalidSetting, match="HUBGATE_DATABASE_URL must be a URL that starts with"
    ) as refused:
        Settings.from_env({"HOME": "/h", "HUBGATE_DATABASE_URL": "mysql://a:hf_secret@h/d"})
    assert "hf_secret" not in str(refused.value)


async def test_each_transaction_has_time_limits(migrated_url: str) -> None:
    def limits(connection: Connection) -> list[str]:
        shown = ("statement_timeout", "lock_timeout", "application_name")
        return [connection.scalar(select(func.current_setting(name))) or "" for name in shown]

    async with opened(migrated_url) as database:
        assert await database.do(limits) == ["30s", "5s", "hubgate"]
    async with opened(
        f"{migrated_url}{'&' if '?' in migrated_url else '?'}application_name=mine"
    ) as database:
        assert (await database.do(limits))[2] == "mine"
