"""Files that clients upload and batches write: the content in a folder, the rest in the database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from hubgate.core.off_loop import shielded
from hubgate.domain.errors import (
    BodyTooLarge,
    DiskFull,
    InUse,
    InvalidRequest,
    NotFound,
    StoreFailed,
)
from hubgate.domain.records import DAY, Key
from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.model import Held, Page, Purpose, StoredFile
from hubgate.features.bulk.batches.room import Room
from hubgate.features.bulk.batches.store import SqlBatches
from hubgate.files import flush_to_disk, sync_folder

MIN_LIFE, MAX_LIFE = 3600, 30 * DAY
"""Seconds for which a caller may have a file kept: OpenAI's bounds."""


class Files:
    """The files of all keys. Those of other keys do not exist for a caller, unless its key is an admin's.

    Args:
        store: where their names, sizes and owners are.
        folder: where their content is.
        room: how much room there is in it.
        max_bytes: of one uploaded file.
        days: how long a file is kept, unless its owner asks for less.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: SqlBatches,
        folder: FilesFolder,
        room: Room,
        *,
        max_bytes: int,
        days: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self.folder = folder
        self.room = room
        self.max_bytes = max_bytes
        self._seconds = days * DAY
        self._clock = clock
        self._folder_id: str | None = None

    async def folder_id(self) -> str:
        """The id of the folder; creates it.

        Raises:
            StoreFailed: it cannot be used.
        """
        if self._folder_id is None:
            try:
                self._folder_id = await asyncio.to_thread(self.folder.open)
            except OSError as error:
                raise _disk_error(error) from error
        return self._folder_id

    async def held(self) -> tuple[int, Sequence[tuple[str, Held]]]:
        """The bytes of all files, and what each key holds of them, most bytes first.

        Raises:
            StoreFailed: the folder or the database cannot be used.
        """
        try:
            used, keys = await self.room.report()
        except OSError as error:
            raise _disk_error(error) from error
        return used, sorted(keys.items(), key=lambda item: (-item[1].bytes, item[0]))

    async def upload(self, key: Key) -> Upload:
        """Begin an upload.

        Raises:
            FilesFull: the key has too many files.
            StoreFailed: the folder or the database cannot be used.
        """
        await self.folder_id()
        upload = Upload(self.folder, self.room, self.max_bytes)
        try:
            await self.room.begin(upload.draft.name, key.id)
        except OSError as error:
            raise _disk_error(error) from error
        return upload

    async def add(
        self, upload: Upload, key: Key, *, name: str, purpose: str | None, seconds: float | None
    ) -> StoredFile:
        """Keep what was uploaded.

        Raises:
            InvalidRequest: a value is not valid.
            StoreFailed: it cannot be stored.
        """
        if purpose != Purpose.BATCH:
            raise InvalidRequest(
                "[purpose] must be 'batch'.", remedy="hubgate stores files for batches only: see /v1/batches."
            )
        now = self._clock()
        file = StoredFile(
            id=f"file-{secrets.token_hex(16)}",
            key=key.id,
            folder=await self.folder_id(),
            name=name,
            purpose=Purpose.BATCH,
            size=upload.size,
            created_at=now,
            expires_at=now + self.life(seconds),
        )
        try:
            await upload.keep_as(file.id)
            await self._store.add_file(file)
        except BaseException:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.folder.remove, file.id)
            raise
        self.room.end(upload.draft.name)
        self.room.add(key.id, file.size)
        return file

    def life(self, seconds: float | None) -> float:
        """How many seconds a file is kept.

        Raises:
            InvalidRequest: the caller's wish is out of bounds.
        """
        if seconds is None:
            return self._seconds
        if not MIN_LIFE <= seconds <= MAX_LIFE:
            raise InvalidRequest(
                f"[expires_after.seconds] must be from {MIN_LIFE} to {MAX_LIFE}.",
                remedy="Omit it for the gateway's own limit.",
            )
        return min(seconds, self._seconds)

    async def find(self, key: Key, file_id: str) -> StoredFile:
        """A file of the caller. Raises: NotFound."""
        file = await self._store.file(file_id)
        if file is None or not may_see(key, file.key) or file.expires_at <= self._clock():
            raise NotFound(
                f"No file has the id [{file_id[:100]}].", remedy="GET /v1/files lists the files of your key."
            )
        return file

    async def list(self, key: Key, page: Page, purpose: str | None) -> Sequence[StoredFile]:
        return await self._store.files(
            page, self._clock(), key=None if key.admin else key.id, purpose=purpose
        )

    async def content(self, key: Key, file_id: str) -> tuple[StoredFile, Path]:
        """A file of the caller, and where its content is.

        Raises:
            NotFound: it does not exist, or its content was lost.
            StoreFailed: its content is in the folder of another gateway.
        """
        file = await self.find(key, file_id)
        if file.folder != await self.folder_id():
            raise StoreFailed(
                "The content of this file is in the folder of another gateway.",
                remedy="Ask that gateway, or ask the operator to set HUBGATE_FILES to one folder or object store for all gateways.",
            )
        try:
            path = await asyncio.to_thread(self.folder.fetch, file.id)
        except OSError as error:
            raise _disk_error(error) from error
        if not path.exists():
            raise NotFound("The content of this file was lost.", remedy="Upload it again.")
        return file, path

    async def delete(self, key: Key, file_id: str) -> None:
        """Delete a file of the caller.

        Raises:
            NotFound: it does not exist.
            InUse: an unfinished batch reads it.
        """
        file = await self.find(key, file_id)
        if batch := await self._store.unfinished_input(file.id):
            raise InUse(
                f"The batch [{batch}] reads this file.",
                remedy="Cancel the batch, or wait until it has ended.",
            )
        await self._remove(file)

    async def clean(self) -> None:
        """Delete files that have expired, and what is left of broken uploads."""
        folder = await self.folder_id()
        await asyncio.to_thread(self.folder.clean)
        expired = await self._store.expired_files(folder, self._clock())
        for file in expired:  # all of them first: the database may have no room until they are gone
            await asyncio.to_thread(self.folder.remove, file.id)
        for file in expired:
            await self._store.remove_file(file.id)
            self.room.remove(file.key, file.size)

    async def _remove(self, file: StoredFile) -> None:
        is_here = file.folder == await self.folder_id()
        if is_here:  # first, because it makes room for the change of the database
            await asyncio.to_thread(self.folder.remove, file.id)
        await self._store.remove_file(file.id)
        if is_here:
            self.room.remove(file.key, file.size)


class Upload:
    """A file that is being received. It ends with `keep_as` or `discard`.

    A cancelled caller waits for the thread that writes, so that `discard` finds all that was written.
    """

    def __init__(self, folder: FilesFolder, room: Room, max_bytes: int) -> None:
        self._folder = folder
        self._room = room
        self._max_bytes = max_bytes
        self.draft = folder.draft()
        self._file: BinaryIO | None = None
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Append to the file.

        Raises:
            BodyTooLarge: it is larger than allowed.
            FilesFull, CapacityError: there is no room; see `Room.take`.
            StoreFailed: the disk cannot be written.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise BodyTooLarge(
                f"The file is larger than {self._max_bytes} bytes.",
                remedy="Split it, or ask the operator to raise HUBGATE_FILES_MAX_BYTES.",
            )
        try:
            await self._room.take(self.draft.name, len(data))
            await shielded(asyncio.to_thread(self._write, data))
        except OSError as error:
            raise _disk_error(error) from error

    async def keep_as(self, file_id: str) -> None:
        """Make it a file of the folder. Raises: StoreFailed."""
        try:
            await shielded(asyncio.to_thread(self._keep, file_id))
        except OSError as error:
            raise _disk_error(error) from error

    async def discard(self) -> None:
        """Delete what was received, unless it was kept."""
        try:
            await shielded(asyncio.to_thread(self._discard))
        finally:
            self._room.end(self.draft.name)

    def _write(self, data: bytes) -> None:
        self._open().write(data)

    def _open(self) -> BinaryIO:
        if self._file is None:
            self._file = open(self.draft, "xb", opener=partial(os.open, mode=0o600))  # noqa: SIM115 - see `_discard`
        return self._file

    def _keep(self, file_id: str) -> None:
        file, path = self._open(), self._folder.path(file_id)  # an empty file has no data
        flush_to_disk(file)
        file.close()
        self.draft.replace(path)
        sync_folder(path.parent)
        self._folder.publish(file_id)

    def _discard(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk, `close` fails like the write before it
                self._file.close()
            self.draft.unlink(missing_ok=True)


def may_see(key: Key, owner: str) -> bool:
    """Whether a caller may see what belongs to the key with the id `owner`."""
    return key.admin or key.id == owner


def _disk_error(error: OSError) -> StoreFailed:
    return DiskFull(
        f"The folder for files cannot be used: {error.strerror or 'unknown error'}.",
        remedy="Ask the operator to look at HUBGATE_FILES.",
    )
