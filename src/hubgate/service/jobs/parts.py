"""The folder of the parts: one file a shard, named by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubgate.service.jobs.durable import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


class Parts:
    """Where each shard's vectors stand until they are joined."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder = folder
        self._suffix = suffix
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)

    @property
    def draft(self) -> Path:
        """Of the output that is joined from them."""
        return self._folder / "output.draft"

    def path(self, shard: int) -> Path:
        """The part of a shard."""
        return self._folder / f"part-{shard:08d}{self._suffix}"

    def has(self, shard: int, size: int) -> bool:
        """Whether the part is there, and of this size."""
        try:
            return self.path(shard).stat().st_size == size
        except FileNotFoundError:
            return False
