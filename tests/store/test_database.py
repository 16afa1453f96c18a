"""The database is created, migrated, shared between processes, and reports errors readably."""
# ruff: noqa: ASYNC240 - no loop waits for these small files

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, create_engine, insert, text

from hubgate.domain.chunking import DEFAULT_CHUNKING, ChunkingSettings
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import StoreFailed
from hubgate.domain.records import DAY, HOUR, Key, UsageQuery
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.store.database import Database
from hubgate.store.migrations import upgrade
from hubgate.store.store import SqlStore
from hubgate.store.tables import REVISION, metadata, notes

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_REVISION = Path(__file__).with_name("first_revision.sql")
OPEN = """
import asyncio, sys
from pathlib import Path
from hubgate.store.database import Database
async def main():
    database = await Database.open(Path(sys.argv[1]))
    await database.close()
asyncio.run(main())
print("alembic" in sys.modules)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "hubgate.db"


async def done(file: Path, work: Callable[[Connection], object]) -> None:
    """Do one piece of work on the database, as the gateway would."""
    database = await Database.open(file)
    try:
        await database.do(work)
    finally:
        await database.close()


async def test_migrations_create_what_a_new_file_has(tmp_path: Path, file: Path) -> None:
    def content(connection: Connection) -> tuple[set[str], dict[str, list[Any]]]:
        """The tables' definitions and their rows."""
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL")).all()
        definitions = {" ".join(row.sql.split()).replace("( ", "(").replace(" )", ")") for row in rows}
        return definitions, {
            row.name: list(connection.execute(text(f"SELECT * FROM {row.name}")))  # noqa: S608 - names of tables
            for row in rows
        }

    def compare(new: Connection) -> None:
        context = MigrationContext.configure(new)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == REVISION
        engine = create_engine(f"sqlite:///{tmp_path}/migrated.db")
        with engine.begin() as migrated:
            upgrade(migrated, None)
            assert content(new) == content(migrated)
        engine.dispose()

    await done(file, compare)


async def test_upgrades_database_of_the_first_revision_with_its_data(
    settings: Settings,
) -> None:
    settings.home.mkdir()
    with closing(sqlite3.connect(settings.database)) as old:
        old.executescript(FIRST_REVISION.read_text())
    settings = Settings(
        home=settings.home,
        secret_key_file=settings.secret_key_file,
        secret_keys=("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",),
    )
    store = await SqlStore.open(settings)
    endpoint = Endpoint(
        name="e5", task=Task.TEXT_EMBEDDING, source=Source.DEDICATED, url="https://example.org/e5"
    )
    assert await store.endpoints() == [Target(endpoint, Secret("hf_sealed-at-the-first-revision"))]
    assert await store.keys() == [
        Key(id="0a1b2c3d", name="dify", digest=bytes(range(32)), created_at=1.5, last_used_at=2.5)
    ]
    assert await store.note("colour") == "blue"
    await store.close()


async def test_migration_counts_cancelled_calls_separately_from_errors(
    settings: Settings,
) -> None:
    settings.home.mkdir()
    with create_engine(f"sqlite:///{settings.database}").begin() as old:
        upgrade(old, None, to="0005")
        usage, causes = (Table(name, MetaData(), autoload_with=old) for name in ("usage", "usage_causes"))
        nothing = {column.name: 0 for column in usage.c}
        for endpoint, errors, why in (("e5", 3, {"client_left": 2, "waking": 1}), ("e6", 1, {"waking": 1})):
            slot = {"span": HOUR, "at": HOUR, "endpoint": endpoint, "key": "k"}
            old.execute(insert(usage), [{**nothing, **slot, "requests": 5, "errors": errors}])
            old.execute(insert(causes), [{**slot, "cause": c, "requests": n} for c, n in why.items()])
    old.engine.dispose()
    store = await SqlStore.open(settings)
    rows = await store.usage.read(UsageQuery(start=0, end=DAY, by=("endpoint",)), 9)
    assert [(*row.group, row.tally.errors, row.tally.cancelled) for row in rows] == [
        ("e5", 1, 2),
        ("e6", 1, 0),
    ]
    reasons = await store.usage.read(UsageQuery(start=0, end=DAY, by=("endpoint", "cause")), 9)
    assert [row.group for row in reasons] == [("e5", "waking"), ("e6", "waking")]
    await store.close()


