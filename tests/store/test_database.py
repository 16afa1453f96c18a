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

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, MetaData, Table, Text, create_engine, insert, text, update

from hubgate.domain.errors import StoreFailed
from hubgate.store.database import Database
from hubgate.store.schema.versions import CORE, Migration, Schema, bring_up_to_date, schemas, stored_versions
from hubgate.store.tables import notes, schema_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

DECLARED: Any = [schema.metadata for schema in schemas()]
"""`compare_metadata` also takes several."""


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


async def test_a_new_file_has_the_declared_tables(file: Path) -> None:
    await done(
        file,
        lambda c: _assert_equal(compare_metadata(MigrationContext.configure(c), DECLARED), []),
    )


def _assert_equal(found: object, expected: object) -> None:
    assert found == expected


async def test_a_database_from_before_the_first_release_is_refused_unchanged(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as old:
        old.executescript(
            "PRAGMA journal_mode = WAL; CREATE TABLE alembic_version (v TEXT);INSERT INTO alembic_version VALUES ('0023')"
        )
    before = file.read_bytes()
    with pytest.raises(StoreFailed, match="from before the first release") as refused:
        await Database.open(file)
    assert "hubgate config export" in (refused.value.remedy or "")
    assert [path.read_bytes() for path in file.parent.glob("hubgate.db*") if path.stat().st_size] == [before]


def become(version: int, *, oldest_able: int) -> Callable[[Connection], object]:
    """Make the tables those of another version."""
    row = {"version": version, "oldest_able": oldest_able}
    return lambda connection: connection.execute(update(schema_versions).values(row))


async def test_rejects_database_of_a_newer_version_unchanged(file: Path) -> None:
    await done(file, become(CORE.version + 2, oldest_able=CORE.version + 1))
    before = file.read_bytes()
    for migrate in (True, False):
        with pytest.raises(
            StoreFailed, match=f"newer version of hubgate .version {CORE.version + 2}"
        ) as refused:
            await Database.open(file, migrate=migrate)
        assert refused.value.remedy == (
            "Upgrade hubgate to that version, or restore a backup from before the database was migrated."
        )
    assert file.read_bytes() == before


async def test_opens_database_of_a_newer_version_that_only_added_to_it(file: Path) -> None:
    await done(file, become(CORE.version + 1, oldest_able=CORE.version))
    await done(file, lambda c: c.execute(insert(notes).values(name="a", value="b")))
    await done(file, lambda c: _assert_equal(stored_versions(c)[CORE.part], CORE.version + 1))


async def test_migrates_only_where_it_may(file: Path) -> None:
    with pytest.raises(StoreFailed, match="has no tables") as refused:
        await Database.open(file, migrate=False)
    assert refused.value.remedy == "Run `hubgate migrate`."
    await done(file, become(CORE.version - 1, oldest_able=1))
    with pytest.raises(StoreFailed, match="needs a migration"):
        await Database.open(file, migrate=False)


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.part)
def test_migrations_are_numbered_without_a_gap(schema: Schema) -> None:
    assert [migration.version for migration in schema.migrations] == list(range(2, schema.version + 1))
    assert 1 <= schema.oldest_able <= schema.version


MEMOS = MetaData()
Table("memos", MEMOS, Column("name", Text, primary_key=True), Column("more", Text))


def memos_at(connection: Connection, *migrations: Migration) -> Mapping[str, int]:
    """Bring the tables of a part up to date; returns the versions in the database."""
    schema = Schema(part="memos", metadata=MEMOS, migrations=migrations)
    bring_up_to_date(connection, schema, stored_versions(connection).get("memos"))
    return stored_versions(connection)


async def test_a_new_part_gets_its_tables_and_an_old_one_its_migrations(file: Path) -> None:
    first = MetaData()
    Table("memos", first, Column("name", Text, primary_key=True))

    def work(connection: Connection) -> None:
        bring_up_to_date(connection, Schema(part="memos", metadata=first), None)
        connection.execute(text("INSERT INTO memos VALUES ('a')"))
        add = Migration(2, lambda operations: operations.add_column("memos", Column("more", Text)))
        assert memos_at(connection, add)["memos"] == 2
        again = Migration(3, lambda operations: operations.execute("UPDATE memos SET more = 'b'"))
        assert memos_at(connection, add, again)["memos"] == 3
        assert connection.execute(text("SELECT name, more FROM memos")).all() == [("a", "b")]
        assert compare_metadata(MigrationContext.configure(connection, opts=ONLY_MEMOS), MEMOS) == []

    await done(file, work)


ONLY_MEMOS = {"include_name": lambda name, kind, _: kind != "table" or name == "memos"}


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
    with create_engine(f"sqlite:///{file}").begin() as old:
        become(CORE.version - 1, oldest_able=1)(old)
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
