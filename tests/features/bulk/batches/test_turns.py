"""A batch gives its place back to others, and goes on later where it was."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from batch_files import batch_input, texts

from hubgate.domain.records import Key
from hubgate.features.bulk.batches.files import Files
from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.model import Batch, BatchStatus, Turns
from hubgate.features.bulk.batches.room import Room
from hubgate.features.bulk.batches.run import BatchRun, Parts
from hubgate.features.bulk.batches.store import SqlBatches
from hubgate.features.bulk.batches.turns import Patience, leavers
from hubgate.store.store import SqlStore
from hubgate.web.http.internal import RowReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hubgate.settings import Settings

ROWS = 5
PATIENCE = Patience(idle=30, turn=300)


class _Model:
    """Answers all requests but the first, until it is enabled."""

    def __init__(self) -> None:
        self.enabled = False
        self.answered: list[str] = []
        self.refused = asyncio.Event()

    async def __call__(self, key: Key, path: str, body: bytes, request_id: str) -> RowReply:
        text: str = msgspec.json.decode(body)["input"]
        if text.endswith(" 0") and not self.enabled:
            self.refused.set()
            return RowReply(424, b'{"error": {"message": "It is disabled."}}', "disabled", None)
        self.answered.append(text)
        return RowReply(200, b"{}", "ok", None)


def _batch(key: str = "k1") -> Batch:
    return Batch(
        id=f"batch_{key}",
        key=key,
        folder="",
        path="/v1/embeddings",
        input_file="file-in",
        window="24h",
        created_at=1.0,
        expires_at=time.time() + 1000,
    )


@pytest.fixture
def model() -> _Model:
    return _Model()


@pytest.fixture
async def parts(settings: Settings, tmp_path: Path, model: _Model) -> AsyncIterator[Parts]:
    store = await SqlStore.open(settings)
    folder = FilesFolder(tmp_path / "files")
    room = Room(SqlBatches(store.database), folder, total_bytes=1 << 30, key_bytes=1 << 30)
    files = Files(SqlBatches(store.database), folder, room, max_bytes=1 << 20, days=1)
    await files.folder_id()
    files.folder.path("file-in").write_bytes(batch_input(texts(ROWS)))
    yield Parts(
        store=SqlBatches(store.database),
        files=files,
        call=model,
        find_key=lambda key: Key(id=key, name=key, digest=b"", created_at=0.0),
        clock=time.time,
        max_row_bytes=1 << 20,
        notify=False,
    )
    await store.close()


async def test_a_batch_that_gave_its_place_back_continues_with_the_same_files(
    parts: Parts, model: _Model
) -> None:
    folder = await parts.files.folder_id()
    await parts.store.add_batch(msgspec.structs.replace(_batch(), folder=folder), 1)
    for _ in range(3):
        batch = await parts.store.claim("me", folder, 0, 60)
        assert batch is not None
        run = BatchRun(parts, batch, "me")
        work = asyncio.create_task(run.work())
        await model.refused.wait()
        run.leave()
        await work
        assert run.batch.status is BatchStatus.IN_PROGRESS
        await parts.store.save_batch(run.batch, "me", None)
        model.refused.clear()
    assert len(parts.files.folder.parts("batch_k1")) == 2

    model.enabled = True
    batch = await parts.store.claim("me", folder, 0, 60)
    assert batch is not None
    assert batch.run == 4
    run = BatchRun(parts, batch, "me")
    await run.work()
    assert (run.batch.status, run.batch.completed) == (BatchStatus.COMPLETED, ROWS)
    assert sorted(model.answered) == sorted(set(model.answered))
    assert parts.files.folder.path("file-k1o").read_bytes().count(b"\n") == ROWS


@pytest.mark.parametrize(
    ("turns", "idle", "seconds", "leaving"),
    [
        pytest.param({"a": Turns(1, 0), "b": Turns(1, 0)}, 99, 999, [], id="nobody waits"),
        pytest.param({"a": Turns(1, 1), "b": Turns(1, 0)}, 1, 999, [], id="only keys that have a place wait"),
        pytest.param(
            {"a": Turns(1, 1), "b": Turns(1, 0)}, 31, 40, ["a"], id="one waits, and others only wait, too"
        ),
        pytest.param(
            {"a": Turns(1, 0), "b": Turns(1, 0), "c": Turns(0, 9)}, 1, 40, [], id="they are in their turn"
        ),
        pytest.param(
            {"a": Turns(1, 0), "b": Turns(1, 0), "c": Turns(0, 9)}, 1, 301, ["a"], id="a turn is over"
        ),
        pytest.param(
            {"a": Turns(1, 0), "b": Turns(2, 0), "c": Turns(0, 1)}, 1, 40, ["b"], id="a key has two"
        ),
    ],
)
async def test_who_gives_a_place_back(
    parts: Parts, turns: dict[str, Turns], idle: float, seconds: float, leaving: list[str]
) -> None:
    runs = [BatchRun(parts, _batch(key), "me") for key in ("a", "b")]
    now = time.monotonic()
    for number, run in enumerate(runs):
        run.began_at, run.answered_at = now - seconds + number, now - idle
    assert [run.batch.key for run in leavers(runs, turns, PATIENCE, now)] == leaving
    for run in leavers(runs, turns, PATIENCE, now):
        run.leave()
    assert not leavers(runs, turns, PATIENCE, now)
