"""Batches are claimed by one gateway at a time, and a claim that ended cannot be used any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from hubgate.features.bulk.batches.model import Batch, BatchStatus, ClaimLost, Page, Purpose, StoredFile
from hubgate.features.bulk.batches.store import SqlBatches
from hubgate.store.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from hubgate.settings import Settings

HERE = "folder"
MOST = 9


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The tests of this module run on both databases."""
    kind: str = request.param
    return kind


class _Clock:
    """The database's, as the test sets it."""

    now = 10.0

    def __call__(self, connection: Connection) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
async def batches(settings: Settings, clock: _Clock) -> AsyncIterator[SqlBatches]:
    location = settings.database_url or settings.database
    database = await Database.open(location)
    yield SqlBatches(database, clock)
    await database.close()


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
        assert await batches.add_batch(one, MOST)
    first = await batches.claim("a", HERE, 10, 10)
    assert first == msgspec.structs.replace(batch("early"), run=1)
    second = await batches.claim("b", HERE, 10, 10)
    assert second is not None
    assert second.id == "late"
    assert await batches.claim("c", HERE, 10, 10) is None


async def test_a_claim_that_ended_is_taken_over_and_lost(batches: SqlBatches, clock: _Clock) -> None:
    await batches.add_batch(batch("one"), MOST)
    old = await batches.claim("a", HERE, 10, 10)
    assert old is not None
    clock.now = 19
    assert await batches.claim("b", HERE, 19, 11) is None
    clock.now = 20
    new = await batches.claim("b", HERE, 20, 10)
    assert new is not None
    assert new.run == 2
    with pytest.raises(ClaimLost):
        await batches.save_batch(old, "a", 20)
    started = msgspec.structs.replace(new, status=BatchStatus.IN_PROGRESS, total=7)
    assert await batches.save_batch(started, "b", 20) is None
    await batches.save_batch(started, "b", None)
    clock.now = 21
    assert await batches.claim("a", HERE, 21, 9) == msgspec.structs.replace(started, run=3)


async def test_a_cancellation_is_seen_by_the_gateway_that_works(batches: SqlBatches) -> None:
    await batches.add_batch(batch("one"), MOST)
    claimed = await batches.claim("a", HERE, 10, 10)
    assert claimed is not None
    await batches.request_cancel("one", 12.0)
    await batches.request_cancel("one", 13.0)
    assert await batches.save_batch(claimed, "a", 30) == 12.0
    found = await batches.batch("one")
    assert found is not None
    assert found.shown_status is BatchStatus.CANCELLING


async def test_a_finished_batch_is_claimed_for_its_webhook_only(batches: SqlBatches, clock: _Clock) -> None:
    await batches.add_batch(batch("done", status=BatchStatus.COMPLETED), MOST)
    await batches.add_batch(batch("tell", status=BatchStatus.COMPLETED, notify_at=15.0), MOST)
    assert await batches.claim("a", HERE, 10, 10) is None
    clock.now = 15
    found = await batches.claim("a", HERE, 15, 5)
    assert found is not None
    assert found.id == "tell"


async def test_a_batch_is_restarted_once(batches: SqlBatches) -> None:
    done = batch("one", status=BatchStatus.CANCELLED, cancel_at=5.0)
    await batches.add_batch(done, MOST)
    again = msgspec.structs.replace(done, status=BatchStatus.IN_PROGRESS, cancel_at=None)
    assert await batches.restart_batch(again)
    assert not await batches.restart_batch(again)
    assert await batches.batch("one") == again


async def test_all_claims_end_when_the_only_gateway_starts(batches: SqlBatches, clock: _Clock) -> None:
    await batches.add_batch(batch("one"), MOST)
    assert await batches.claim("a", HERE, 10, 89)
    await batches.end_claims()
    clock.now = 11
    assert await batches.claim("b", HERE, 11, 88)


async def test_files_and_batches_are_listed_by_key_and_page(batches: SqlBatches) -> None:
    for number in range(4):
        await batches.add_file(file(f"f{number}", 1.0 + number // 2))
        await batches.add_batch(batch(f"b{number}", 1.0 + number // 2), MOST)
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
    await batches.add_batch(batch("one"), MOST)
    await batches.add_batch(batch("two", status=BatchStatus.FAILED), MOST)
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


async def test_keys_take_turns(batches: SqlBatches, clock: _Clock) -> None:
    for at, (name, key) in enumerate([("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")]):
        await batches.add_batch(batch(name, float(at), key=key), MOST)
    order = []
    for _ in range(4):
        found = await batches.claim("g", HERE, 10, 60)
        assert found is not None
        order.append(found)
        clock.now += 1
    assert [one.id for one in order] == ["a1", "b1", "c1", "a2"]
    assert await batches.turns(HERE, 10) == {"a": (2, 1), "b": (1, 0), "c": (1, 0)}

    await batches.save_batch(order[1], "g", None)
    await batches.save_batch(order[0], "g", None)
    again = [await batches.claim("g", HERE, 10, 60) for _ in range(3)]
    # The key without a claim is first; of one key, the batch that has waited longest since it was given back.
    assert [one.id for one in again if one] == ["b1", "a3", "a1"]


async def test_a_gateway_does_not_take_up_what_it_is_working_on(batches: SqlBatches, clock: _Clock) -> None:
    await batches.add_batch(batch("mine"), MOST)
    assert await batches.claim("g", HERE, 10, 60)
    clock.now = 200  # the clock was set
    await batches.add_batch(batch("next", 2.0), MOST)
    found = await batches.claim("g", HERE, 200, 60, {"mine"})
    assert found is not None
    assert found.id == "next"
    assert await batches.claim("g", HERE, 200, 60, {"mine", "next"}) is None


async def test_ends_of_gateways_that_did_not_give_a_batch_back_are_counted(
    batches: SqlBatches, clock: _Clock
) -> None:
    await batches.add_batch(batch("one"), MOST)
    first = await batches.claim("a", HERE, 10, 60)
    assert first is not None
    await batches.save_batch(msgspec.structs.replace(first, record=1), "a", 60)
    await batches.end_claims()
    second = await batches.claim("b", HERE, 10, 60)
    assert second is not None
    assert (second.unclean, second.record) == (1, 0)
    clock.now = 71
    third = await batches.claim("c", HERE, 71, 60)
    assert third is not None
    assert (third.unclean, third.run) == (2, 3)
    await batches.save_batch(msgspec.structs.replace(third, unclean=0, record=3), "c", None)
    fourth = await batches.claim("d", HERE, 71, 60)
    assert fourth is not None
    assert (fourth.unclean, fourth.record) == (0, 3)


async def test_a_key_has_a_maximum_of_unfinished_batches(batches: SqlBatches) -> None:
    assert await batches.add_batch(batch("done", status=BatchStatus.COMPLETED), 2)
    assert await batches.add_batch(batch("one"), 2)
    assert await batches.add_batch(batch("two"), 2)
    assert not await batches.add_batch(batch("three"), 2)
    assert await batches.add_batch(batch("other", key="k2"), 2)
