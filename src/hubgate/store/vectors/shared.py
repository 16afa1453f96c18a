"""The vector cache that gateways share."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from hubgate.core.results import cache_entries
from hubgate.core.traffic.pauses import PAUSE_SECONDS, Outage
from hubgate.domain.errors import StoreFailed
from hubgate.store.vectors.record import read_record, records_of
from hubgate.store.vectors.valkey import KEY_PREFIX, Valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubgate.domain.calls import CachedVector, FreshVectors
    from hubgate.store.vectors.valkey import Command

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
_TAG_BYTES = 16
_GENERATION_NAME = re.compile(rb"[0-9a-f]{16}")

_log = logging.getLogger(__name__)


class SharedVectors:
    """`hubgate.domain.ports.VectorStore` on a Valkey or Redis server.

    A failure of the server never fails a call. The server is not trusted: each value begins with a MAC of its record,
    which has the key, the length, the facts and the vector; one that is not right is a miss. `clear` begins a new generation, whose name is a part of every key. The
    name is on the same server and read together with vectors, so that no gateway reads a vector that another one has
    cleared. Vectors expire, so that the server may evict them first; the name of the generation does not.

    Args:
        url: of the server.
        mac_key: at most 64 bytes, which all gateways have and the server has not.
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
        mac_key: bytes,
        *,
        read_seconds: float = _READ_SECONDS,
        write_seconds: float = _WRITE_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._new_mac = blake2b(key=mac_key, digest_size=_TAG_BYTES).copy
        self._server = Valkey(url)
        self._read_seconds, self._write_seconds = read_seconds, write_seconds
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
        return self._server.name

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
            "bytes": _number(memory.get(b"used_memory")),
            "most_bytes": _number(memory.get(b"maxmemory")),
            **self.counts,
        }

    async def clear(self) -> None:
        """Begin a new generation for all gateways. The vectors of the old one are deleted in the background."""
        new = _new_generation()
        await self._ask(("SET", _GENERATION, new))
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
        await self._server.close()

    async def _read(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        if self._cannot_read.lasts():
            return {}
        soon = bool(keys)  # nobody waits for a look at the generation alone
        try:
            generation = self._generation or await self._learn_generation(soon=soon)
            places = [_place(generation, key) for key in keys]
            (reply,) = await self._ask(("MGET", _GENERATION, *places), soon=soon)
            first, *values = self._strings(reply, 1 + len(keys))
            # Without a generation, the server lost its memory.
            current = await self._learn_generation(soon=soon) if first is None else self._named(first)
        except StoreFailed as error:
            self._cannot_read.failed(error)
            return {}
        self._cannot_read.ended()
        if current != generation:
            self._begin(current)
            return {}
        found = ((key, data and self._opened(data, key)) for key, data in zip(keys, values, strict=True))
        return {key: vector for key, vector in found if vector}

    def _tag(self, record: bytes) -> bytes:
        mac = self._new_mac()
        mac.update(record)
        return mac.digest()

    def _opened(self, data: bytes, key: bytes) -> CachedVector | None:
        """The vector; `None` if no gateway with this secret key stored it under this key."""
        record = data[_TAG_BYTES:]
        return read_record(record, key) if hmac.compare_digest(data[:_TAG_BYTES], self._tag(record)) else None

    async def _ask(self, *commands: Command, soon: bool = False) -> Sequence[Any]:
        """Execute commands. Raises: StoreFailed: one of them failed, or the reply could not be read."""
        try:
            patience = self._read_seconds if soon else self._write_seconds
            return await self._server.commands(commands, patience=patience)
        except StoreFailed:
            raise
        except Exception as error:  # of any kind: the server decides what is parsed
            raise self._odd_reply() from error

    def _strings(self, reply: object, count: int | None = None) -> Sequence[bytes | None]:
        """A reply that is a list of strings, or of nothing. Raises: StoreFailed: it is anything else."""
        if not isinstance(reply, list) or (count is not None and len(reply) != count):
            raise self._odd_reply()
        if not all(one is None or isinstance(one, bytes) for one in reply):
            raise self._odd_reply()
        return reply

    def _named(self, generation: object) -> bytes:
        """A reply that is the name of a generation. Raises: StoreFailed: it is anything else."""
        if isinstance(generation, bytes) and _GENERATION_NAME.fullmatch(generation):
            return generation
        raise self._odd_reply()

    def _odd_reply(self) -> StoreFailed:
        return StoreFailed(
            f"The Valkey server {self.name} sent an unexpected reply.",
            remedy="Check that it is Valkey, or Redis 6.2 or newer, and that only hubgate writes to this database number.",
        )

    async def _learn_generation(self, *, soon: bool = False) -> bytes:
        """Read the generation. If the server has none, it gets the one that this gateway knows, or a new one."""
        mine = self._generation or _new_generation()
        asked = (("SET", _GENERATION, mine, "NX"), ("GET", _GENERATION))
        _, reply = await self._ask(*asked, soon=soon)
        current = self._named(reply)
        if self._generation is None:
            self._generation = current
        return current

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
                self.name,
            )

    async def _memory(self) -> dict[bytes, bytes]:
        (reply,) = await self._ask(("INFO", "memory"))
        if not isinstance(reply, bytes):
            raise self._odd_reply()
        parts = (line.partition(b":") for line in reply.splitlines())
        return {name: value for name, colon, value in parts if colon}

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
        await self._ask(
            *(
                ("SET", _place(generation, key), self._tag(record) + record, "EX", _KEPT_SECONDS)
                for key, record in records_of(batch).items()
            ),
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
                step = ("SCAN", cursor, "MATCH", KEY_PREFIX + b"v:*", "COUNT", _KEYS_PER_STEP)
                (reply,) = await self._ask(step)
                if not isinstance(reply, list) or len(reply) != 2 or not isinstance(reply[0], bytes):
                    raise self._odd_reply()
                cursor, places = reply[0], self._strings(reply[1])
                current = _place(self._generation or b"", b"")
                if old := [place for place in places if place and not place.startswith(current)]:
                    await self._ask(("UNLINK", *old))
                if cursor == b"0":
                    break
        except StoreFailed as error:
            _log.info("the vectors of a cleared cache are left to expire: %s", error)
        finally:
            self._cleaner = None


def _number(value: bytes | None) -> int:
    """A number of the server's report; 0 if it is none."""
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else 0


def _new_generation() -> bytes:
    """Random: one that the server forgot is never used again."""
    return secrets.token_hex(8).encode()


def _place(generation: bytes, key: bytes) -> bytes:
    return b"%bv:%b:%b" % (KEY_PREFIX, generation, key)
