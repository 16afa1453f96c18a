"""The vector cache on disk, which survives a restart.

It is a folder of its own, so that it cannot harm the database. No failure of it fails a call: it is logged once, and
vectors are computed as without a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from hubgate.core.results import cache_entries
from hubgate.domain.calls import CachedVector, FreshVectors
from hubgate.domain.errors import StoreFailed
from hubgate.store.vectors.log import VectorLog

_MAX_PENDING_BYTES = 32 * 1024 * 1024
"""While as many bytes of vectors wait to be written, further ones are dropped."""
_BATCH_BYTES = 1024 * 1024
"""Bytes written at once, which takes about 2 ms: other work comes between two batches."""
_GATHER_SECONDS = 0.05
"""For which vectors are gathered before they are written: to wake the thread costs as much as to write several."""
_MAX_AT_ONCE = 128
"""Vectors of a lookup that are read outside the thread, which takes about 4 µs each."""
_OVERHEAD = 64
"""Bytes of a vector on disk besides its numbers, at most."""
_RESERVE_BYTES = 64 * 1024 * 1024
"""Of free disk space (or a tenth of a small disk) that the cache leaves to the database."""
_CHECKS = 8
"""How often the free space is checked while as many bytes as the reserve are written."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class DiskVectorCache:
    """Vectors on disk. Approximately those unused for longest are evicted.

    What the operating system has in memory is read at once; one thread does all other reading and all writing.
    `put` returns before anything is written, so a killed process loses what was pending: the vectors of the last
    moment, or more if they come faster than they can be written.

    Args:
        folder: created with its parents on first use. One process may use it.
        max_bytes: of all files in it.
        max_pending_bytes: of vectors that wait to be written, beyond which further ones are dropped.
    """

    place = "disk"

    def __init__(self, folder: Path, max_bytes: int, *, max_pending_bytes: int = _MAX_PENDING_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_pending_bytes = max_pending_bytes
        self._log = VectorLog(folder, max_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hubgate-vectors")
        self._logged: set[str] = set()
        self._gathered, self._writing = _Pending(), _Pending()
        self._room = 0
        """Bytes that may be written before the disk is checked again."""
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Until writing begins."""
        self._loading: asyncio.Task[None] | None = None
        self._hits = self._misses = self._dropped = 0

    def load(self) -> None:
        """Begin to read the index, so that the first lookup does not wait for it."""
        self._loading = self._loading or asyncio.create_task(self._load_steps())

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        if not self._log.is_loaded:
            await self._loaded()
        found = self._pending(keys)
        places = self._log.find([key for key in keys if key not in found] if found else keys)
        if places:
            at_once, rest = self._log.read_at_once(places) if len(places) <= _MAX_AT_ONCE else ({}, places)
            found |= at_once
            if rest:
                nothing: dict[bytes, CachedVector] = {}
                found |= await self._do("read", partial(self._log.read, rest), nothing)
                found |= self._pending(keys)  # others may have been put meanwhile
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    def _pending(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Those vectors that are not written yet."""
        return self._writing.find(keys) | self._gathered.find(keys)

    @property
    def _is_full(self) -> bool:
        """Whether too many vectors are pending."""
        return self._writing.bytes + self._gathered.bytes >= self._max_pending_bytes

    def put(self, fresh: FreshVectors) -> None:
        """Store vectors, unless too many are pending."""
        if self._is_full:
            self._dropped += len(fresh.keys)
            return
        self._gathered.add(fresh)
        if self._timer is None:
            self._write_soon()

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def is_near(self) -> bool:
        """`True` unless the folder cannot be used, or too many vectors are pending."""
        return self._log.is_loaded and not self._logged and not self._is_full

    @property
    def counts(self) -> Mapping[str, int]:
        """`dropped` vectors came faster than they could be written."""
        return {"hits": self._hits, "misses": self._misses, "dropped": self._dropped}

    async def stats(self) -> Mapping[str, int]:
        """What it has, and how often it helped since hubgate started."""
        await self._loaded()
        entries, size = self._log.measure()
        return {
            "entries": entries,
            "bytes": size,
            "most_bytes": self._max_bytes,
            **self.counts,
        }

    async def clear(self) -> None:
        """Delete all vectors.

        Raises:
            StoreFailed: they cannot be deleted.
        """
        self._gathered, self._writing = _Pending(), _Pending()
        try:
            await self._in_thread(self._log.remove)
        except OSError as error:
            raise StoreFailed(
                f"The vector cache {self._folder} cannot be deleted: {error.strerror or error}.",
                remedy="Give hubgate's user the right to write to its folder.",
            ) from error

    async def free_space(self) -> None:
        """Delete all vectors because the disk is full. Nothing is written until there is room again."""
        if not await self._in_thread(self._folder.exists):
            return
        with contextlib.suppress(StoreFailed):
            await self.clear()
        _log.warning("the vector cache %s was emptied, because the disk is full", self._folder)

    async def flush(self) -> None:
        """Wait until everything pending is written."""
        while self._timer or self._writer:
            await asyncio.wait({self._begin_writing()})

    async def close(self) -> None:
        """Write what is pending and close the files for good."""
        await self.flush()
        if self._loading:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        await self._in_thread(self._log.close)
        self._thread.shutdown()

    async def _loaded(self) -> None:
        """Wait until the index is in memory, which several callers may do."""
        if not self._log.is_loaded:
            self.load()
            if self._loading:
                await asyncio.shield(self._loading)

    async def _load_steps(self) -> None:
        try:
            while await self._do("read", self._log.load, otherwise=False):
                pass
        finally:
            self._loading = None

    def _write_soon(self) -> None:
        if self._gathered.bytes and self._writer is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._begin_writing)

    def _begin_writing(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._writer = self._writer or asyncio.create_task(self._write())
        return self._writer

    async def _write(self) -> None:
        """Write what is pending. Vectors can be read from memory until they are written."""
        try:
            await self._loaded()
            while self._gathered.bytes:
                writing, self._gathered = self._gathered, _Pending()
                self._writing = writing
                steps = self._write_steps(writing)
                while writing is self._writing:  # it may be cleared meanwhile
                    written = await self._in_thread(partial(next, steps, None))
                    if written is None:
                        self._writing = _Pending()
                    else:
                        writing.bytes -= written
                if self._gathered.bytes < _BATCH_BYTES:
                    break
        finally:
            self._writer = None
        self._write_soon()

    def _write_steps(self, pending: _Pending) -> Iterator[int]:
        """Each step writes a batch, and yields its bytes, or makes some of the room that it needs."""
        for batch, size in self._batches(pending):
            write = partial(self._write_or_evict, batch, size + _OVERHEAD * len(batch))
            while not self._attempt("written", write, otherwise=True):
                yield 0
            yield size

    def _write_or_evict(self, batch: Mapping[bytes, CachedVector], needed: int) -> bool:
        """Write a batch, or make some of the room that it needs; returns whether it is written."""
        if self._log.evict(needed):
            return False
        while self._log.load():  # it was deleted, or could not be opened
            pass
        if self._room < needed:
            self._room = self._check_disk(needed)
        self._room -= needed
        self._log.write(batch)
        return True

    def _check_disk(self, needed: int) -> int:
        """How much may be written before the next check. With less than half of the reserve, delete everything.

        Raises:
            OSError: without the bytes `needed`, less than the reserve would be free.
        """
        disk = shutil.disk_usage(self._folder)
        reserve = min(_RESERVE_BYTES, disk.total // 10)
        available = disk.free - reserve
        if available >= needed:
            return max(needed, min(available, reserve // _CHECKS))
        if disk.free < reserve // 2:
            self._log.remove()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _batches(self, pending: _Pending) -> Iterator[tuple[dict[bytes, CachedVector], int]]:
        """Parts of the vectors, and the bytes of each part."""
        most = min(_BATCH_BYTES, self._max_bytes // 8)
        batch: dict[bytes, CachedVector] = {}
        size = 0
        for fresh in pending.all():
            for key, vector in cache_entries(fresh).items():
                batch[key] = vector
                size += len(vector.vector)
                if size >= most:
                    yield batch, size
                    batch, size = {}, 0
        if batch:
            yield batch, size

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
        """Log it, and open the folder again if that may help."""
        if not self._log.is_loaded or isinstance(error, FileNotFoundError):
            self._log.close()
        if what not in self._logged:
            self._logged.add(what)
            _log.warning(
                "the vector cache %s cannot be %s (%s); hubgate works without it until this is fixed",
                self._folder,
                what,
                error,
            )


class _Pending:
    """Vectors that are to be written."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, FreshVectors] = {}
        self.bytes = 0
        """Of all vectors, less what is written."""

    def add(self, fresh: FreshVectors) -> None:
        self._by_key.update(dict.fromkeys(fresh.keys, fresh))
        self.bytes += sum(map(len, fresh.vectors.items))

    def all(self) -> Iterable[FreshVectors]:
        return dict.fromkeys(self._by_key.values())

    def find(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """The vectors of those keys that it has."""
        by_key = self._by_key
        if by_key.keys().isdisjoint(keys):
            return {}
        return {key: cache_entries(by_key[key])[key] for key in keys if key in by_key}
