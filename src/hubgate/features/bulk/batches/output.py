"""The output and the error file of a batch, written from its record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hubgate.features.bulk.batches.files import Files
from hubgate.features.bulk.batches.model import Batch, Purpose, StoredFile
from hubgate.features.bulk.batches.record import Record
from hubgate.features.bulk.batches.rows import read_rows
from hubgate.features.bulk.batches.store import SqlBatches


def output_file(batch: Batch) -> str:
    """The id of its output file, which is the same in all runs, so that a killed gateway leaves no file behind."""
    return f"file-{batch.id.removeprefix('batch_')}o"


def _error_file(batch: Batch) -> str:
    return f"file-{batch.id.removeprefix('batch_')}e"


async def write_output(
    store: SqlBatches,
    files: Files,
    batch: Batch,
    record: Record,
    *,
    missing: tuple[str, str] | None,
    max_row_bytes: int,
    clock: Callable[[], float],
) -> tuple[str | None, str | None]:
    """Write and register both files; returns their ids, `None` for one that would be empty.

    Args:
        store: where they are registered.
        files: where they are.
        batch: whose requests were answered.
        record: the answers.
        missing: code and message for requests without an answer.
        max_row_bytes: of one request.
        clock: seconds since the epoch.

    Raises:
        OSError: a file cannot be read or written.
        StoreFailed: the database cannot be used.
    """
    output, errors = output_file(batch), _error_file(batch)
    path = await asyncio.to_thread(files.folder.fetch, batch.input_file)
    sizes = await asyncio.to_thread(
        record.write,
        read_rows(path, max_row_bytes),
        files.folder.path(output),
        files.folder.path(errors),
        missing,
        batch.id,
    )

    async def keep(file_id: str, name: str, size: int) -> str | None:
        if not size:
            await asyncio.to_thread(files.folder.remove, file_id)
            return None
        await asyncio.to_thread(files.folder.publish, file_id)
        now = clock()
        await store.add_file(
            StoredFile(
                id=file_id,
                key=batch.key,
                folder=batch.folder,
                name=f"{batch.id}_{name}.jsonl",
                purpose=Purpose.BATCH_OUTPUT,
                size=size,
                created_at=now,
                expires_at=now + files.life(batch.output_seconds),
            )
        )
        files.room.add(batch.key, size)
        return file_id

    return await keep(output, "output", sizes[0]), await keep(errors, "errors", sizes[1])
