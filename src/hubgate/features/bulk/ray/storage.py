"""Files in object stores and shared folders: `s3://…`, `gs://…`, `abfs://…`, or a path."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.files import atomic_write

_WILDCARDS = frozenset("*?[")


class InputFile(msgspec.Struct, frozen=True):
    """A file of the input, as it was when the job started."""

    uri: str
    size: int
    modified: int | None
    """Nanoseconds since 1970; `None` if the store does not report it."""


def locate(place: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or an absolute path, and the path on it.

    Raises:
        JobStopped: the URI is invalid, or its store is not supported.
    """
    scheme, found, rest = place.partition("://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        if scheme == "s3" and found and endpoint:  # which Arrow does not read by itself
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            return pafs.S3FileSystem(endpoint_override=endpoint, region=region), rest
        filesystem, path = pafs.FileSystem.from_uri(place)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unusable_input(f"{place} cannot be used: {first_line(error)}.") from error
    return filesystem, path


def list_inputs(place: str) -> list[InputFile]:
    """The files of an input in the order of their names: one file, those that match a pattern, or those of a folder.

    Raises:
        JobStopped: there are none, or the store cannot be read.
    """
    folder, pattern = place, ""
    if _WILDCARDS.intersection(place):
        folder, _, pattern = place.rpartition("/")
        if _WILDCARDS.intersection(folder):
            raise unusable_input(f"{place} has wildcards in a folder.", "Use them in the last part only.")
    filesystem, path = locate(folder or "/")
    with reports_unreadable(place):
        info = filesystem.get_file_info(path)
        if info.type is pafs.FileType.File and not pattern:
            return [_input_file(folder, "", info)]
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    files = [
        _input_file(folder, info.base_name, info)
        for info in infos
        if info.type is pafs.FileType.File and fnmatchcase(info.base_name, pattern or "[!._]*")
    ]
    if not files:
        raise unusable_input(f"No file matches the input {place}.")
    return sorted(files, key=lambda file: file.uri)


def _input_file(folder: str, name: str, info: pafs.FileInfo) -> InputFile:
    uri = f"{folder.rstrip('/')}/{name}" if name else folder
    return InputFile(uri, info.size or 0, info.mtime_ns)


def describe(file: InputFile) -> InputFile:
    """A file of the input as it is now.

    Raises:
        JobStopped: it cannot be read.
    """
    filesystem, path = locate(file.uri)
    with reports_unreadable(file.uri):
        return _input_file(file.uri, "", filesystem.get_file_info(path))


@contextmanager
def open_input(uri: str, offset: int = 0) -> Iterator[IO[bytes]]:
    """A file of an input, to read from an offset."""
    filesystem, path = locate(uri)
    with filesystem.open_input_file(path) as raw:
        raw.seek(offset)
        yield io.BufferedReader(raw, 1 << 20)


class OutputFolder:
    """The folder of an output. Errors of the store become `JobStopped`."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self._filesystem, self._path = locate(self.place)

    def names(self) -> set[str]:
        """The names of the files in it; empty if it does not exist."""
        with reports_unreadable(self.place):
            infos = self._filesystem.get_file_info(pafs.FileSelector(self._path, allow_not_found=True))
        return {info.base_name for info in infos if info.type is pafs.FileType.File}

    def has(self, name: str) -> bool:
        """Whether it has this file."""
        with reports_unreadable(self.place):
            kind = self._filesystem.get_file_info(f"{self._path}/{name}").type
        return kind is pafs.FileType.File

    def open(self, name: str) -> Any:
        """A file of Arrow's, to read at any position.

        Raises:
            OSError: it does not exist, or cannot be read.
        """
        return self._filesystem.open_input_file(f"{self._path}/{name}")

    def read(self, name: str) -> bytes:
        """A whole file."""
        with reports_unreadable(f"{self.place}/{name}"), self.open(name) as file:
            content: bytes = file.read()
            return content

    def create(self, name: str, content: bytes) -> bool:
        """Create a file whole; returns `False`, and changes nothing, if it exists."""
        with _reports_unwritable(self.place):
            if isinstance(self._filesystem, pafs.LocalFileSystem):
                return self._create_here(name, content)
            return _create_object(self.place, name, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file that may exist already, piece by piece."""
        with (
            _reports_unwritable(self.place),
            self._filesystem.open_output_stream(f"{self._path}/{name}") as file,
        ):
            yield file

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        with _reports_unwritable(self.place), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(f"{self._path}/{name}")

    def _create_here(self, name: str, content: bytes) -> bool:
        folder = Path(self._path)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(folder / name, folder / f".{secrets.token_hex(8)}", new=True) as file:
                file.write(content)
        except FileExistsError:
            return False
        return True


def _create_object(place: str, name: str, content: bytes) -> bool:
    """Put an object unless it exists, which Arrow cannot do."""
    import obstore  # noqa: PLC0415 - part of an extra, and not needed for a shared folder
    from obstore.store import from_url  # noqa: PLC0415

    try:
        store = from_url(
            place, client_options={"allow_http": True}
        )  # if the operator has set such an endpoint
        obstore.put(store, name, content, mode="create")
    except obstore.exceptions.AlreadyExistsError:
        return False
    except obstore.exceptions.BaseError as error:
        raise OSError(first_line(error)) from error
    return True


@contextmanager
def reports_unreadable(place: str) -> Iterator[None]:
    """Turn an error of a store into a reason to stop.

    Raises:
        JobStopped: it cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise JobStopped(
            f"{place} cannot be read: {first_line(error)}.",
            remedy="The nodes of the cluster need access to it: for a bucket, a role of the machine or the variables of its store.",
            cause=Cause.INVALID_REQUEST,
        ) from error


@contextmanager
def _reports_unwritable(place: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise JobStopped(
            f"The output {place} cannot be written: {first_line(error)}.",
            remedy="The nodes of the cluster need the right to write to it. Then run the same command again: finished parts are kept.",
            cause=Cause.STORE_FAILED,
        ) from error


def first_line(error: BaseException) -> str:
    """The beginning of a library's message."""
    return str(error).partition("\n")[0][:300].rstrip(". ")
