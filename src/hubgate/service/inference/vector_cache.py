"""The vector cache: the newest vectors in memory, all of them on disk or on a server that gateways share."""

from __future__ import annotations

from typing import Any

from hubgate.core.cache import MemoryCache
from hubgate.domain.ports import VectorStore

_MEMORY_BYTES = 32 * 1024 * 1024


class VectorMemory:
    """Both parts of the vector cache. Pipelines use `cache`."""

    def __init__(self, store: VectorStore) -> None:
        self.store = store
        self.cache = MemoryCache(_MEMORY_BYTES, backing=store)
        self.close = store.close

    async def stats(self) -> dict[str, Any]:
        return {
            "memory": {"entries": len(self.cache), "bytes": self.cache.bytes, "most_bytes": _MEMORY_BYTES},
            self.store.place: dict(await self.store.stats()),
        }

    async def clear(self) -> None:
        """Raises: StoreFailed."""
        await self.store.clear()
        self.cache.clear()
