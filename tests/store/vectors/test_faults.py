"""No fault of the vector cache fails a call or returns a wrong vector."""
# ruff: noqa: ASYNC240 - no loop waits for these small files

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from kept_vectors import MIB, found, kept, key, opened, vector, vectors
from msgspec import structs
from scripted_upstream import fresh

from hubgate.domain.calls import CachedVector, Encoding
from hubgate.domain.errors import StoreFailed

if TYPE_CHECKING:
    from pathlib import Path

WRITE_TO_A_FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from hubgate.domain.calls import Encoding, FreshVectors, Vectors
from hubgate.store.vectors.disk import DiskVectorCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))
async def main():
    file = DiskVectorCache(Path(sys.argv[1]), 1 << 26)
    vectors = Vectors(items=[bytes(4096)] * 200, encoding=Encoding.F32)
    file.put(FreshVectors([bytes([n]) * 32 for n in range(200)], [""] * 200, vectors))
    await file.close()
    again = DiskVectorCache(Path(sys.argv[1]), 1 << 26)
    print(len(await again.get_many([bytes([n]) * 32 for n in range(200)])))
    await again.close()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vectors"


def segment(path: Path) -> Path:
    """The only file of vectors in the folder."""
    (only,) = path.glob("*.log")
    return only


def damage(path: Path, needle: bytes) -> None:
    """Change one byte of a file, in the middle of `needle`."""
    content = bytearray(path.read_bytes())
    content[content.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(content)


class TestDamage:
    async def test_replaces_files_that_are_not_its_own(self, path: Path) -> None:
        path.mkdir(parents=True)
        for name in ("00000000.log", "00000007.log", "other.log"):
            (path / name).write_bytes(b"no vectors of hubgate" * 1000)
        await kept(path, 1)
        async with opened(path) as file:
            assert await found(file, 1) == [1]
        assert segment(path).stat().st_size < 2000

    @pytest.mark.parametrize("listed", [True, False])
    async def test_random_bytes_never_return_a_wrong_vector(self, path: Path, listed: bool) -> None:
        await kept(path, *range(2000), max_bytes=1 << 30)
        content = bytearray(segment(path).read_bytes())
        for start in range(16384, len(content), 3 * 16384):
            content[start : start + 8192] = os.urandom(8192)
        segment(path).write_bytes(content)
        if not listed:
            segment(path).with_suffix(".list").unlink()
        async with opened(path, 1 << 30) as file:
            for start in range(0, 2000, 100):
                await found(file, *range(start, start + 100))
                file.put(fresh(vectors(*range(start, start + 100))))
        async with opened(path, 1 << 30) as file:
            assert await found(file, *range(2000)) == list(range(2000))

    @pytest.mark.parametrize("bytes_left", [0, 10, 17, 100_000, 100_001])
    async def test_truncated_file_keeps_the_vectors_before_its_end(self, path: Path, bytes_left: int) -> None:
        await kept(path, *range(1000))
        first = min(path.glob("*.log"))
        os.truncate(first, bytes_left)
        async with opened(path) as file:
            left = await found(file, *range(1000))
            assert set(range(bytes_left // 1600)) <= set(left)
            file.put(fresh(vectors(*range(1000))))
        async with opened(path) as file:
            assert await found(file, *range(1000)) == list(range(1000))

    async def test_appends_after_what_a_killed_process_left_unfinished(self, path: Path) -> None:
        await kept(path, 1, 2)
        segment(path).with_suffix(".list").unlink()
        os.truncate(segment(path), segment(path).stat().st_size - 11)
        await kept(path, 3)
        segment(path).with_suffix(".list").unlink()
        async with opened(path) as file:
            assert await found(file, 1, 2, 3) == [1, 3]

    @pytest.mark.parametrize("what", ["vector", "facts", "key"])
    async def test_flipped_bit_loses_only_its_own_vector(self, path: Path, what: str) -> None:
        await kept(path, 70_001, 70_002)
        first = vector(70_001)
        needle = {
            "vector": first.vector,
            "facts": (70_002 * 8 + 4).to_bytes(4, "little"),
            "key": key(70_001),
        }
        damage(segment(path), needle[what])
        async with opened(path) as file:
            assert await found(file, 70_001, 70_002) == [70_002]
            file.put(fresh(vectors(70_001)))
        async with opened(path) as file:
            assert await found(file, 70_001, 70_002) == [70_001, 70_002]

    @pytest.mark.parametrize("content", [b"", b"short", b"x" * 200])
    async def test_reads_the_vectors_if_their_list_is_damaged(self, path: Path, content: bytes) -> None:
        await kept(path, 1, 2)
        segment(path).with_suffix(".list").write_bytes(content)
        async with opened(path) as file:
            assert await found(file, 1, 2, 3) == [1, 2]

    async def test_flipped_bit_in_the_list_loses_nothing(self, path: Path) -> None:
        await kept(path, 1, 2)
        damage(segment(path).with_suffix(".list"), key(1)[:8])
        async with opened(path) as file:
            assert await found(file, 1, 2) == [1, 2]


class TestAFolderThatCannotBeUsed:
    async def test_unusable_folder_fails_no_call_and_is_logged_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.parent.mkdir()
        path.write_text("a file where the folder should be")
        async with opened(path) as file:
            for number in range(5):
                assert await found(file, number) == []
            file.put(fresh(vectors(1)))
            assert (await file.stats())["entries"] == 0
        reads = [record.message for record in caplog.records if "fixed" in record.message]
        assert 1 <= len(reads) <= 2

    async def test_uses_the_folder_as_soon_as_it_is_repaired(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.parent.write_text("a file where the folder should be")
        async with opened(path) as file:
            assert await found(file, 1) == []
            path.parent.unlink()
            assert await found(file, 1) == []
            file.put(fresh(vectors(1)))
        assert len(caplog.records) == 1
        async with opened(path) as file:
            assert await found(file, 1) == [1]

    async def test_folder_that_cannot_be_deleted_fails_no_call(self, path: Path) -> None:
        await kept(path, 1)
        (path / "a folder").mkdir()
        async with opened(path) as file:
            with pytest.raises(StoreFailed, match="cannot be deleted"):
                await file.clear()
            file.put(fresh(vectors(2)))
            assert await found(file, 2) == [2]

    async def test_creates_a_folder_again_that_was_deleted_meanwhile(self, path: Path) -> None:
        async with opened(path, MIB) as file:
            file.put(fresh(vectors(1)))
            await file.flush()
            shutil.rmtree(path)
            for start in range(100, 400, 100):
                file.put(fresh(vectors(*range(start, start + 100))))
                await file.flush()
        async with opened(path, MIB) as file:
            assert await found(file, *range(300, 400)) == list(range(300, 400))

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
            key(7): structs.replace(vector(7), tokens=1 << 63),
            key(8): CachedVector(b"[1e39]", encoding=Encoding.JSON),
        }
        async with opened(path) as file:
            for each, entry in (vectors(1) | odd | vectors(2)).items():
                file.put(fresh({each: entry}))
            await file.flush()
            assert await found(file, 1, 2, 7, 8) == [1, 2]

    async def test_failed_batch_does_not_block_later_ones(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened(path) as file:
            file.put(fresh({key(7): CachedVector("no bytes")}))  # type: ignore[arg-type]
            await file.flush()
            file.put(fresh(vectors(1)))
        async with opened(path) as file:
            assert await found(file, 1, 7) == [1]
        (record,) = caplog.records
        assert record.message.startswith(f"the vector cache {path} cannot be written (")
