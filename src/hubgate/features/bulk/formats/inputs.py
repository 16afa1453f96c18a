"""Input files: how one is recognised on another day, and the errors for those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.rows import JobStopped

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""Per row; a longer row fails without being read into memory."""
_SAMPLES, _SAMPLE_BYTES = 64, 64 * 1024
_MAX_NAMES, _MAX_NAME_LENGTH = 20, 60


def input_changed(what: str) -> JobStopped:
    """The error for an input that differs from the one that the job started with."""
    return JobStopped(
        f"The input has changed: {what}.",
        remedy="Restore the input that the job started with, or start over with --overwrite.",
        cause=Cause.INVALID_REQUEST,
    )


def unusable_input(what: str, remedy: str = "") -> JobStopped:
    """The error for an input that cannot be used at all."""
    return JobStopped(what, remedy=remedy, cause=Cause.INVALID_REQUEST)


def no_such_field(what: str, kind: str, known: Iterable[str]) -> JobStopped:
    """The error for a missing field.

    Args:
        what: the first sentence of the message.
        kind: "fields" or "columns".
        known: the names of those that exist.
    """
    names = [name if len(name) <= _MAX_NAME_LENGTH else f"{name[:_MAX_NAME_LENGTH]}…" for name in known]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    shown = ", ".join(names[:_MAX_NAMES])
    return unusable_input(
        what, f"Its {kind} are {shown}{more}: use one of them (--text-field, --id-field, --keep)."
    )


class InputFingerprint:
    """An input file as it was when it was opened.

    Its identity is its size and a digest of samples: 64 KiB at 64 places with the first and the last, which is all of a
    file of up to 4 MiB. The digests of finished shards cover the rows in between.

    Raises:
        JobStopped: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if path.exists() and not path.is_file():  # reading a pipe would block
                raise unusable_input(
                    f"The input {path} is not a regular file.", "Use one: it is read more than once."
                )
            with path.open("rb"):
                self._stat = path.stat()
        except OSError as error:
            raise unusable_input(f"The input {path} cannot be read: {error.strerror or error}.") from error

    @property
    def size(self) -> int:
        return self._stat.st_size

    def identity(self) -> Mapping[str, Any]:
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
        """Check that the file has been neither replaced nor written to.

        Raises:
            JobStopped: it has.
        """
        before = self._stat
        try:
            now = self._path.stat()
        except OSError as error:
            raise input_changed(f"{self._path} can no longer be read ({error.strerror or error})") from error
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
            raise input_changed(f"{self._path} was written to while it was read")


_DIFFERENCES = {
    "kind": "it was {then} and is now {now}",
    "size": "it had {then} bytes when the job started and now has {now}",
    "samples": "its size is the same as when the job started, but its content is not",
    "files": "the folder had {then} texts when the job started and now has {now}",
    "listing": "a file in the folder is not the one it was when the job started",
}


def compare_identity(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that an input is the one that the job started with.

    Raises:
        JobStopped: it is not; the message says what differs.
    """
    for name, value in then.items():
        if now.get(name) != value:
            template = _DIFFERENCES.get(name, "{name} was {then} and is now {now}")
            raise input_changed(template.format(name=name, then=value, now=now.get(name)))
