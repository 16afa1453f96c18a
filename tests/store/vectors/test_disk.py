"""The vector cache on disk: what it stores, for how long, and concurrent access."""
# ruff: noqa: ASYNC240 - no loop waits for these small files

from __future__ import annotations

import asyncio
import signal
import stat
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from kept_vectors import MIB, found, kept, key, opened, size, vector, vectors
from scripted_upstream import fresh

from hubgate.core.cache import CacheStep, MemoryCache
from hubgate.domain.calls import CachedVector, Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import StoreFailed

if TYPE_CHECKING:
    from pathlib import Path

WRITE_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from hubgate.domain.calls import Encoding, FreshVectors, Vectors
from hubgate.store.vectors.disk import DiskVectorCache
async def main():
    file = DiskVectorCache(Path(sys.argv[1]), 1 << 20)
    vectors = Vectors(items=[bytes([n]) * 64 for n in range(100)], encoding=Encoding.F32)
    file.put(FreshVectors([bytes([n]) * 32 for n in range(100)], [""] * 100, vectors))
    await file.flush()
    print("written", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vectors"


async def test_vectors_and_metadata_survive_a_restart(path: Path) -> None:
    entries = {
        key(1): CachedVector(b"\0\0\x80?" * 3, tokens=5, exact=True, truncated=True),
        key(2): CachedVector(b"\0\0\0@" * 3, tokens=0, exact=False, truncated=False),
        key(3): CachedVector(b"\0\0@@" * 3),
    }
    async with opened(path) as file:
        for each, entry in entries.items():
            file.put(fresh({each: entry}))
    async with opened(path) as file:
        assert await file.get_many([*entries, key(4)]) == entries


async def test_finds_vectors_that_are_not_written_yet(path: Path) -> None:
    async with opened(path) as file:
        file.put(fresh(vectors(1, 2)))
        file.put(fresh(vectors(2, 3)))
        assert await found(file, 1, 2, 3, 4) == [1, 2, 3]


async def test_looks_up_more_keys_than_are_read_at_once(path: Path) -> None:
    await kept(path, *range(1200))
    async with opened(path) as file:
        assert len(await found(file, *range(1300))) == 1200


async def test_later_vector_replaces_earlier_one(path: Path) -> None:
    await kept(path, 1)
    async with opened(path) as file:
        file.put(fresh({key(1): vector(9)}))
    async with opened(path) as file:
        assert await file.get_many([key(1)]) == {key(1): vector(9)}
        assert (await file.stats())["entries"] == 1


async def test_stores_json_vectors_as_float32_if_in_range(path: Path) -> None:
    held = CachedVector(b"[0.5, 1]", tokens=3, encoding=Encoding.JSON)
    large = CachedVector(b"[1" + b"0" * 40 + b"]", encoding=Encoding.JSON)
    async with opened(path) as file:
        for each, entry in {key(1): held, key(2): large, key(3): vector(3)}.items():
            file.put(fresh({each: entry}))
        assert (await file.get_many([key(1)]))[key(1)] == held
    async with opened(path) as file:
        kept_one = CachedVector(struct.pack("<2f", 0.5, 1), tokens=3)
        assert await file.get_many([key(1), key(2), key(3)]) == {key(1): kept_one, key(3): vector(3)}


async def test_loads_more_keys_than_fit_in_one_step(path: Path) -> None:
    await kept(path, *range(5000), max_bytes=64 * MIB)
    async with opened(path, 64 * MIB) as file:
        for _ in range(5):
            assert await found(file, 0, 2500, 4999, 5000) == [0, 2500, 4999]
            await file.stats()


async def test_vectors_are_readable_by_owner_only(path: Path) -> None:
    await kept(path, 1)
    assert {stat.S_IMODE(part.stat().st_mode) for part in path.iterdir()} == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


async def test_stats_report_size_hits_and_misses(path: Path) -> None:
    await kept(path, 1, 2)
    async with opened(path) as file:
        await found(file, 1, 2, 3)
        stats = await file.stats()
    used = stats["bytes"]
    assert stats == {"entries": 2, "bytes": used, "most_bytes": 8 * MIB, "hits": 2, "misses": 1, "dropped": 0}
    assert 2 * 384 * 4 < used <= size(path)


async def test_full_backlog_drops_and_counts_further_vectors(path: Path) -> None:
    async with opened(path, max_pending_bytes=3 * 384 * 4) as file:
        for numbers in ((1, 2), (3,), (4, 5)):
            file.put(fresh(vectors(*numbers)))
        assert await found(file, 1, 2, 3, 4, 5) == [1, 2, 3]
        assert (await file.stats())["dropped"] == 2
        near = [file.is_near]
        await file.flush()
        assert [*near, file.is_near] == [False, True]
    async with opened(path, max_pending_bytes=3 * 384 * 4) as file:
        file.put(fresh(vectors(4)))
        assert await found(file, 1, 2, 3, 4, 5) == [1, 2, 3, 4]


async def test_vector_put_twice_is_not_counted_as_pending_once_it_is_written(path: Path) -> None:
    async with opened(path, max_pending_bytes=2 * 384 * 4) as file:
        for numbers in ((1,), (1,), (2, 3)):
            file.put(fresh(vectors(*numbers)))
        assert (await file.stats())["dropped"] == 2
        await file.flush()
        for number in (2, 3):
            file.put(fresh(vectors(number)))
        assert await found(file, 1, 2, 3) == [1, 2, 3]


class TestTheBound:
    async def test_folder_never_exceeds_limit_and_evicts_oldest(self, path: Path) -> None:
        for start in range(0, 3000, 500):
            await kept(path, *range(start, start + 500), max_bytes=2 * MIB)
            assert size(path) <= 2 * MIB
        async with opened(path, 2 * MIB) as file:
            left = await found(file, *range(3000))
            stats = await file.stats()
        assert left == list(range(3000 - len(left), 3000))
        assert stats["entries"] == len(left) > 500
        assert MIB < stats["bytes"] <= 2 * MIB

    async def test_keeps_recently_read_vectors_longer(self, path: Path) -> None:
        favourites = list(range(0, 500, 10))
        async with opened(path, 2 * MIB) as file:
            for start in range(0, 5000, 250):
                file.put(fresh(vectors(*range(start, start + 250))))
                await file.flush()
                await found(file, *(number for number in favourites if number < start + 250))
            assert await found(file, *range(500)) == favourites

    async def test_evicts_vectors_even_if_all_were_read(self, path: Path) -> None:
        async with opened(path, MIB) as file:
            for start in range(0, 2000, 100):
                file.put(fresh(vectors(*range(start, start + 100))))
                await file.flush()
                await found(file, *range(start + 100))
            assert len(await found(file, *range(1900, 2000))) == 100
        assert size(path) <= MIB

    async def test_lower_limit_shrinks_folder_and_keeps_newest(self, path: Path) -> None:
        await kept(path, *range(3000))
        assert size(path) > 4 * MIB
        await kept(path, 3000, max_bytes=2 * MIB)
        assert size(path) <= 2 * MIB
        async with opened(path, 2 * MIB) as file:
            left = await found(file, *range(3001))
        assert left == list(range(3001 - len(left), 3001))
        assert len(left) > 500

    async def test_counts_a_replaced_vector_once(self, path: Path) -> None:
        async with opened(path, MIB) as file:
            for _ in range(20):
                file.put(fresh(vectors(*range(100))))
                await file.flush()
            assert (await file.stats())["entries"] == 100
            assert await found(file, *range(100)) == list(range(100))

    async def test_many_restarts_leave_few_files(self, path: Path) -> None:
        for number in range(20):
            await kept(path, number)
        assert sorted(part.suffix for part in path.iterdir()) == ["", ".list", ".log"]

    async def test_stores_vectors_of_many_dimensions_within_limit(self, path: Path) -> None:
        for dimensions in (1024, 2560, 4096):
            async with opened(path, 4 * MIB) as file:
                file.put(fresh({key(n): vector(n, dimensions) for n in range(600)}))
            assert size(path) <= 4 * MIB
            async with opened(path, 4 * MIB) as file:
                assert (await file.get_many([key(599)]))[key(599)] == vector(599, dimensions)


class TestClearing:
    async def test_clear_removes_written_and_pending_vectors(self, path: Path) -> None:
        await kept(path, 1)
        async with opened(path) as file:
            file.put(fresh(vectors(2)))
            await file.clear()
            assert await found(file, 1, 2) == []
            file.put(fresh(vectors(3)))
            assert await found(file, 3) == [3]
        async with opened(path) as file:
            assert await found(file, 1, 2, 3) == [3]

    async def test_stores_vectors_after_clear_during_key_loading(self, path: Path) -> None:
        await kept(path, 1)
        async with opened(path) as file:
            await asyncio.gather(found(file, 1), file.clear())
            file.put(fresh(vectors(2)))
            await file.flush()
            assert await found(file, 1, 2) == [2]

    async def test_clear_keeps_other_files_in_the_folder(self, path: Path) -> None:
        await kept(path, 1)
        registry = path.with_name("hubgate.db")
        registry.write_text("the registry")
        async with opened(path) as file:
            await file.clear()
        assert [file.name for file in path.parent.iterdir()] == ["hubgate.db"]


class TestConcurrency:
    async def test_second_process_works_without_it(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened(path) as one, opened(path) as two:
            one.put(fresh(vectors(1)))
            await one.flush()
            two.put(fresh(vectors(2)))
            await two.flush()
            assert await found(two, 1, 2) == []
            with pytest.raises(StoreFailed, match="another process uses it"):
                await two.clear()
            assert await found(one, 1, 2) == [1]
            assert (one.is_near, two.is_near) == (True, False)
        assert {record.message for record in caplog.records} == {
            f"the vector cache {path} cannot be {what} (another process uses it); "
            "hubgate works without it until this is fixed"
            for what in ("read", "written")
        }

    async def test_closes_while_the_index_is_read(self, path: Path) -> None:
        await kept(path, *range(5000), max_bytes=64 * MIB)
        async with opened(path, 64 * MIB) as file:
            file.load()
            await asyncio.sleep(0)
        async with opened(path, 64 * MIB) as file:
            assert await found(file, 0, 4999) == [0, 4999]

    async def test_lookups_wait_for_the_index_after_a_start(self, path: Path) -> None:
        await kept(path, *range(5000), max_bytes=64 * MIB)
        async with opened(path, 64 * MIB) as file:
            answers = await asyncio.gather(*(found(file, number) for number in (0, 4999, 5000)))
        assert answers == [[0], [4999], []]

    async def test_concurrent_callers_get_their_own_vectors(self, path: Path) -> None:
        async with opened(path) as file:

            async def caller(number: int) -> list[int]:
                mine = range(number * 20, number * 20 + 20)
                assert await found(file, *mine) == []
                file.put(fresh(vectors(*mine)))
                return await found(file, *mine)

            answers = await asyncio.gather(*(caller(number) for number in range(50)))
        assert [number for answer in answers for number in answer] == list(range(1000))
        async with opened(path) as file:
            assert len(await found(file, *range(1000))) == 1000

    async def test_finds_vectors_that_are_put_while_others_are_read(self, path: Path) -> None:
        await kept(path, *range(200), max_bytes=64 * MIB)
        async with opened(path, 64 * MIB) as file:
            assert await found(file, 0) == [0]
            reading = asyncio.create_task(found(file, *range(201)))
            await asyncio.sleep(0)
            file.put(fresh(vectors(200)))
            assert await reading == [*range(201)]

    async def test_cancelled_read_does_not_affect_others(self, path: Path) -> None:
        await kept(path, 1)
        async with opened(path) as file:
            leaver = asyncio.create_task(found(file, 1))
            await asyncio.wait(
                {asyncio.create_task(file.stats()), leaver}, return_when=asyncio.FIRST_COMPLETED
            )
            leaver.cancel()
            assert await found(file, 1) == [1]

    async def test_uses_a_single_thread(self, path: Path) -> None:
        others = set(threading.enumerate())
        async with opened(path) as file:
            file.put(fresh(vectors(1)))
            await asyncio.gather(*(found(file, number) for number in range(20)))
            own = [thread for thread in threading.enumerate() if thread not in others]
        assert len(own) == 1


def test_killed_process_loses_no_written_vectors(path: Path) -> None:
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


async def test_serves_cached_vectors_after_restart_without_calling_the_model(path: Path) -> None:
    asked: list[str] = []

    async def model(call: Call) -> Result:
        asked.extend(call.texts)
        return Vectors(items=[b"[0.5,0.25]"] * len(call.texts), encoding=Encoding.JSON, tokens=3, exact=True)

    for _ in range(2):
        async with opened(path) as file:
            answer = await CacheStep(model, MemoryCache(MIB, file), identity=["m"])(Embed(texts=("cat",)))
            assert isinstance(answer, Vectors)
            assert (answer.tokens, answer.exact) == (3, True)
    assert asked == ["cat"]
    assert answer.items == [b"\0\0\0?\0\0\x80>"]
