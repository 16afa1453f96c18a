"""The vector cache that gateways share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Any

from hubgate.core.results import cache_entries
from hubgate.core.traffic.outage import PAUSE_SECONDS, Outage
from hubgate.domain.errors import StoreFailed
from hubgate.store.valkey.connection import KEY_PREFIX, ValkeyConnection
from hubgate.store.vectors.record import read_record, records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubgate.domain.calls import CachedVector, FreshVectors

_GENERATION = KEY_PREFIX + b"vectors"
_KEPT_SECONDS = 30 * 24 * 3600
_READ_SECONDS = 0.02
"""Computing a vector again takes about as long."""
_WRITE_SECONDS = 1.0
_MAX_PENDING_BYTES = 32 * 1024 * 1024
"""Bytes of vectors that may wait to be written; further ones are dropped."""
_BATCH_BYTES = 256 * 1024
"""Bytes written at once."""
_WATCH_SECONDS = 2.0
"""How often a gateway looks whether another one cleared the cache."""
_KEYS_PER_STEP = 1000

_log = logging.getLogger(__name__)


class ValkeyVectors:
    """`hubgate.domain.ports.VectorStore` on a Valkey or Redis server.

    A failure of the server never fails a call. `clear` begins a new generation, whose name is a part of every key. The
    name is on the same server and read together with vectors, so that no gateway reads a vector that another one has
    cleared. Vectors expire, so that the server may evict them first; the name of the generation does not.

    Args:
        url: of the server.
        setting: the name of the setting that the URL is from.
        read_seconds: timeout of lookups.
        write_seconds: timeout of what stores vectors.
        pause: seconds without a question after failures.

    Raises:
        InvalidSetting: the URL is invalid.
    """

    place = "shared"
    is_near = False

    def __init__(
        self,
        url: str,
        setting: str,
        *,
        read_seconds: float = _READ_SECONDS,
        write_seconds: float = _WRITE_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._reading = ValkeyConnection(url, setting, patience=read_seconds)
        self._writing = ValkeyConnection(url, setting, patience=write_seconds)
        now = asyncio.get_running_loop().time
        self._cannot_read = Outage("vectors are not read from the shared cache", now, pause)
        self._cannot_write = Outage("vectors are not written to the shared cache", now, pause)
        self._generation: bytes | None = None
        self._cleared: Callable[[], None] = lambda: None
        self._pending: dict[bytes, CachedVector] = {}
        self._pending_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._cleaner: asyncio.Task[None] | None = None
        self._watcher = asyncio.create_task(self._watch())
        self._hits = self._misses = self._dropped = 0

    @property
    def name(self) -> str:
        return self._reading.name

    @property
    def counts(self) -> Mapping[str, int]:
        return {"hits": self._hits, "misses": self._misses, "dropped": self._dropped}

    def when_cleared(self, then: Callable[[], None]) -> None:
        """Call `then` when another gateway has cleared the cache."""
        self._cleared = then

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        found = await self._read(keys)
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    def put(self, fresh: FreshVectors) -> None:
        """Store vectors, unless too many are pending or the server cannot be used."""
        for key, vector in cache_entries(fresh).items():
            size = len(vector.vector)
            if self._cannot_write.lasts() or self._pending_bytes + size > _MAX_PENDING_BYTES:
                self._dropped += 1
            elif key not in self._pending:
                self._pending[key] = vector
                self._pending_bytes += size
        if self._pending and self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def stats(self) -> Mapping[str, Any]:
        """What this gateway did, and the memory of the server with all that is in it."""
        memory: dict[bytes, bytes] = {}
        with contextlib.suppress(StoreFailed):
            memory = await self._memory()
        return {
            "server": self.name,
            "available": bool(memory) and not self._cannot_read.lasts(),
            "bytes": int(memory.get(b"used_memory", 0)),
            "most_bytes": int(memory.get(b"maxmemory", 0)),
            **self.counts,
        }

    async def clear(self) -> None:
        """Begin a new generation for all gateways. The vectors of the old one are deleted in the background."""
        new = _new_generation()
        await self._writing.command("SET", _GENERATION, new)
        self._generation = new
        self._pending.clear()
        self._pending_bytes = 0
        if self._cleaner is None:
            self._cleaner = asyncio.create_task(self._delete_old())

    async def cleaned(self) -> None:
        """Wait until the vectors that were cleared are deleted."""
        if self._cleaner:
            await self._cleaner

    async def flush(self) -> None:
        """Wait until everything pending is written or dropped."""
        if self._writer:
            await self._writer

    async def close(self) -> None:
        for task in (self._watcher, self._cleaner):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self.flush()
        await self._reading.close()
        await self._writing.close()

    async def _read(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        if self._cannot_read.lasts():
            return {}
        try:
            generation = self._generation or await self._learn_generation()
            places = [_place(generation, key) for key in keys]
            current, *values = await self._reading.command("MGET", _GENERATION, *places)
            if current is None:  # the server lost its memory
                current = await self._learn_generation()
        except StoreFailed as error:
            self._cannot_read.failed(error)
            return {}
        self._cannot_read.ended()
        if current != generation:
            self._begin(current)
            return {}
        found = ((key, data and read_record(data, key)) for key, data in zip(keys, values, strict=True))
        return {key: vector for key, vector in found if vector}

    async def _learn_generation(self) -> bytes:
        """Read the generation. If the server has none, it gets the one that this gateway knows, or a new one."""
        mine = self._generation or _new_generation()
        _, current = await self._reading.commands([("SET", _GENERATION, mine, "NX"), ("GET", _GENERATION)])
        if self._generation is None:
            self._generation = current
        return bytes(current)

    def _begin(self, generation: bytes) -> None:
        self._generation = generation
        self._cleared()

    async def _watch(self) -> None:
        await self._look_at_server()
        while True:
            await self._read([])
            await asyncio.sleep(_WATCH_SECONDS)

    async def _look_at_server(self) -> None:
        try:
            memory = await self._memory()
        except StoreFailed as error:
            _log.warning("vectors are not shared for now: %s %s", error, error.remedy)
            return
        if memory.get(b"maxmemory") == b"0":
            _log.warning(
                "the Valkey server %s has no maxmemory: set it, and maxmemory-policy volatile-lru, or vectors fill"
                " its memory",
                self._writing.name,
            )

    async def _memory(self) -> dict[bytes, bytes]:
        lines = bytes(await self._writing.command("INFO", "memory")).splitlines()
        return {name: value for name, colon, value in (line.partition(b":") for line in lines) if colon}

    async def _write(self) -> None:
        """Write until nothing is pending."""
        try:
            while batch := self._next_batch():
                if self._cannot_write.lasts():
                    self._dropped += len(batch)
                    continue
                try:
                    await self._write_batch(batch)
                    self._cannot_write.ended()
                except StoreFailed as error:
                    self._cannot_write.failed(error)
                    self._dropped += len(batch)
        finally:
            self._writer = None

    async def _write_batch(self, batch: Mapping[bytes, CachedVector]) -> None:
        generation = self._generation or await self._learn_generation()
        await self._writing.commands(
            ("SET", _place(generation, key), data, "EX", _KEPT_SECONDS)
            for key, data in records_of(batch).items()
        )

    def _next_batch(self) -> Mapping[bytes, CachedVector]:
        batch, size = {}, 0
        while self._pending and size < _BATCH_BYTES:
            key = next(iter(self._pending))
            batch[key] = self._pending.pop(key)
            size += len(batch[key].vector)
        self._pending_bytes -= size
        return batch

    async def _delete_old(self) -> None:
        """Delete the vectors of other generations. Those that stay expire."""
        try:
            cursor = b"0"
            while True:
                cursor, places = await self._writing.command(
                    "SCAN", cursor, "MATCH", KEY_PREFIX + b"v:*", "COUNT", _KEYS_PER_STEP
                )
                current = _place(self._generation or b"", b"")
                if old := [place for place in places if not place.startswith(current)]:
                    await self._writing.command("UNLINK", *old)
                if cursor == b"0":
                    break
        except StoreFailed as error:
            _log.info("the vectors of a cleared cache are left to expire: %s", error)
        finally:
            self._cleaner = None


def _new_generation() -> bytes:
    """Random: one that the server forgot is never used again."""
    return secrets.token_hex(8).encode()


def _place(generation: bytes, key: bytes) -> bytes:
    return b"%bv:%b:%b" % (KEY_PREFIX, generation, key)
