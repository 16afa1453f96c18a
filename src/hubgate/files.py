"""Files on disk: locks between processes, atomic writes, and files and folders that only their owner may read."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

# `is_locked` takes a free lock for a moment, so `take_lock` tries again.
_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 5, 0.02


def take_lock(path: Path, *, mode: int = 0o600, sleep: Callable[[float], None] = time.sleep) -> int | None:
    """Create the file if needed and lock it, until the returned descriptor is closed or the process ends.

    The lock belongs to the open file, so a child created by a bare fork would keep it: spawn workers instead.

    Returns:
        `None` if another process holds the lock, or deleted or replaced the file meanwhile.

    Raises:
        OSError: the file cannot be created or opened.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    for attempt in range(_LOCK_TRIES):
        if attempt:
            sleep(_LOCK_PAUSE_SECONDS)
        if _try_lock(file, fcntl.LOCK_EX):
            if _is_file_at(path, file):
                return file
            break
    os.close(file)
    return None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file.

    Raises:
        OSError: the file exists and cannot be opened.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_at(path: Path, file: int) -> bool:
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


@contextmanager
def atomic_write(
    path: Path, draft: Path | None = None, *, mode: int = 0o666, new: bool = False
) -> Iterator[BinaryIO]:
    """Open a draft for writing. When the context ends without an error, the draft is flushed to disk and moved to `path`.

    Args:
        path: of the finished file. A file that is there is replaced.
        draft: where to write until then, on the same file system. The default is one name beside `path`, so only one
            process may write at a time; the draft of a killed process is overwritten.
        mode: permissions, less the umask.
        new: fail if there is a file at `path` already.

    Raises:
        FileExistsError: `new` is set and the file exists.
        OSError: it cannot be written; the old file stays.
    """
    draft = draft or path.with_name(f".{path.name}.draft")
    try:
        with open(draft, "wb", opener=partial(os.open, mode=mode)) as file:
            yield file
            flush_to_disk(file)
        if new:
            path.hardlink_to(draft)  # unlike a rename, this fails if another process was first
        else:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_private(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a whole file with mode 0600 atomically. Several processes may do so at once.

    Raises:
        FileExistsError: `new` is set and the file exists.
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with atomic_write(path, draft, mode=0o600, new=new) as file:
        file.write(data)


def create_private_folder(path: Path) -> None:
    """Create the folder with mode 0700 if it does not exist.

    Raises:
        OSError: it cannot be created.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def flush_to_disk(file: BinaryIO) -> None:
    """Flush what was written so far, from Python's buffer and the operating system's."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a new or renamed file in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
