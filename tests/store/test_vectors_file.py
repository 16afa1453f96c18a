"""The vectors on disk: what is kept, for how long, and that no trouble with the file reaches a call."""
# ruff: noqa: ASYNC240 - no loop waits for these small files

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from hubgate.core.caching import Cached, MemoryCache
from hubgate.domain.calls import CachedVector, Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import StoreFailed
from hubgate.store.vectors import VectorFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1024 * 1024
WRITE_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from hubgate.domain.calls import CachedVector
from hubgate.store.vectors import VectorFile
async def main():
    file = VectorFile(Path(sys.argv[1]), 1 << 20)
    await file.put_many({bytes([n]) * 32: CachedVector(bytes([n]) * 64) for n in range(100)})
    await file.flush()
    print("written", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
WRITE_TO_A_FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from hubgate.domain.calls import CachedVector
from hubgate.store.vectors import VectorFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))
async def main():
    file = VectorFile(Path(sys.argv[1]), 1 << 26)
    await file.put_many({bytes([n]) * 32: CachedVector(bytes(4096)) for n in range(200)})
    await file.close()
    again = VectorFile(Path(sys.argv[1]), 1 << 26)
    print(len(await again.get_many([bytes([n]) * 32 for n in range(200)])))
    await again.close()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vectors.db"


@asynccontextmanager
async def opened(path: Path, most_bytes: int = 8 * MIB, **options: float) -> AsyncIterator[VectorFile]:
    file = VectorFile(path, most_bytes, **options)  # type: ignore[arg-type]
    try:
        yield file
    finally:
        await file.close()


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "little")).digest()


def vector(number: int, dimensions: int = 384) -> CachedVector:
    return CachedVector(number.to_bytes(4, "little") * dimensions, tokens=number, exact=True, truncated=False)


def vectors(*numbers: int) -> dict[bytes, CachedVector]:
    return {key(number): vector(number) for number in numbers}


async def kept(path: Path, *numbers: int, most_bytes: int = 8 * MIB) -> None:
    """Write vectors as an earlier run of the gate would have."""
    async with opened(path, most_bytes) as file:
        await file.put_many(vectors(*numbers))


async def found(file: VectorFile, *numbers: int) -> list[int]:
    """Which of them are remembered, each checked to be the right one."""
    answer = await file.get_many([key(number) for number in numbers])
    assert answer == {k: v for k, v in vectors(*numbers).items() if k in answer}
    return [number for number in numbers if key(number) in answer]


