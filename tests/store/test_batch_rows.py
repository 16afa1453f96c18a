"""Batches are claimed by one gateway at a time, and a claim that ended cannot be used any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from hubgate.domain.batches import Batch, BatchStatus, ClaimLost, Page, Purpose, StoredFile
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.settings import Settings
    from hubgate.store.batches import SqlBatches

HERE = "folder"


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The tests of this module run on both databases."""
    kind: str = request.param
    return kind


@pytest.fixture
async def batches(settings: Settings) -> AsyncIterator[SqlBatches]:
    store = await SqlStore.open(settings)
    yield store.batches
    await store.close()


def batch(name: str, created_at: float = 1.0, **values: object) -> Batch:
    return Batch(
        **{  # type: ignore[arg-type]
            "id": name,
            "key": "k1",
            "folder": HERE,
            "path": "/v1/embeddings",
            "input_file": f"file-{name}",
            "window": "24h",
            "created_at": created_at,
            "expires_at": created_at + 100,
            "metadata": {"a": "b"},
            **values,
        }
    )


def file(name: str, created_at: float = 1.0, key: str = "k1") -> StoredFile:
    return StoredFile(
        id=name,
        key=key,
        folder=HERE,
        name="in.jsonl",
        purpose=Purpose.BATCH,
        size=5_000_000_000,
        created_at=created_at,
        expires_at=created_at + 100,
    )


async def test_the_oldest_batch_of_the_folder_is_claimed_once(batches: SqlBatches) -> None:
    for one in (batch("late", 2.0), batch("early", 1.0), batch("elsewhere", 0.0, folder="other")):
        await batches.add_batch(one)
    first = await batches.claim("a", HERE, now=10, until=20)
    assert first == msgspec.structs.replace(batch("early"), run=1)
    second = await batches.claim("b", HERE, now=10, until=20)
    assert second is not None
    assert second.id == "late"
    assert await batches.claim("c", HERE, now=10, until=20) is None


async def test_a_claim_that_ended_is_taken_over_and_lost(batches: SqlBatches) -> None:
    await batches.add_batch(batch("one"))
    old = await batches.claim("a", HERE, now=10, until=20)
    assert old is not None
    assert await batches.claim("b", HERE, now=19, until=30) is None
    new = await batches.claim("b", HERE, now=20, until=30)
    assert new is not None
    assert new.run == 2
    with pytest.raises(ClaimLost):
        await batches.save_batch(old, "a", 40)
    started = msgspec.structs.replace(new, status=BatchStatus.IN_PROGRESS, total=7)
    assert await batches.save_batch(started, "b", 40) is None
    await batches.save_batch(started, "b", None)
    assert await batches.claim("a", HERE, now=21, until=30) == msgspec.structs.replace(started, run=3)


async def test_a_cancellation_is_seen_by_the_gateway_that_works(batches: SqlBatches) -> None:
    await batches.add_batch(batch("one"))
    claimed = await batches.claim("a", HERE, now=10, until=20)
    assert claimed is not None
    await batches.request_cancel("one", 12.0)
    await batches.request_cancel("one", 13.0)
    assert await batches.save_batch(claimed, "a", 30) == 12.0
    found = await batches.batch("one")
    assert found is not None
    assert found.shown_status is BatchStatus.CANCELLING


async def test_a_finished_batch_is_claimed_for_its_webhook_only(batches: SqlBatches) -> None:
    await batches.add_batch(batch("done", status=BatchStatus.COMPLETED))
    await batches.add_batch(batch("tell", status=BatchStatus.COMPLETED, notify_at=15.0))
    assert await batches.claim("a", HERE, now=10, until=20) is None
    found = await batches.claim("a", HERE, now=15, until=20)
    assert found is not None
    assert found.id == "tell"


async def test_a_batch_is_restarted_once(batches: SqlBatches) -> None:
    done = batch("one", status=BatchStatus.CANCELLED, cancel_at=5.0)
    await batches.add_batch(done)
    again = msgspec.structs.replace(done, status=BatchStatus.IN_PROGRESS, cancel_at=None)
    assert await batches.restart_batch(again)
    assert not await batches.restart_batch(again)
    assert await batches.batch("one") == again


async def test_all_claims_end_when_the_only_gateway_starts(batches: SqlBatches) -> None:
    await batches.add_batch(batch("one"))
    assert await batches.claim("a", HERE, now=10, until=99)
    await batches.release_claims()
    assert await batches.claim("b", HERE, now=11, until=99)


async def test_files_and_batches_are_listed_by_key_and_page(batches: SqlBatches) -> None:
    for number in range(4):
        await batches.add_file(file(f"f{number}", 1.0 + number // 2))
        await batches.add_batch(batch(f"b{number}", 1.0 + number // 2))
    await batches.add_file(file("other", 3.0, key="k2"))
    listed = [one.id for one in await batches.files(Page(3), 5.0, key="k1")]
    assert listed == ["f3", "f2", "f1"]
    assert [one.id for one in await batches.files(Page(3, "f1"), 5.0, key="k1")] == ["f0"]
    assert [one.id for one in await batches.files(Page(2, "f0", oldest_first=True), 5.0)] == ["f1", "f2"]
    assert await batches.files(Page(5), 5.0, purpose=Purpose.BATCH_OUTPUT) == []
    assert [one.id for one in await batches.files(Page(5), 102.0)] == ["other"]
    assert await batches.files(Page(3, "no such"), 5.0) == []
    assert [one.id for one in await batches.batches(Page(2), "k1")] == ["b3", "b2"]
    assert await batches.batches(Page(2), "k2") == []


async def test_expired_files_are_found_unless_a_batch_reads_them(batches: SqlBatches) -> None:
    await batches.add_file(file("file-one"))
    await batches.add_file(file("file-two"))
    await batches.add_batch(batch("one"))
    await batches.add_batch(batch("two", status=BatchStatus.FAILED))
    assert [one.id for one in await batches.expired_files(HERE, 101.0)] == ["file-two"]
    assert await batches.expired_files(HERE, 100.0) == []
    assert await batches.expired_files("other", 101.0) == []
    assert await batches.unfinished_input("file-one") == "one"
    assert await batches.unfinished_input("file-two") is None
    await batches.remove_file("file-two")
    assert await batches.file("file-two") is None
    await batches.forget_batches(50.0)
    assert await batches.batch("two") is None
    assert await batches.batch("one") is not None
