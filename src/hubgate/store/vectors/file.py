"""The vector cache on disk, which survives a restart.

It is a file of its own, so that it cannot harm the database. No failure of it fails a call: it is logged once, and
vectors are computed as without a cache. A damaged file is deleted and created again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from hubgate.domain.calls import CachedVector
from hubgate.domain.errors import StoreFailed
from hubgate.files import create_private_folder
from hubgate.store import sqlite
from hubgate.store.vectors.table import LOG_BYTES, VectorTable, is_beyond_repair

_MAX_PENDING_BYTES = 32 * 1024 * 1024
"""Bytes of vectors that may wait to be written; further ones are dropped."""
_BATCH_BYTES = 256 * 1024
"""Bytes written at once, about 8 ms: lookups come between two batches."""
PATIENCE = 0.2
"""Seconds to wait for another program that writes to the file. Lookups wait as long."""

_RESERVE_BYTES = 64 * 1024 * 1024
"""Of free disk space (or a tenth of a small disk) that the cache leaves to the database."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class DiskVectorCache:
    """Vectors on disk. Approximately those unused for longest are evicted.

    One thread does all reading and writing. `put_many` returns before anything is written, so a killed process loses
    what was pending. Vectors that another process adds are found after the next start only.

    Args:
        path: the file; created with its folder on first use.
        max_bytes: maximum size of the file, without a log of a few MiB beside it while it is open.
        max_pending_bytes: of vectors that may wait to be written.
        patience: seconds to wait for another program that writes to the file.
    """

    place = "disk"

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        max_pending_bytes: int = _MAX_PENDING_BYTES,
        patience: float = PATIENCE,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_pending_bytes = max_pending_bytes
        self._table = VectorTable(path, max_bytes, patience=patience)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hubgate-vectors")
        self._logged: set[str] = set()
        self._pending: dict[bytes, CachedVector] = {}
        self._pending_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._filter_task: asyncio.Task[None] | None = None
        self._hits = self._misses = self._dropped = 0

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        found = {key: self._pending[key] for key in keys if key in self._pending}
        if self._filter_task is None:
            self._filter_task = asyncio.create_task(self._fill_filter())
        wanted = [key for key in keys if key not in found and self._table.may_contain(key)]
        if wanted:
            nothing: dict[bytes, CachedVector] = {}
            found |= await self._do("read", partial(self._table.read, wanted), nothing)
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    async def put_many(self, vectors: Mapping[bytes, CachedVector]) -> None:
        """Store vectors, unless too many are pending."""
        for key, vector in vectors.items():
            if key in self._pending:
                continue
            if self._pending_bytes + len(vector.vector) > self._max_pending_bytes:
                self._dropped += 1
                continue
            self._pending[key] = vector
            self._pending_bytes += len(vector.vector)
        if self._pending and self._writer is None:
            self._writer = asyncio.create_task(self._write())

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def counts(self) -> Mapping[str, int]:
        """`dropped` vectors came faster than they could be written."""
        return {"hits": self._hits, "misses": self._misses, "dropped": self._dropped}

    async def stats(self) -> Mapping[str, int]:
        """The contents of the file, and how often it helped since hubgate started."""
        entries, size = await self._do("read", self._table.measure, (0, 0))
        return {
            "entries": entries,
            "bytes": size,
            "most_bytes": self._max_bytes,
            **self.counts,
        }

    async def clear(self) -> None:
        """Delete all vectors.

        Raises:
            StoreFailed: the file cannot be deleted.
        """
        self._pending.clear()
        self._pending_bytes = 0
        try:
            await self._in_thread(self._table.remove)
        except OSError as error:
            raise StoreFailed(
                f"The vector cache {self._path} cannot be deleted: {error.strerror}.",
                remedy="Give hubgate's user the right to write to its folder.",
            ) from error

    async def free_space(self) -> None:
        """Delete the file because the disk is full. Nothing is written until there is room again."""
        if not await self._in_thread(self._path.exists):
            return
        with contextlib.suppress(StoreFailed):
            await self.clear()
        _log.warning("the vector cache %s was emptied, because the disk is full", self._path)

    async def flush(self) -> None:
        """Wait until everything pending is written."""
        if self._writer:
            await self._writer

    async def close(self) -> None:
        """Write what is pending and close the file for good."""
        if self._filter_task:
            self._filter_task.cancel()
        await self.flush()
        await self._in_thread(self._table.close)
        self._thread.shutdown()

    async def _fill_filter(self) -> None:
        while await self._do("read", self._table.fill_filter, otherwise=False):
            pass

    async def _write(self) -> None:
        """Write until nothing is pending. Vectors can be read from memory until they are written."""
        try:
            while batch := self._next_batch():
                await self._do("written", partial(self._write_batch, batch), None)
                for key, vector in batch.items():
                    if self._pending.get(key) is vector:  # not cleared meanwhile
                        del self._pending[key]
                        self._pending_bytes -= len(vector.vector)
        finally:
            self._writer = None

    def _write_batch(self, batch: Mapping[bytes, CachedVector]) -> None:
        """Write a batch unless the free space is down to the reserve. With less than half of it, delete the file."""
        create_private_folder(self._path.parent)
        disk = shutil.disk_usage(self._path.parent)
        reserve = min(_RESERVE_BYTES, disk.total // 10)
        if disk.free >= reserve + 2 * LOG_BYTES:  # the log, and its contents once more in the file
            self._table.write(batch)
            return
        if disk.free < reserve // 2:
            self._table.remove()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _next_batch(self) -> dict[bytes, CachedVector]:
        batch: dict[bytes, CachedVector] = {}
        room = min(_BATCH_BYTES, self._max_bytes // 8)
        for key, vector in self._pending.items():
            room -= len(vector.vector)
            if batch and room < 0:
                break
            batch[key] = vector
        return batch

    async def _do(self, what: str, work: Callable[[], _T], otherwise: _T) -> _T:
        return await self._in_thread(partial(self._attempt, what, work, otherwise))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _attempt(self, what: str, work: Callable[[], _T], otherwise: _T) -> _T:
        try:
            done = work()
        except Exception as error:  # noqa: BLE001 - a batch that cannot be written must not hold up those behind it
            self._recover(what, error)
            return otherwise
        self._logged.discard(what)
        return done

    def _recover(self, what: str, error: Exception) -> None:
        """Close the file, or delete it if it is beyond repair, so that the next attempt starts afresh."""
        self._table.close()
        explained = sqlite.explain(error)
        why = explained[0] if explained else f"cannot be {what} ({error})"
        if is_beyond_repair(error):
            try:
                self._table.remove()
            except OSError as stuck:
                why += f" and cannot be deleted ({stuck.strerror})"
            else:
                _log.warning("the vector cache %s %s; a new one is created", self._path, why)
                return
        if what not in self._logged:
            self._logged.add(what)
            _log.warning(
                "the vector cache %s %s; hubgate works without it until this is fixed", self._path, why
            )
