"""A folder of text and Markdown files in: a row a file, its id the path below the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from hubgate.jobs.inputs import MOST_TEXT_BYTES, input_changed, unusable_input
from hubgate.jobs.rows import Failed, Row, RowFault, read_row

SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown"})


class _Listed(NamedTuple):
    """A file as it was when the folder was listed."""

    path: str
    size: int
    changed_at: int
    """In nanoseconds since the epoch."""


class TextFolder:
    """The files of a folder and all below it, in the order of their paths. Hidden ones are left out.

    A file that is changed or gone when its turn comes is a failed row: the others are not its business.
    """

    def __init__(self, folder: Path, *, longest: int = MOST_TEXT_BYTES) -> None:
        self._folder = folder
        self._longest = longest
        self._files = _listed(folder)
        if not self._files:
            raise unusable_input(
                f"There is no text in the folder {folder}.",
                f"Files that end in {', '.join(sorted(SUFFIXES))} are read.",
            )

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        """Ids are paths."""
        return "text", {}

    @property
    def expected_rows(self) -> int | None:
        """One a file."""
        return len(self._files)

    def identity(self) -> Mapping[str, Any]:
        """Path, size and time of every file."""
        digest = blake2b(digest_size=16)
        for file in self._files:
            digest.update(f"{file.path}\0{file.size} {file.changed_at}\n".encode("utf-8", "surrogateescape"))
        return {"kind": "a folder", "files": len(self._files), "listing": digest.hexdigest()}

    def rows(self) -> Iterator[Row | Failed]:
        """Every file."""
        for number, file in enumerate(self._files):
            yield self._row(number, file)

    def check(self) -> None:
        """The folder itself must be there; each file is looked at when its turn comes.

        Raises:
            JobStopped: it is gone.
        """
        if not self._folder.is_dir():
            raise input_changed(f"the folder {self._folder} is gone")

    def _row(self, number: int, file: _Listed) -> Row | Failed:
        path = self._folder / file.path
        row_id = file.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

        def failed(cause: RowFault, message: str) -> Failed:
            return Failed(row=number, id=row_id, cause=cause, message=message)

        if file.size > self._longest:
            return failed(RowFault.TOO_LONG, f"The file is longer than {self._longest} bytes.")
        try:
            text = path.read_bytes()
            now = path.stat()
        except OSError as error:
            return failed(RowFault.UNREADABLE, f"The file cannot be read: {error.strerror or error}.")
        if (now.st_size, now.st_mtime_ns) != (file.size, file.changed_at):
            return failed(RowFault.FILE_CHANGED, "The file was changed after the job had listed it.")
        try:
            return read_row(number, row_id, text.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            return failed(RowFault.NOT_UTF8, f"The file is not UTF-8: byte {error.start} cannot be read.")


def _listed(folder: Path) -> list[_Listed]:
    found = []
    for parent, folders, names in os.walk(folder, onerror=_stop):  # else it would be left out in silence
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:  # noqa: PTH122 - of a million
                continue
            path = os.path.join(parent, name)  # noqa: PTH118
            try:
                status = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:  # a link to nothing, or just removed
                continue
            except OSError:  # its own row tells why
                found.append(_Listed(os.path.relpath(path, folder), 0, 0))
                continue
            if stat.S_ISREG(status.st_mode):  # who reads a pipe may wait for ever
                size, changed_at = status.st_size, status.st_mtime_ns
                found.append(_Listed(os.path.relpath(path, folder), size, changed_at))
    return sorted(found)


def _stop(error: OSError) -> NoReturn:
    raise unusable_input(
        f"The folder {error.filename} cannot be read: {error.strerror}.", "Make it readable, or move it away."
    ) from error
