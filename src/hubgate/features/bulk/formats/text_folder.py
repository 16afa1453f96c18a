"""A folder of text and Markdown files as input: a row per file. The id is the path below the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from hubgate.features.bulk.engine.rows import FailedRow, Row, RowFault, make_row
from hubgate.features.bulk.formats.inputs import MAX_TEXT_BYTES, input_changed, unusable_input

SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown"})


class _ListedFile(NamedTuple):
    path: str
    size: int
    mtime_ns: int


class TextFolder:
    """The files of a folder and all its subfolders, sorted by path, without hidden ones.

    A file that has changed or is gone when it is to be read is a failed row; the job continues.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._files = _list_files(folder)
        if not self._files:
            raise unusable_input(
                f"The folder {folder} contains no texts.",
                f"Files that end in {', '.join(sorted(SUFFIXES))} are read.",
            )

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        return "text", {}

    @property
    def expected_rows(self) -> int | None:
        return len(self._files)

    def identity(self) -> Mapping[str, Any]:
        digest = blake2b(digest_size=16)
        for file in self._files:
            digest.update(f"{file.path}\0{file.size} {file.mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return {"kind": "a folder", "files": len(self._files), "listing": digest.hexdigest()}

    def rows(self) -> Iterator[Row | FailedRow]:
        for number, file in enumerate(self._files):
            yield self._row(number, file)

    def check(self) -> None:
        """Check that the folder still exists; each file is checked when it is read."""
        if not self._folder.is_dir():
            raise input_changed(f"the folder {self._folder} is gone")

    def _row(self, number: int, file: _ListedFile) -> Row | FailedRow:
        path = self._folder / file.path
        row_id = file.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

        def failed(cause: RowFault, message: str) -> FailedRow:
            return FailedRow(row=number, id=row_id, cause=cause, message=message)

        if file.size > self._max_bytes:
            return failed(RowFault.TOO_LONG, f"The file is longer than {self._max_bytes} bytes.")
        try:
            text = path.read_bytes()
            now = path.stat()
        except OSError as error:
            return failed(RowFault.UNREADABLE, f"The file cannot be read: {error.strerror or error}.")
        if (now.st_size, now.st_mtime_ns) != (file.size, file.mtime_ns):
            return failed(RowFault.FILE_CHANGED, "The file has changed since the job listed it.")
        try:
            return make_row(number, row_id, text.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            return failed(RowFault.NOT_UTF8, f"The file is not UTF-8: byte {error.start} is invalid.")


def _list_files(folder: Path) -> list[_ListedFile]:
    found = []
    # Without `onerror` a folder that cannot be read is skipped silently.
    for parent, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:  # noqa: PTH122 - there may be millions
                continue
            path = os.path.join(parent, name)  # noqa: PTH118
            try:
                status = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:  # a dangling link, or just deleted
                continue
            except OSError:  # its row fails with the reason
                found.append(_ListedFile(os.path.relpath(path, folder), 0, 0))
                continue
            if stat.S_ISREG(status.st_mode):  # reading a pipe could block forever
                below = os.path.relpath(path, folder)
                found.append(_ListedFile(below, status.st_size, status.st_mtime_ns))
    return sorted(found)


def _stop(error: OSError) -> NoReturn:
    raise unusable_input(
        f"The folder {error.filename} cannot be read: {error.strerror}.", "Make it readable, or move it away."
    ) from error
