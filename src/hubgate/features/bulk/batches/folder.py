"""Where the content of files is: a folder, or an object store whose objects the folder has copies of."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Container
from pathlib import Path

from hubgate.domain.records import DAY
from hubgate.features.bulk.batches.model import Objects, StoredObject
from hubgate.files import atomic_write, create_private_folder, write_private

_MARK = ".folder"
_PIECE = re.compile(r"batch_\w+/\d+\.\w+/\d+")
_DRAFT = ".upload"
_DRAFT_SECONDS = 3600.0
_COPY_SECONDS = 3600.0
"""How long a copy that nobody reads is kept."""
_LOST_SECONDS = 40 * DAY
"""Pieces of a batch that are older belong to none: a batch takes at most 30 days."""


class FilesFolder:
    """A folder for the content of files. Several gateways may share it. All methods do blocking I/O.

    With an object store, files are complete when they are there. The folder has what is being written, and copies of
    what was read lately. The record of a batch grows, which objects cannot: it is stored in pieces.

    Args:
        path: created when it is first used.
        objects: the object store.
    """

    def __init__(self, path: Path, objects: Objects | None = None) -> None:
        self._path = path
        self._objects = objects

    def open(self) -> str:
        """Create the folder if needed, and return its id, or that of the object store.

        Raises:
            OSError: it cannot be created, or the store cannot be used.
        """
        create_private_folder(self._path)
        new = secrets.token_hex(16).encode()
        if self._objects is not None:
            return self._objects.create(_MARK, new).decode("ascii").strip()
        mark = self._path / _MARK
        with contextlib.suppress(FileExistsError):
            write_private(mark, new, new=True)
        return mark.read_text("ascii").strip()

    def path(self, file_id: str) -> Path:
        """Where a file is, or its copy would be."""
        return self._path / file_id

    def draft(self) -> Path:
        return self._path / f"{secrets.token_hex(8)}{_DRAFT}"

    def fetch(self, file_id: str) -> Path:
        """The path of a file, which does not exist if the file was lost."""
        path = self.path(file_id)
        if self._objects is not None:
            try:
                os.utime(path)  # copies that are read are kept
            except FileNotFoundError:
                with contextlib.suppress(FileNotFoundError):
                    self._copy([file_id], path)
        return path

    def publish(self, file_id: str) -> None:
        """Store a file that is complete."""
        if self._objects is not None:
            self._objects.put(file_id, self.path(file_id))

    def parts(self, batch_id: str) -> list[Path]:
        """The files of a batch's runs, oldest first."""
        if self._objects is not None:
            self._fetch_parts(batch_id, self._objects)
        return sorted(self._path.glob(f"{batch_id}.*.part"))

    def publish_part(self, part: Path, start: int, end: int) -> None:
        """Store the bytes that were appended to the file of a run."""
        if self._objects is None or start == end:
            return
        with part.open("rb") as file:
            file.seek(start)
            piece = file.read(end - start)
        batch_id, run = part.name.removesuffix(".part").split(".", 1)
        self._objects.put(f"{batch_id}/{run}/{start:015}", piece)

    def remove_parts(self, batch_id: str) -> None:
        if self._objects is not None:
            self._objects.delete([piece.name for piece in self._objects.list(batch_id)])
        for part in self._path.glob(f"{batch_id}.*.part"):
            part.unlink(missing_ok=True)

    def measure(self, without: Container[str] = ()) -> int:
        """How many bytes the folder has, or the object store if that has more.

        Args:
            without: names of files that are not counted.
        """
        with os.scandir(self._path) as entries:
            used = sum(_size(entry) for entry in entries if entry.name not in without)
        stored = 0 if self._objects is None else sum(one.size for one in self._objects.list())
        return max(used, stored)

    def remove(self, file_id: str) -> None:
        try:
            if self._objects is not None:
                self._objects.delete([file_id])
        finally:
            self.path(file_id).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove uploads that nobody finishes any more, and copies that nobody reads."""
        now = time.time()
        _remove_older(self._path, f"*{_DRAFT}", now - _DRAFT_SECONDS)
        if self._objects is not None:
            _remove_older(self._path, "file-*", now - _COPY_SECONDS)
            _remove_older(self._path, "*.part", now - _LOST_SECONDS)
            pieces = (one for one in self._objects.list() if _PIECE.fullmatch(one.name))
            self._objects.delete([one.name for one in pieces if one.changed_at < now - _LOST_SECONDS])

    def _fetch_parts(self, batch_id: str, objects: Objects) -> None:
        """Copy what other gateways have stored of a batch, unless more of it is here."""
        runs = defaultdict[str, list[StoredObject]](list)
        for piece in sorted(objects.list(batch_id)):
            run, start = piece.name.removeprefix(f"{batch_id}/").split("/")
            if int(start) == sum(before.size for before in runs[run]):
                runs[run].append(piece)
        for run, pieces in runs.items():
            part = self.path(f"{batch_id}.{run}.part")
            if not part.exists() or part.stat().st_size < sum(piece.size for piece in pieces):
                self._copy([piece.name for piece in pieces], part)

    def _copy(self, names: list[str], path: Path) -> None:
        """Raises: FileNotFoundError."""
        assert self._objects is not None  # noqa: S101 - callers have checked it
        with atomic_write(path, self.draft(), mode=0o600) as file:
            for name in names:
                for data in self._objects.get(name):
                    file.write(data)


def _remove_older(folder: Path, pattern: str, limit: float) -> None:
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < limit:
                path.unlink()


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
