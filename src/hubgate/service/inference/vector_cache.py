"""The vector cache: the newest vectors in memory, all of them on disk."""

from __future__ import annotations

from typing import Any

from hubgate.core.cache import MemoryCache
from hubgate.domain.ports import VectorDisk

_MEMORY_BYTES = 32 * 1024 * 1024


class VectorMemory:
    """Both parts of the vector cache. Pipelines use `cache`."""

    def __init__(self, disk: VectorDisk) -> None:
        self._disk = disk
        self.cache = MemoryCache(_MEMORY_BYTES, backing=disk)
        self.free_space = disk.free_space
        self.close = disk.close

    async def stats(self) -> dict[str, Any]:
        return {
            "memory": {"entries": len(self.cache), "bytes": self.cache.bytes, "most_bytes": _MEMORY_BYTES},
            "disk": dict(await self._disk.stats()),
        }

    async def clear(self) -> None:
        """Raises: StoreFailed."""
        await self._disk.clear()
        self.cache.clear()
