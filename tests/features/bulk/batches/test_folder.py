"""Files in an object store, here a folder that obstore treats as one: two gateways, each with a folder for its copies."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.objects import ObjectStorage
from hubgate.features.bulk.batches.record import Answer, Record, response_line
from hubgate.features.bulk.batches.rows import Row

if TYPE_CHECKING:
    from pathlib import Path

BATCH = "batch_1"
ROWS = [Row(n, f"r{n}", b"{}") for n in range(4)]
DAY = 86400


class Two(NamedTuple):
    """The folders of two gateways, and their object store."""

    one: FilesFolder
    other: FilesFolder
    bucket: Path

    def objects(self) -> list[str]:
        return sorted(str(path.relative_to(self.bucket)) for path in self.bucket.rglob("*") if path.is_file())


@pytest.fixture
def two(tmp_path: Path) -> Two:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    one, other = (
        FilesFolder(tmp_path / name, ObjectStorage(f"file://{bucket}")) for name in ("one", "other")
    )
    assert one.open() == other.open(), "a file of one belongs to both"
    return Two(one, other, bucket)


def answers(*numbers: int) -> list[Answer]:
    return [Answer(n, True, response_line(BATCH, ROWS[n], 200, "id", b'{"n":%d}' % n)) for n in numbers]


def test_a_published_file_is_everywhere_until_it_is_removed(two: Two) -> None:
    two.one.path("file-1").write_bytes(b"content")
    assert not two.other.fetch("file-1").exists()
    two.one.publish("file-1")
    assert two.other.fetch("file-1").read_bytes() == b"content"
    two.other.remove("file-1")
    assert two.objects() == [".folder"]
    two.other.remove("file-1")


def test_another_gateway_continues_a_record_from_its_stored_pieces(two: Two) -> None:
    record = Record(two.one, BATCH, 1, two.one.fetch("file-out"), len(ROWS))
    for number in (2, 0):
        record.append(answers(number))
        record.publish()
    record.publish()
    record.append(answers(3))  # its gateway dies before the next piece is stored

    other = Record(two.other, BATCH, 2, two.other.fetch("file-out"), len(ROWS))
    assert [other.has(n) for n in range(4)] == [True, False, True, False]
    other.append(answers(1))
    other.publish()
    assert len(two.objects()) == 4

    again = Record(two.one, BATCH, 3, two.one.fetch("file-out"), len(ROWS))
    assert [again.has(n) for n in range(4)] == [True] * 4, "its own lines that it had not stored count, too"
    two.one.remove_parts(BATCH)
    assert two.objects() == [".folder"]
    assert two.one.parts(BATCH) == []
    for opened in (record, other, again):
        opened.close()


def test_pieces_behind_a_gap_are_ignored(two: Two) -> None:
    part = two.one.path(f"{BATCH}.000001.output.part")
    part.write_bytes(b"abcdef")
    two.one.publish_part(part, 0, 2)
    two.one.publish_part(part, 4, 6)
    assert [path.read_bytes() for path in two.other.parts(BATCH)] == [b"ab"]


def test_the_store_counts_towards_the_limit(two: Two) -> None:
    two.one.path("file-1").write_bytes(b"x" * 900)
    two.one.publish("file-1")
    assert two.other.measure() >= 900


def test_old_copies_and_lost_pieces_are_removed(two: Two) -> None:
    two.one.path("file-1").write_bytes(b"content")
    two.one.publish("file-1")
    part = two.one.path(f"{BATCH}.000001.output.part")
    part.write_bytes(b"ab")
    two.one.publish_part(part, 0, 2)
    (piece,) = two.bucket.glob(f"{BATCH}/*/*")
    for path, days in ((two.one.path("file-1"), 1), (piece, 50), (two.bucket / "file-1", 50)):
        os.utime(path, (time.time() - days * DAY,) * 2)
    two.one.clean()
    assert (two.one.path("file-1").exists(), piece.exists()) == (False, False)
    assert two.one.fetch("file-1").read_bytes() == b"content", "what is complete expires by its own rules"


def test_a_store_that_cannot_be_used_is_reported() -> None:
    with pytest.raises(OSError, match="object store"):
        ObjectStorage("file:///no/such/folder")
