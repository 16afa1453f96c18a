"""The vectors that outlive the process: `hubgate.domain.ports.VectorCache` on disk.

A file of its own, so that nothing done to it touches the registry. It is a help, not a need: whatever is wrong with it
is logged once, and vectors are computed as if it were not there. A damaged file is thrown away and begun anew.
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

_MOST_WAITING = 32 * 1024 * 1024
"""Bytes of vectors that may wait to be written; what comes on top is not kept on disk."""
_BATCH_BYTES = 256 * 1024
"""Bytes written in one go, some 8 ms: reads come between two batches."""
PATIENCE = 0.2
"""Seconds to wait for another program that writes to the file, for readers wait as long."""

_RESERVE_BYTES = 64 * 1024 * 1024
"""Of the disk, or a tenth of a small one, that the cache leaves to the database."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class DiskVectorCache:
    """Vectors on disk, at most `most_bytes` of them; those unused for longest make room, approximately.

    One thread does all reading and writing. `put_many` returns before anything is written: a killed process loses what
    was still waiting. Nothing here fails a call. Once it has learned which keys the file holds it asks for no others, so
    what another process adds is found after the next start only.

    Args:
        path: the file; made, with its folder, when it is first needed.
        most_bytes: what the file may grow to, but for a log of a few MiB beside it while it is open.
        most_waiting: bytes of vectors that may wait to be written.
        patience: seconds to wait for another program that writes to the file.
    """

    def __init__(
        self, path: Path, most_bytes: int, *, most_waiting: int = _MOST_WAITING, patience: float = PATIENCE
    ) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._most_waiting = most_waiting
        self._table = VectorTable(path, most_bytes, patience=patience)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hubgate-vectors")
        self._told: set[str] = set()
        self._waiting: dict[bytes, CachedVector] = {}
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._learner: asyncio.Task[None] | None = None
        self._hits = self._misses = self._dropped = 0

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        """Those that are remembered."""
        found = {key: self._waiting[key] for key in keys if key in self._waiting}
        if self._learner is None:
            self._learner = asyncio.create_task(self._learn())
        wanted = [key for key in keys if key not in found and self._table.may_hold(key)]
        if wanted:
            nothing: dict[bytes, CachedVector] = {}
            found |= await self._do("read", partial(self._table.read, wanted), nothing)
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    async def put_many(self, vectors: Mapping[bytes, CachedVector]) -> None:
        """Remember these, as far as they can be written in time."""
        for key, vector in vectors.items():
            if key in self._waiting:
                continue
            if self._waiting_bytes + len(vector.vector) > self._most_waiting:
                self._dropped += 1
                continue
            self._waiting[key] = vector
            self._waiting_bytes += len(vector.vector)
        if self._waiting and self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def stats(self) -> Mapping[str, int]:
        """What the file holds, and how often it helped since the gate started.

        `hits` and `misses` count texts that were not found in memory before; `dropped` counts vectors that came faster
        than they could be written.
        """
        entries, size = await self._do("read", self._table.measure, (0, 0))
        return {
            "entries": entries,
            "bytes": size,
            "most_bytes": self._most_bytes,
            "hits": self._hits,
            "misses": self._misses,
            "dropped": self._dropped,
        }

    async def clear(self) -> None:
        """Forget everything.

        Raises:
            StoreFailed: the file cannot be deleted.
        """
        self._waiting.clear()
        self._waiting_bytes = 0
        try:
            await self._in_thread(self._table.remove)
        except OSError as error:
            raise StoreFailed(
                f"The vector cache {self._path} cannot be deleted: {error.strerror}.",
                remedy="Give the gate's user the right to write to its folder.",
            ) from error

    async def free_space(self) -> None:
        """Free the disk for what is more important; nothing is written until there is room again."""
        if not await self._in_thread(self._path.exists):
            return
        with contextlib.suppress(StoreFailed):
            await self.clear()
        _log.warning("the vector cache %s was emptied, because the disk is full", self._path)

    async def flush(self) -> None:
        """Return when nothing waits to be written any more."""
        if self._writer:
            await self._writer

    async def close(self) -> None:
        """Write what is waiting, and let go. Nothing may be asked afterwards."""
        if self._learner:
            self._learner.cancel()
        await self.flush()
        await self._in_thread(self._table.close)
        self._thread.shutdown()

    async def _learn(self) -> None:
        """Learn which keys are in the file, so that it need not be asked for new texts."""
        while await self._do("read", self._table.learn, otherwise=False):
            pass

    async def _write(self) -> None:
        """Write batch after batch until nothing waits; a batch can be read from memory until it is written."""
        try:
            while batch := self._next_batch():
                await self._do("written", partial(self._write_batch, batch), None)
                for key, vector in batch.items():
                    if self._waiting.get(key) is vector:  # the cache was not cleared meanwhile
                        del self._waiting[key]
                        self._waiting_bytes -= len(vector.vector)
        finally:
            self._writer = None

    def _write_batch(self, batch: Mapping[bytes, CachedVector]) -> None:
        """Write a batch, unless the disk has no more than the reserve left; of less than half of it, free the file."""
        create_private_folder(self._path.parent)
        disk = shutil.disk_usage(self._path.parent)
        reserve = min(_RESERVE_BYTES, disk.total // 10)
        if disk.free >= reserve + 2 * LOG_BYTES:  # its log, and what moves from there into the file
            self._table.write(batch)
            return
        if disk.free < reserve // 2:
            self._table.remove()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _next_batch(self) -> dict[bytes, CachedVector]:
        batch: dict[bytes, CachedVector] = {}
        room = min(_BATCH_BYTES, self._most_bytes // 8)
        for key, vector in self._waiting.items():
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
        self._told.discard(what)
        return done

    def _recover(self, what: str, error: Exception) -> None:
        """Make the next attempt start from a closed file, or from none if this one is beyond repair."""
        self._table.close()
        explained = sqlite.explain(error)
        why = explained[0] if explained else f"cannot be {what} ({error})"
        if is_beyond_repair(error):
            try:
                self._table.remove()
            except OSError as stuck:
                why += f" and cannot be deleted ({stuck.strerror})"
            else:
                _log.warning("the vector cache %s %s; it starts anew", self._path, why)
                return
        if what not in self._told:
            self._told.add(what)
            _log.warning(
                "the vector cache %s %s; the gate works without it until that is mended", self._path, why
            )
