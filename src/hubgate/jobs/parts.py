"""The parts of a job: one file, to which each shard's vectors are appended until they are joined.

One file and not one a shard: a file system takes longer to make, to sync and to remove many files than to write them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hubgate.files import sync_folder
from hubgate.jobs.rows import Part


class Parts:
    """Appended by one thread at a time. What a crash leaves unfinished at the end of the file stays there, and is never read."""

    def __init__(self, folder: Path, suffix: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        self.draft = folder / f"output{suffix}"
        """Of the output that is joined from them."""
        self._path = folder / f"parts{suffix}"
        self._path.touch()
        sync_folder(folder)

    def add(self, contents: Iterable[bytes | memoryview]) -> list[Part]:
        """Append parts, all with one flush to disk; they are on disk when this returns.

        Raises:
            OSError: they cannot be written; none of them is there then.
        """
        parts = []
        with self._path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                for content in contents:
                    rest = memoryview(content)
                    parts.append(Part(file.tell(), len(rest)))
                    while rest:
                        rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
        return parts

    def read(self, part: Part) -> bytes:
        """The content of a part."""
        with self._path.open("rb") as file:
            file.seek(part.place)
            return file.read(part.size)

    def has(self, part: Part) -> bool:
        """Whether the file reaches as far as the part: it was on disk before its record was."""
        return self._path.stat().st_size >= part.place + part.size
