"""The vectors that the gate remembers: the newest in memory, all of them on disk."""

from __future__ import annotations

from typing import Any

from hubgate.core.cache import MemoryCache
from hubgate.domain.ports import VectorDisk

_NEAR_BYTES = 32 * 1024 * 1024


class VectorMemory:
    """Both parts of the vector cache; `cache` is what pipelines read and write."""

    def __init__(self, disk: VectorDisk) -> None:
        self._disk = disk
        self.cache = MemoryCache(_NEAR_BYTES, backing=disk)

    async def stats(self) -> dict[str, Any]:
        """What is in memory and on disk."""
        return {
            "memory": {"entries": len(self.cache), "bytes": self.cache.bytes, "most_bytes": _NEAR_BYTES},
            "disk": dict(await self._disk.stats()),
        }

    async def clear(self) -> None:
        """Forget everything.

        Raises:
            StoreFailed: the file cannot be deleted.
        """
        await self._disk.clear()
        self.cache.clear()

    async def free_space(self) -> None:
        """Free the disk, which is full; what is in memory stays."""
        await self._disk.free_space()

    async def close(self) -> None:
        """Write what is waiting to be written."""
        await self._disk.close()