def damage(path: Path, needle: bytes) -> None:
    """Change one byte of the file, in the middle of what is looked for."""
    content = bytearray(path.read_bytes())
    content[content.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(content)


async def test_vectors_outlive_the_process_with_all_that_is_known_of_them(path: Path) -> None:
    entries = {
        key(1): CachedVector(b"\0\0\x80?" * 3, tokens=5, exact=True, truncated=True),
        key(2): CachedVector(b"\0\0\0@" * 3, tokens=0, exact=False, truncated=False),
        key(3): CachedVector(b"\0\0@@" * 3),
    }
    async with opened(path) as file:
        await file.put_many(entries)
    async with opened(path) as file:
        assert await file.get_many([*entries, key(4)]) == entries


async def test_what_waits_to_be_written_is_found_already(path: Path) -> None:
    async with opened(path) as file:
        await file.put_many(vectors(1, 2))
        await file.put_many(vectors(2, 3))
        assert await found(file, 1, 2, 3, 4) == [1, 2, 3]


async def test_a_put_returns_though_the_file_cannot_be_written_now(path: Path) -> None:
    await kept(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with opened(path, patience=60) as file:
            await file.put_many(vectors(2))
            assert await found(file, 1, 2) == [1, 2]
            other.execute("COMMIT")
    async with opened(path) as file:
        assert await found(file, 2) == [2]


async def test_more_keys_than_fit_into_one_question_are_answered(path: Path) -> None:
    await kept(path, *range(1200))
    async with opened(path) as file:
        assert len(await found(file, *range(1300))) == 1200


async def test_the_later_of_two_vectors_of_one_key_is_kept(path: Path) -> None:
    await kept(path, 1)
    async with opened(path) as file:
        await file.put_many({key(1): vector(9)})
    async with opened(path) as file:
        assert await file.get_many([key(1)]) == {key(1): vector(9)}
        assert (await file.stats())["entries"] == 1


async def test_only_the_owner_may_read_the_file(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    async with opened(path) as file:
        await file.put_many(vectors(1))
        await file.flush()
        modes = {stat.S_IMODE(part.stat().st_mode) for part in path.parent.glob("vectors.db*")}
    assert modes == {0o600}


async def test_the_counts_say_what_the_file_holds_and_how_often_it_helped(path: Path) -> None:
    await kept(path, 1, 2)
    async with opened(path) as file:
        await found(file, 1, 2, 3)
        stats = await file.stats()
    size = stats["bytes"]
    assert stats == {"entries": 2, "bytes": size, "most_bytes": 8 * MIB, "hits": 2, "misses": 1, "dropped": 0}
    assert 2 * 384 * 4 < size <= path.stat().st_size


async def test_a_full_backlog_drops_what_comes_on_top_and_says_how_many(path: Path) -> None:
    async with opened(path, most_waiting=3 * 384 * 4) as file:
        await file.put_many(vectors(1, 2, 3, 4, 5))
        assert await found(file, 1, 2, 3, 4, 5) == [1, 2, 3]
        assert (await file.stats())["dropped"] == 2
    async with opened(path, most_waiting=3 * 384 * 4) as file:
        await file.put_many(vectors(4))
        assert await found(file, 1, 2, 3, 4, 5) == [1, 2, 3, 4]


class TestTheBound:
    async def test_the_file_never_grows_beyond_it_and_the_oldest_go(self, path: Path) -> None:
        for start in range(0, 3000, 500):
            await kept(path, *range(start, start + 500), most_bytes=2 * MIB)
            assert path.stat().st_size <= 2 * MIB
        async with opened(path, 2 * MIB) as file:
            left = await found(file, *range(3000))
            stats = await file.stats()
        assert left == list(range(3000 - len(left), 3000))
        assert stats["entries"] == len(left) > 500
        assert MIB < stats["bytes"] <= 2 * MIB

    async def test_a_vector_that_was_read_stays_longer_than_others_of_its_age(self, path: Path) -> None:
        favourites = list(range(0, 500, 10))
        async with opened(path, 2 * MIB) as file:
            for start in range(0, 5000, 250):
                await file.put_many(vectors(*range(start, start + 250)))
                await file.flush()
                await found(file, *(number for number in favourites if number < start + 250))
            assert await found(file, *range(500)) == favourites

    async def test_where_all_were_read_room_is_made_all_the_same(self, path: Path) -> None:
        async with opened(path, MIB) as file:
            for start in range(0, 2000, 100):
                await file.put_many(vectors(*range(start, start + 100)))
                await file.flush()
                await found(file, *range(start + 100))
            assert len(await found(file, *range(1900, 2000))) == 100
        assert path.stat().st_size <= MIB

    async def test_a_lowered_bound_shrinks_the_file_and_keeps_the_newest(self, path: Path) -> None:
        await kept(path, *range(3000))
        assert path.stat().st_size > 4 * MIB
        async with opened(path, 2 * MIB) as file:
            left = await found(file, *range(3000))
        assert path.stat().st_size <= 2 * MIB
        assert left == list(range(3000 - len(left), 3000))
        assert len(left) > 500

    async def test_a_bound_too_small_for_anything_keeps_nothing_and_harms_nothing(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened(path, 64 * 1024) as file:
            for start in range(0, 300, 100):
                await file.put_many(vectors(*range(start, start + 100)))
        async with opened(path, 64 * 1024) as file:
            await found(file, *range(300))
        assert path.stat().st_size <= 64 * 1024
        assert all("cannot grow" in record.message for record in caplog.records)
        assert len(caplog.records) <= 2

    async def test_vectors_of_many_dimensions_fit_into_it_too(self, path: Path) -> None:
        for dimensions in (1024, 2560, 4096):
            async with opened(path, 4 * MIB) as file:
                await file.put_many({key(n): vector(n, dimensions) for n in range(600)})
            assert path.stat().st_size <= 4 * MIB
            async with opened(path, 4 * MIB) as file:
                assert (await file.get_many([key(599)]))[key(599)] == vector(599, dimensions)


class TestDamage:
    async def test_a_file_that_is_no_database_is_begun_anew_and_logged_once(
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
            f"the vector cache {path} is no SQLite database; it starts anew"
        ]

    async def test_a_file_whose_pages_are_overwritten_never_gives_a_wrong_vector(
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

    async def test_a_truncated_file_never_fails_a_call(self, path: Path) -> None:
        await kept(path, *range(1000))
        os.truncate(path, path.stat().st_size // 2 + 5)
        async with opened(path) as file:
            await found(file, *range(1000))
            await file.put_many(vectors(*range(1000)))
        async with opened(path) as file:
            assert await found(file, *range(1000)) == list(range(1000))

    @pytest.mark.parametrize("what", ["vector", "tokens"])
    async def test_a_single_flipped_bit_costs_that_vector_alone(self, path: Path, what: str) -> None:
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
    async def test_a_file_of_another_format_is_begun_anew(
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
        assert ["starts anew" in record.message for record in caplog.records] == [True]

    async def test_a_row_cut_short_is_not_found(self, path: Path) -> None:
        await kept(path, 1)
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE vectors SET data = CAST('short' AS TEXT)")
            other.commit()
        async with opened(path) as file:
            assert await found(file, 1) == []


class TestAFileThatCannotBeUsed:
    async def test_it_fails_no_call_and_is_logged_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.mkdir(parents=True)
        async with opened(path) as file:
            for number in range(5):
                assert await found(file, number) == []
            await file.put_many(vectors(1))
            assert (await file.stats())["entries"] == 0
        reads = [record.message for record in caplog.records if "mended" in record.message]
        assert 1 <= len(reads) <= 2

    async def test_it_is_used_as_soon_as_it_is_mended_and_told_of_when_it_breaks_again(
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

    async def test_a_broken_file_that_cannot_be_deleted_fails_no_call(
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

    async def test_a_file_locked_for_long_is_done_without(
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
            f"the vector cache {path} is locked by another program; the gate works without it until that is mended"
        ]

    def test_a_full_disk_keeps_what_fitted_and_fails_no_call(self, path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", WRITE_TO_A_FULL_DISK, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert 0 <= int(done.stdout) < 200
        assert "the gate works without it" in done.stderr


class TestClearing:
    async def test_nothing_is_left_of_what_was_written_or_waiting(self, path: Path) -> None:
        await kept(path, 1)
        async with opened(path) as file:
            await file.put_many(vectors(2))
            await file.clear()
            assert await found(file, 1, 2) == []
            await file.put_many(vectors(3))
            assert await found(file, 3) == [3]
        async with opened(path) as file:
            assert await found(file, 1, 2, 3) == [3]

    async def test_clearing_leaves_the_folder_s_other_files_alone(self, path: Path) -> None:
        await kept(path, 1)
        registry = path.with_name("hubgate.db")
        registry.write_text("the registry")
        async with opened(path) as file:
            await file.clear()
        assert [file.name for file in path.parent.iterdir()] == ["hubgate.db"]


class TestConcurrency:
    async def test_two_opens_of_one_file_see_each_others_vectors(self, path: Path) -> None:
        async with opened(path) as one, opened(path) as two:
            await one.put_many(vectors(1))
            await two.put_many(vectors(2))
            await asyncio.gather(one.flush(), two.flush())
            assert await found(one, 1, 2) == [1, 2]
            assert await found(two, 1, 2) == [1, 2]

    async def test_many_callers_at_once_get_their_own_vectors(self, path: Path) -> None:
        async with opened(path) as file:

            async def caller(number: int) -> list[int]:
                mine = range(number * 20, number * 20 + 20)
                assert await found(file, *mine) == []
                await file.put_many(vectors(*mine))
                return await found(file, *mine)

            answers = await asyncio.gather(*(caller(number) for number in range(50)))
        assert [number for answer in answers for number in answer] == list(range(1000))
        async with opened(path) as file:
            assert len(await found(file, *range(1000))) == 1000

    async def test_a_caller_who_leaves_while_it_reads_disturbs_nobody(self, path: Path) -> None:
        await kept(path, 1)
        async with opened(path) as file:
            leaver = asyncio.create_task(found(file, 1))
            await asyncio.wait(
                {asyncio.create_task(file.stats()), leaver}, return_when=asyncio.FIRST_COMPLETED
            )
            leaver.cancel()
            assert await found(file, 1) == [1]

    async def test_all_is_done_in_one_thread_of_its_own(self, path: Path) -> None:
        async with opened(path) as file:
            await file.put_many(vectors(1))
            await asyncio.gather(*(found(file, number) for number in range(20)))
            names = [thread.name for thread in threading.enumerate() if "vectors" in thread.name]
        assert len(names) == 1


def test_a_killed_process_loses_nothing_that_was_written(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()

    async def left() -> int:
        async with opened(path) as file:
            return len(await file.get_many([bytes([number]) * 32 for number in range(100)]))

    assert asyncio.run(left()) == 100


async def test_behind_the_memory_it_answers_after_a_restart_without_asking_the_model(path: Path) -> None:
    asked: list[str] = []

    async def model(call: Call) -> Result:
        asked.extend(call.texts)
        return Vectors(items=[b"[0.5,0.25]"] * len(call.texts), encoding=Encoding.JSON, tokens=3, exact=True)

    for _ in range(2):
        async with opened(path) as file:
            answer = await Cached(model, MemoryCache(MIB, file), identity=["m"])(Embed(texts=("cat",)))
            assert isinstance(answer, Vectors)
            assert (answer.tokens, answer.exact) == (3, True)
    assert asked == ["cat"]
    assert answer.items == [b"\0\0\0?\0\0\x80>"]
