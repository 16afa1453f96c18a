"""The sums of the files are kept, and measured again once a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from hubgate.domain.errors import CapacityError, FilesFull, FolderFull, StoreFailed
from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.model import Held
from hubgate.features.bulk.batches.room import MAX_FILES, Room

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubgate.features.bulk.batches.store import SqlBatches


class _Store:
    """As much of a `SqlBatches` as a `Room` reads."""

    def __init__(self) -> None:
        self.keys: dict[str, Held] = {}
        self.fails = False
        self.reads = 0

    async def held(self, folder: str) -> Mapping[str, Held]:
        self.reads += 1
        if self.fails:
            raise StoreFailed("no database")
        return self.keys


class _World:
    def __init__(self, path: Path) -> None:
        self.store = _Store()
        self.now = 0.0
        self.folder = FilesFolder(path)
        self.room = Room(
            cast("SqlBatches", self.store),
            self.folder,
            total_bytes=1000,
            key_bytes=600,
            clock=lambda: self.now,
        )

    async def used(self) -> int:
        """Without the mark of the folder."""
        return (await self.room.report())[0] - 32


@pytest.fixture
def world(tmp_path: Path) -> _World:
    return _World(tmp_path / "files")


async def test_uploads_in_progress_count_before_they_are_files(world: _World) -> None:
    room = world.room
    await room.begin("a", "one")
    await room.take("a", 500)
    await room.begin("b", "one")
    with pytest.raises(FilesFull):
        await room.take("b", 200)
    await room.begin("c", "two")
    with pytest.raises(CapacityError) as full:
        await room.take("c", 500)
    assert full.value.retry_after, "the room comes back if the other upload is given up"
    room.end("a")
    room.add("one", 500)
    with pytest.raises(FolderFull):
        await room.take("c", 500)
    room.remove("one", 500)
    await room.take("c", 500)


async def test_nothing_is_scanned_for_an_upload_until_a_minute_has_passed(world: _World) -> None:
    for number in range(20):
        await world.room.begin(f"d{number}", "one")
        await world.room.take(f"d{number}", 1)
        world.room.end(f"d{number}")
    assert world.store.reads == 1
    world.folder.path("file-of-another-gateway").write_bytes(b"x" * 900)
    assert await world.used() == 0
    world.now = 60.0
    world.store.keys = {"other": Held(1, 900)}
    assert await world.used() == 900
    assert (await world.room.report())[1] == {"other": Held(1, 900)}


async def test_a_lost_database_leaves_the_sums_as_they_were(world: _World) -> None:
    world.store.fails = True
    with pytest.raises(StoreFailed):
        await world.room.begin("a", "one")
    world.store.fails = False
    await world.room.begin("a", "one")
    world.room.add("one", 600)
    world.store.fails, world.now = True, 100.0
    with pytest.raises(FilesFull):
        await world.room.take("a", 1)


async def test_a_key_has_a_bounded_number_of_files(world: _World) -> None:
    world.store.keys = {"one": Held(MAX_FILES - 1, 0)}
    await world.room.begin("a", "one")
    with pytest.raises(FilesFull, match=str(MAX_FILES)):
        await world.room.begin("b", "one")
    await world.room.begin("b", "two")


async def test_answers_of_a_batch_count_as_files_of_its_key_and_leave_room_for_the_output(
    world: _World,
) -> None:
    room = world.room
    assert await room.grow("batch", "one", 0, 400) == ""
    assert "share" in await room.grow("batch", "one", 400, 300)
    assert "folder" in await room.grow("other", "two", 300, 300)
    assert await room.grow("other", "two", 0, 100) == ""
    room.shrink("other", 100)
    await room.begin("a", "one")
    with pytest.raises(FilesFull):
        await room.take("a", 300)
    room.add("one", 400)  # the output
    room.drop(400)
    room.close("batch")
    await room.take("a", 200)
    assert await world.used() == 600