async def test_migration_clears_default_chunking_of_endpoints(
    settings: Settings,
) -> None:
    settings.home.mkdir()
    settled = ChunkingSettings(strategy="sentence", max_chunk_size=100, sentence_overlap=1)
    with create_engine(f"sqlite:///{settings.database}").begin() as old:
        upgrade(old, None, to="0007")
        for number, chunking in enumerate((DEFAULT_CHUNKING, settled)):
            endpoint = Endpoint(
                name=f"e{number}", task=Task.TEXT_EMBEDDING, source=Source.FAKE, chunking=chunking
            )
            row = {
                "id": str(number),
                "name": endpoint.name,
                "settings": msgspec.json.encode(endpoint).decode(),
            }
            old.execute(insert(metadata.tables["endpoints"]), [row])
    old.engine.dispose()
    store = await SqlStore.open(settings)
    assert [target.endpoint.chunking for target in await store.endpoints()] == [None, settled]
    await store.close()


async def test_rejects_database_of_a_newer_version_unchanged(file: Path) -> None:
    def become_newer(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = 'fffe'"))
        connection.execute(text("UPDATE schema SET revision = 'fffe', oldest_able = 'fffd'"))

    await done(file, become_newer)
    before = file.read_bytes()
    for migrate in (True, False):
        with pytest.raises(StoreFailed, match=r"newer version of hubgate \(revision fffe\)") as refused:
            await Database.open(file, migrate=migrate)
        assert refused.value.remedy == (
            "Upgrade hubgate to that version, or restore a backup from before the database was migrated."
        )
    assert file.read_bytes() == before


async def test_opens_database_of_a_newer_version_that_only_added_to_it(file: Path) -> None:
    await done(file, lambda c: c.execute(text("UPDATE alembic_version SET version_num = 'fffe'")))
    await done(file, lambda c: c.execute(insert(notes).values(name="a", value="b")))
    await done(file, lambda c: c.execute(text("SELECT revision FROM schema")).one() == (REVISION,))


async def test_migrates_only_where_it_may(file: Path) -> None:
    with pytest.raises(StoreFailed, match="has no tables") as refused:
        await Database.open(file, migrate=False)
    assert refused.value.remedy == "Run `hubgate migrate`."
    await done(file, lambda c: c.execute(text("UPDATE alembic_version SET version_num = '0008'")))
    with pytest.raises(StoreFailed, match=f"needs a migration from revision 0008 to {REVISION}"):
        await Database.open(file, migrate=False)


async def test_failed_migration_changes_nothing(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as foreign:
        foreign.execute("CREATE TABLE notes (mine TEXT)")
    with pytest.raises(StoreFailed, match="already exists"):
        await Database.open(file)
    with closing(sqlite3.connect(file)) as foreign:
        assert foreign.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]


def test_imports_alembic_only_when_a_migration_is_needed(file: Path) -> None:
    def start() -> str:
        return subprocess.run(
            [sys.executable, "-c", OPEN, file], check=True, capture_output=True, text=True
        ).stdout

    assert [start(), start()] == ["False\n", "False\n"]
    file.unlink()
    with create_engine(f"sqlite:///{file}").begin() as old:
        upgrade(old, None, to="0019")
    old.engine.dispose()
    assert [start(), start()] == ["True\n", "False\n"]


def test_concurrent_processes_create_one_database(file: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, file], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=240)[1] for process in started] == [b"", b"", b""]
    assert [process.returncode for process in started] == [0, 0, 0]


