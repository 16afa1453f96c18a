"""How much room the files take, in all and of each key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hubgate.domain.errors import CapacityError, Cause, FilesFull, FolderFull, HubgateError, StoreFailed
from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.model import Held
from hubgate.features.bulk.batches.store import SqlBatches

MAX_FILES = 10_000
"""Of one key: as many as one page of its list shows."""
_MEASURE_SECONDS = 60.0
_RETRY_SECONDS = 30.0
_DELETE = "Delete files that you no longer need (DELETE /v1/files/{file_id})"


class _Growing(NamedTuple):
    """An upload in progress, or the answers of a running batch."""

    key: str
    bytes: int


class Room:
    """The room in the folder for files. Used on one event loop.

    The sums are kept in memory, and measured again once a minute for what other gateways wrote. Bytes are counted before
    they are written, so concurrent uploads stay within the limits together.

    Args:
        store: where the sizes and keys of files are.
        folder: what is measured.
        total_bytes: of all files.
        key_bytes: of the files of one key.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        store: SqlBatches,
        folder: FilesFolder,
        *,
        total_bytes: int,
        key_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._folder = folder
        self.total_bytes = total_bytes
        self.key_bytes = key_bytes
        self._clock = clock
        self._measured_at: float | None = None
        self._measuring = asyncio.Lock()
        self._bytes = 0
        """In the folder, without uploads in progress."""
        self._keys: dict[str, Held] = {}
        """Complete files by key."""
        self._unseen: list[tuple[str, Held]] = []
        """Added since the measurement in progress began, which may not have seen them."""
        self._unseen_bytes = 0
        """Likewise, of records."""
        self._uploads: dict[str, _Growing] = {}
        """By the name of the draft."""
        self._records: dict[str, _Growing] = {}
        """By batch. They are in the folder; their output becomes files of the key."""

    async def measure(self) -> None:
        """Measure the sums, unless they are less than a minute old.

        Raises:
            StoreFailed: the database cannot be used, and nothing was measured before.
            OSError: the folder cannot be read, and nothing was measured before.
        """
        if self._is_measured():
            return
        async with self._measuring:
            if self._is_measured():
                return
            self._unseen, self._unseen_bytes = [], 0
            drafts = frozenset(self._uploads)
            try:
                folder_id = await asyncio.to_thread(self._folder.open)
                keys = dict(await self._store.held(folder_id))
                size = await asyncio.to_thread(self._folder.measure, drafts)
            except (StoreFailed, OSError):
                if self._measured_at is None:
                    raise
            else:
                self._keys, self._bytes = keys, size + self._unseen_bytes
                for key, held in self._unseen:
                    self._add(key, held)
            self._measured_at = self._clock()

    async def report(self) -> tuple[int, Mapping[str, Held]]:
        """The bytes in the folder, and what each key holds of them."""
        await self.measure()
        growing = [*self._uploads.values(), *self._records.values()]
        keys = {key: self._held(key) for key in {*self._keys, *(one.key for one in growing)}}
        return self._used(), {key: held for key, held in keys.items() if held.files or held.bytes}

    async def begin(self, draft: str, key: str) -> None:
        """Begin an upload.

        Raises:
            FilesFull: the key has the most files that it may have.
            StoreFailed, OSError: see `measure`.
        """
        await self.measure()
        if self._held(key).files >= MAX_FILES:
            raise FilesFull(f"The key has {MAX_FILES} files, the most it may have.", remedy=f"{_DELETE}.")
        self._uploads[draft] = _Growing(key, 0)

    async def take(self, draft: str, count: int) -> None:
        """Take the bytes that an upload is about to write.

        Raises:
            FilesFull: the share of the key is full.
            FolderFull: the folder is full.
            CapacityError: it is full until other uploads have ended.
        """
        await self.measure()
        upload = self._uploads[draft]
        if fault := self._fault(upload.key, count, own=upload.bytes):
            raise fault
        self._uploads[draft] = _Growing(upload.key, upload.bytes + count)

    def end(self, draft: str) -> None:
        """The upload is a file now, or was discarded."""
        self._uploads.pop(draft, None)

    def add(self, key: str, size: int) -> None:
        """Count a complete file."""
        held = Held(1, size)
        self._add(key, held)
        self._unseen.append((key, held))

    def remove(self, key: str, size: int) -> None:
        """Count a deleted file no more."""
        before = self._keys.get(key, Held(0, 0))
        self._keys[key] = Held(max(0, before.files - 1), max(0, before.bytes - size))
        self._bytes = max(0, self._bytes - size)

    async def grow(self, batch: str, key: str, size: int, count: int) -> str:
        """Take the bytes that are about to be appended to the record of a batch.

        Args:
            batch: its id.
            key: whose files the output will be.
            size: of the record now.
            count: how many bytes follow.

        Returns:
            Why there is no room; an empty string if there was, and the bytes are counted now.

        Raises:
            StoreFailed, OSError: see `measure`.
        """
        await self.measure()
        self._records[batch] = _Growing(key, size)
        # The output is written from the record, which is deleted after that.
        if fault := self._fault(key, count, output=size):
            return fault.message
        self._records[batch] = _Growing(key, size + count)
        self._bytes += count
        self._unseen_bytes += count
        return ""

    def shrink(self, batch: str, count: int) -> None:
        """Give back what `grow` took: it was not written."""
        key, size = self._records[batch]
        self._records[batch] = _Growing(key, size - count)
        self._bytes -= count

    def close(self, batch: str) -> None:
        """The run of a batch has ended."""
        self._records.pop(batch, None)

    def drop(self, size: int) -> None:
        """The record of a batch was deleted."""
        self._bytes = max(0, self._bytes - size)

    def _is_measured(self) -> bool:
        return self._measured_at is not None and self._clock() - self._measured_at < _MEASURE_SECONDS

    def _add(self, key: str, held: Held) -> None:
        before = self._keys.get(key, Held(0, 0))
        self._keys[key] = Held(before.files + held.files, before.bytes + held.bytes)
        self._bytes += held.bytes

    def _used(self) -> int:
        return self._bytes + sum(upload.bytes for upload in self._uploads.values())

    def _held(self, key: str) -> Held:
        files, size = self._keys.get(key, Held(0, 0))
        uploads = [upload.bytes for upload in self._uploads.values() if upload.key == key]
        records = [record.bytes for record in self._records.values() if record.key == key]
        return Held(files + len(uploads), size + sum(uploads) + sum(records))

    def _fault(self, key: str, count: int, *, own: int = 0, output: int = 0) -> HubgateError | None:
        """Why a key cannot have more bytes, or `None`."""
        held = self._held(key)
        if held.bytes + count > self.key_bytes:
            return FilesFull(
                f"The files of the key would take more than its share of {self.key_bytes} bytes.",
                remedy=f"{_DELETE}, or ask the operator to raise HUBGATE_FILES_KEY_BYTES.",
            )
        if self._used() + output + count <= self.total_bytes:
            return None
        if self._bytes + own + output + count <= self.total_bytes:
            return CapacityError(
                "The folder for files is full while other uploads are in progress.",
                remedy="Retry later.",
                cause=Cause.FILES_FULL,
                retry_after=_RETRY_SECONDS,
            )
        return FolderFull(
            "The folder for files is full.",
            remedy=f"{_DELETE}, or ask the operator to raise HUBGATE_FILES_TOTAL_BYTES or to delete files of others:"
            " `hubgate files` shows which keys hold the room.",
        )
