"""No fault of the vector file fails a call or returns a wrong vector."""
# ruff: noqa: ASYNC240 - no loop waits for these small files

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from kept_vectors import found, kept, key, opened, vector, vectors

from hubgate.domain.calls import CachedVector, Encoding
from hubgate.domain.errors import StoreFailed

if TYPE_CHECKING:
    from pathlib import Path

WRITE_TO_A_FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from hubgate.domain.calls import CachedVector
from hubgate.store.vectors.file import DiskVectorCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))
async def main():
    file = DiskVectorCache(Path(sys.argv[1]), 1 << 26)
    await file.put_many({bytes([n]) * 32: CachedVector(bytes(4096)) for n in range(200)})
    await file.close()
    again = DiskVectorCache(Path(sys.argv[1]), 1 << 26)
    print(len(await again.get_many([bytes([n]) * 32 for n in range(200)])))
    await again.close()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vectors.db"


def damage(path: Path, needle: bytes) -> None:
    """Change one byte of the file, in the middle of `needle`."""
    content = bytearray(path.read_bytes())
    content[content.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(content)


class TestDamage:
    async def test_replaces_invalid_file_and_logs_it_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.parent.mkdir()
        path.write_bytes(b"not a database" * 1000)
        async with opened(path) as file:
            assert await found(file, 1) == []
            await file.put_many(vectors(1))
        async with opened(path) as file:
            assert await found(file, 1) == [1]
        assert [record.message for record in caplog.records] == [
            f"the vector cache {path} is not a SQLite database; a new one is created"
        ]

    async def test_corrupt_pages_never_return_a_wrong_vector(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await kept(path, *range(2000))
        content = bytearray(path.read_bytes())
        for start in range(16384, len(content), 3 * 16384):
            content[start : start + 8192] = os.urandom(8192)
        path.write_bytes(content)
        async with opened(path) as file:
            for start in range(0, 2000, 100):
                await found(file, *range(start, start + 100))
                await file.put_many(vectors(*range(start, start + 100)))
        async with opened(path) as file:
            assert await found(file, *range(1900, 2000)) == list(range(1900, 2000))
        assert 1 <= len(caplog.records) <= 2

    async def test_truncated_file_fails_no_call(self, path: Path) -> None:
        await kept(path, *range(1000))
        os.truncate(path, path.stat().st_size // 2 + 5)
        async with opened(path) as file:
            await found(file, *range(1000))
            await file.put_many(vectors(*range(1000)))
        async with opened(path) as file:
            assert await found(file, *range(1000)) == list(range(1000))

    @pytest.mark.parametrize("what", ["vector", "tokens"])
    async def test_flipped_bit_loses_only_its_own_vector(self, path: Path, what: str) -> None:
        await kept(path, 70_001, 70_002)
        first = vector(70_001)
        damage(path, first.vector if what == "vector" else (70_001).to_bytes(8, "little") + b"\1\0")
        async with opened(path) as file:
            assert await found(file, 70_001, 70_002) == [70_002]
            await file.put_many(vectors(70_001))
        async with opened(path) as file:
            assert await found(file, 70_001, 70_002) == [70_001, 70_002]

    @pytest.mark.parametrize(
        "change",
        ["PRAGMA user_version = 99", "DROP TABLE vectors", "ALTER TABLE vectors RENAME COLUMN data TO other"],
    )
    async def test_replaces_file_of_another_format(
        self, path: Path, change: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        await kept(path, 1)
        with closing(sqlite3.connect(path)) as other:
            other.execute(change)
        async with opened(path) as file:
            assert await found(file, 1) == []
            await file.put_many(vectors(1))
        async with opened(path) as file:
            assert await found(file, 1) == [1]
        assert ["a new one is created" in record.message for record in caplog.records] == [True]

    async def test_ignores_truncated_rows(self, path: Path) -> None:
        await kept(path, 1)
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE vectors SET data = CAST('short' AS TEXT)")
            other.commit()
        async with opened(path) as file:
            assert await found(file, 1) == []

    async def test_ignores_invalid_keys(self, path: Path) -> None:
        await kept(path, 1, 2)
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE vectors SET key = 'short' WHERE id = 1")
            other.commit()
        async with opened(path) as file:
            for _ in range(4):
                assert await found(file, 1, 2) == [2]


class TestAFileThatCannotBeUsed:
    async def test_unusable_file_fails_no_call_and_is_logged_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.mkdir(parents=True)
        async with opened(path) as file:
            for number in range(5):
                assert await found(file, number) == []
            await file.put_many(vectors(1))
            assert (await file.stats())["entries"] == 0
        reads = [record.message for record in caplog.records if "fixed" in record.message]
        assert 1 <= len(reads) <= 2

    async def test_uses_the_file_as_soon_as_it_is_repaired(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.parent.write_text("a file where the folder should be")
        async with opened(path) as file:
            assert await found(file, 1) == []
            path.parent.unlink()
            assert await found(file, 1) == []
            await file.put_many(vectors(1))
        assert len(caplog.records) == 1
        async with opened(path) as file:
            assert await found(file, 1) == [1]

    async def test_corrupt_file_that_cannot_be_deleted_fails_no_call(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await kept(path, 1)
        damage(path, b"SQLite format 3\0")
        path.with_name("vectors.db-shm").mkdir()
        async with opened(path) as file:
            assert await found(file, 1) == []
            with pytest.raises(StoreFailed, match="cannot be deleted"):
                await file.clear()
        assert "cannot be deleted" in caplog.text

    async def test_continues_without_a_file_that_stays_locked(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await kept(path, 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with opened(path, patience=0) as file:
                await file.put_many(vectors(2))
                await file.flush()
                assert await found(file, 1, 2) == [1]
        assert [record.message for record in caplog.records] == [
            f"the vector cache {path} is locked by another program; hubgate works without it until this is fixed"
        ]

    def test_full_disk_keeps_written_vectors_and_fails_no_call(self, path: Path) -> None:
        done = subprocess.run(
            # -B: under the limit Python would leave truncated .pyc files behind, which break every later import.
            [sys.executable, "-B", "-c", WRITE_TO_A_FULL_DISK, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert 0 <= int(done.stdout) < 200
        assert "hubgate works without it" in done.stderr


class TestWhatCannotBeKept:
    async def test_skips_vectors_that_cannot_be_stored(self, path: Path) -> None:
        odd = {
            key(7): replace(vector(7), tokens=1 << 63),
            key(8): CachedVector(b"[1e39]", encoding=Encoding.JSON),
        }
        async with opened(path) as file:
            await file.put_many(vectors(1) | odd | vectors(2))
            await file.flush()
            assert await found(file, 1, 2, 7, 8) == [1, 2]

    async def test_failed_batch_does_not_block_later_ones(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened(path) as file:
            await file.put_many({key(7): CachedVector("no bytes")})  # type: ignore[arg-type]
            await file.flush()
            await file.put_many(vectors(1))
        async with opened(path) as file:
            assert await found(file, 1, 7) == [1]
        (record,) = caplog.records
        assert record.message.startswith(f"the vector cache {path} cannot be written (")