async def test_waits_for_another_process_that_creates_the_database(file: Path) -> None:
    file.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        asyncio.get_running_loop().call_later(0.05, other.rollback)
        await (await Database.open(file)).close()


async def test_database_files_are_accessible_by_owner_only(file: Path) -> None:
    database = await Database.open(file)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("hubgate.db", "hubgate.db-wal", "hubgate.db-shm", "hubgate.db.exists"), 0o600
    )
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    await database.close()


async def test_sets_sqlite_pragmas_for_concurrent_readers(file: Path) -> None:
    def check(connection: Connection) -> None:
        pragmas = ("journal_mode", "foreign_keys", "busy_timeout")
        values = [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in pragmas]
        assert values == ["wal", 1, 5000]

    await done(file, check)


async def test_failed_work_is_rolled_back(file: Path) -> None:
    def work(connection: Connection) -> None:
        connection.execute(insert(notes).values(name="half", value="stored"))
        raise KeyError("a mistake")

    database = await Database.open(file)
    with pytest.raises(KeyError):
        await database.do(work)
    assert await database.do(lambda c: c.execute(notes.select()).all()) == []
    await database.close()


async def test_locked_database_error_is_retryable(file: Path) -> None:
    database = await Database.open(file, patience=0.01)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreFailed, match="is locked by another program") as failed:
            await database.do(lambda c: c.execute(notes.select()).all())
        assert failed.value.retryable
        with pytest.raises(StoreFailed, match="is locked"):
            await Database.open(file, patience=0.01)
    assert await database.do(lambda c: c.execute(notes.select()).all()) == []
    await database.close()


async def test_reports_read_only_database(file: Path) -> None:
    database = await Database.open(file)
    await database.do(lambda c: c.exec_driver_sql("PRAGMA query_only = ON"))
    with pytest.raises(StoreFailed, match="is read-only") as failed:
        await database.do(lambda c: c.execute(insert(notes).values(name="a", value="b")))
    assert "right to write" in failed.value.remedy
    assert not failed.value.retryable
    await database.close()


async def test_reports_full_disk_and_recovers_when_there_is_space(file: Path) -> None:
    database = await Database.open(file)

    def write(connection: Connection) -> None:
        connection.execute(insert(notes).values(name="big", value="x" * 200_000))

    await database.do(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 20"))
    with pytest.raises(StoreFailed, match="the disk is full") as failed:
        await database.do(write)
    assert "Free some space" in failed.value.remedy
    await database.do(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 2000"))
    await database.do(write)
    await database.close()


async def test_reports_damaged_database(file: Path) -> None:
    await done(file, lambda c: c.execute(insert(notes).values(name="a", value="b")))
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (file.stat().st_size - 4096))
    with pytest.raises(StoreFailed, match="is damaged") as failed:
        await Database.open(file)
    assert "Restore it from a backup" in failed.value.remedy


async def test_rejects_file_that_is_not_a_database_unchanged(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("These are my notes, not a database. " * 100)
    before = file.read_bytes()
    with pytest.raises(StoreFailed, match="is not a SQLite database"):
        await Database.open(file)
    assert file.read_bytes() == before


async def test_reports_folder_in_place_of_the_database(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(StoreFailed, match="cannot be opened"):
        await Database.open(file)


async def test_reports_home_that_cannot_be_created(file: Path) -> None:
    file.parent.write_text("a file where a folder should be")
    with pytest.raises(StoreFailed, match="cannot be created") as failed:
        await Database.open(file)
    assert "HUBGATE_HOME" in failed.value.remedy


async def test_other_database_errors_have_a_readable_message(file: Path) -> None:
    database = await Database.open(file)
    with pytest.raises(StoreFailed, match=r"failed \(no such table: nowhere\)") as failed:
        await database.do(lambda c: c.execute(text("SELECT * FROM nowhere")))
    assert "SELECT" not in str(failed.value)
    with pytest.raises(StoreFailed, match="failed"):
        await database.do(lambda c: c.execute(text("SELECT 1")).scalars("no such column").all())
    await database.close()
