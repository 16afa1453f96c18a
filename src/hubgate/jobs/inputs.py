"""Input files: what makes one the same on another day."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hubgate.domain.errors import Cause
from hubgate.jobs.rows import JobStopped

MOST_TEXT_BYTES = 64 * 1024 * 1024
"""Of one row; a longer one is not read into memory, and fails."""
_SAMPLES, _SAMPLE_BYTES = 64, 64 * 1024
_MOST_NAMES, _MOST_NAME = 20, 60
"""Names of fields in an error, and letters of one."""
_AGAIN = "Put back the input that the job began with, or start anew with --overwrite."


def input_changed(what: str) -> JobStopped:
    """The error for an input that is not the one that the job began with."""
    return JobStopped(f"The input has changed: {what}.", remedy=_AGAIN, cause=Cause.INVALID_REQUEST)


def unusable_input(what: str, remedy: str = "") -> JobStopped:
    """The error for an input that cannot be read at all."""
    return JobStopped(what, remedy=remedy, cause=Cause.INVALID_REQUEST)


def no_such_field(what: str, kind: str, known: Iterable[str]) -> JobStopped:
    """The error for a field that is asked for and is not there; names those that are, as far as they can be read.

    Args:
        what: is missing where.
        kind: what its fields are called, in the plural.
        known: their names.
    """
    names = [name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}…" for name in known]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    shown = ", ".join(names[:_MOST_NAMES])
    return unusable_input(
        what, f"Its {kind} are {shown}{more}: name one of them (--text-field, --id-field, --keep)."
    )


class Stamp:
    """An input file as it was when it was opened.

    Its identity is its size and a digest of samples: of 64 KiB at 64 places, the first and the last among them, which
    is all of a file of up to 4 MiB. The rows in between are compared by the digests of the shards that are done.

    Raises:
        JobStopped: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise unusable_input(f"The input {path} is no file.", "Name one: it is read more than once.")
            with path.open("rb"):
                self._state = _state(path)
        except OSError as error:
            raise unusable_input(f"The input {path} cannot be read: {error.strerror or error}.") from error

    @property
    def size(self) -> int:
        """In bytes."""
        return self._state.st_size

    def identity(self) -> Mapping[str, Any]:
        """Size and samples."""
        digest = blake2b(digest_size=16)
        with self._path.open("rb") as file:
            for number in range(_SAMPLES):
                last = max(0, self.size - _SAMPLE_BYTES)
                file.seek(last * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
                if not last:
                    break
        return {"size": self.size, "samples": digest.hexdigest()}

    def check(self) -> None:
        """Look whether it is still the same file, unwritten.

        Raises:
            JobStopped: it is not.
        """
        try:
            now = _state(self._path)
        except OSError as error:
            raise input_changed(
                f"{self._path} cannot be read any more ({error.strerror or error})"
            ) from error
        was = self._state
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (was.st_ino, was.st_size, was.st_mtime_ns):
            raise input_changed(f"{self._path} was written to while it was read")


def compare_identity(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Look whether an input is the one that the job began with.

    Raises:
        JobStopped: it is not; says in what it differs.
    """
    for name, value in then.items():
        if now.get(name) != value:
            raise input_changed(
                _DIFFERENCE.get(name, "{name} was {then}, and is {now}").format(
                    name=name, then=value, now=now.get(name)
                )
            )


_DIFFERENCE = {
    "kind": "it was {then}, and is {now}",
    "size": "it had {then} bytes when the job began, and has {now} now",
    "samples": "it has as many bytes as when the job began, but not the same ones",
    "files": "the folder had {then} texts when the job began, and has {now} now",
    "listing": "a file in the folder is not the one it was when the job began",
}


def _state(path: Path) -> os.stat_result:
    return path.stat()
