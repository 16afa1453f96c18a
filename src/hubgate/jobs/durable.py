"""Files that are never seen half written, and are on disk once they are seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, draft: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write; at the end of the context it is on disk, and takes the place of what is at `path`.

    Its draft has one name: who was killed left one that the next one overwrites. One writer at a time.

    Args:
        path: of the file.
        draft: of its draft, on the same file system; beside it, unless told otherwise.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    draft = draft or path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            yield file
            settle(file)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def settle(file: BinaryIO) -> None:
    """Put on disk what was written so far, so that little is left to wait for at the end."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put on disk which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
