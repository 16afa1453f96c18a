"""The answered requests of a batch on disk, so that a gateway that is killed asks none of them again.

Each run of a batch appends to two files of its own, for successes and for errors, already in the format of the output.
A torn last line is dropped. When all requests are answered, the output and error files are written from these files, in
the order of the input.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.rows import Row
from hubgate.files import atomic_write
from hubgate.web.http.internal import RowReply

_ID = b'{"id":"batch_req_'
_DIGITS = 10
_JSON = msgspec.json.Decoder(msgspec.Raw)
_SUCCESS, _ERROR = "output", "errors"
_JOINED_BYTES = 1024 * 1024
"""Fewer are written at once."""


class Answer(NamedTuple):
    """A line of the output or error file."""

    number: int
    """Of the request: its line in the input."""
    success: bool
    line: bytes


def response_line(batch_id: str, row: Row, status: int, request_id: str, body: bytes) -> bytes:
    """The line of a request that got a response; `body` is JSON."""
    # In valid JSON, a line break is always between two values.
    body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return b'%b"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null}\n' % (
        _start(batch_id, row),
        status,
        msgspec.json.encode(request_id),
        body,
    )


def error_line(batch_id: str, row: Row, code: str, message: str) -> bytes:
    """The line of a request that got no response."""
    error = msgspec.json.encode({"code": code, "message": message})
    return b'%b"response":null,"error":%b}\n' % (_start(batch_id, row), error)


def final_answer(batch_id: str, row: Row, reply: RowReply, request_id: str) -> Answer:
    try:
        _JSON.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "The response of the model is not JSON."
        return Answer(row.number, False, error_line(batch_id, row, "invalid_response", message))
    line = response_line(batch_id, row, reply.status, request_id, reply.body)
    return Answer(row.number, reply.status == 200, line)


def _start(batch_id: str, row: Row) -> bytes:
    custom_id = msgspec.json.encode(row.custom_id)
    return b'%b%0*d_%b","custom_id":%b,' % (
        _ID,
        _DIGITS,
        row.number,
        batch_id.removeprefix("batch_").encode(),
        custom_id,
    )


class _Source:
    """One file of lines, which may still grow."""

    def __init__(self, path: Path, *, success: bool, new: bool = False) -> None:
        self.path = path
        self.success = success
        self.end = 0
        self.published = 0
        """Up to here, the lines are in the object store."""
        # Unbuffered, so that nothing of a failed write is written later.
        self._new = (
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) if new else None
        )
        self._old: BinaryIO = path.open("rb")

    def numbers(self) -> Iterator[tuple[int, int]]:
        """The numbers of the requests and the offsets of their lines, up to one that is torn."""
        for line in self._old:
            number = line[len(_ID) : len(_ID) + _DIGITS]
            if not (line.startswith(_ID) and number.isdigit() and line.endswith(b"}\n")):
                return
            yield int(number), self.end
            self.end += len(line)

    def append(self, lines: Sequence[bytes]) -> list[int]:
        """Append lines to a new file; returns their offsets. After an error, the next call replaces what was written."""
        assert self._new is not None  # noqa: S101 - only files of this run grow
        self._new.seek(self.end)
        for piece in [b"".join(lines)] if sum(map(len, lines)) < _JOINED_BYTES else lines:
            left = memoryview(piece)
            while left:
                left = left[self._new.write(left) :]
        offsets = []
        for line in lines:
            offsets.append(self.end)
            self.end += len(line)
        return offsets

    def line(self, offset: int) -> bytes:
        self._old.seek(offset)
        return self._old.readline()

    def flush(self) -> None:
        if self._new is not None:
            os.fsync(self._new.fileno())

    def close(self) -> None:
        self._old.close()
        if self._new is not None:
            self._new.close()


class Record:
    """The record of one batch, opened by one run. Does blocking I/O; threads take turns.

    Args:
        folder: where the files are.
        batch_id: whose record it is.
        run: the number of this run, which no other run has, or of the last one if it has closed the record: then this run
            continues its files, so that a batch that takes many turns has few.
        output: the output file, which exists if the batch is resumed: its requests are answered.
        last: the number of the input's last line.
    """

    def __init__(self, folder: FilesFolder, batch_id: str, run: int, output: Path, last: int) -> None:
        self.run = run
        self._folder = folder
        self._lock = threading.Lock()
        self._offsets = array("Q", bytes(8 * (last + 1)))
        self._places = array("H", bytes(2 * (last + 1)))
        """For each request the position of its source plus one, or 0 if it is not answered."""
        self.completed = self.failed = 0
        self._sources: list[_Source] = []
        if output.exists():
            self._read(_Source(output, success=True))
        own = [folder.path(f"{batch_id}.{run:06d}.{kind}.part") for kind in (_SUCCESS, _ERROR)]
        for part in folder.parts(batch_id):
            if part not in own:
                self._read(_Source(part, success=part.name.endswith(f".{_SUCCESS}.part")))
        self._new: dict[bool, int] = {}
        for part, success in zip(own, (True, False), strict=True):
            self._new[success] = len(self._sources)
            source = _Source(part, success=success, new=True)
            self._read(source)
            source.published = source.end

    def has(self, number: int) -> bool:
        """Whether a request is answered."""
        return self._places[number] != 0

    @property
    def size(self) -> int:
        """Of all lines, in bytes."""
        return sum(source.end for source in self._sources)

    def append(self, answers: Sequence[Answer]) -> None:
        """Write answers to disk.

        Raises:
            OSError: it failed; the answers can be written again.
        """
        with self._lock:
            for success in (True, False):
                chosen = [
                    answer for answer in answers if answer.success is success and not self.has(answer.number)
                ]
                if not chosen:
                    continue
                position = self._new[success]
                offsets = self._sources[position].append([answer.line for answer in chosen])
                for answer, offset in zip(chosen, offsets, strict=True):
                    self._note(answer.number, position, offset)

    def flush(self) -> None:
        """Flush the operating system's buffers, so that answers survive a loss of power."""
        with self._lock:
            for position in self._new.values():
                self._sources[position].flush()

    def publish(self) -> None:
        """Store what was appended since the last call in the object store, if there is one.

        Raises:
            OSError: it failed; the next call repeats it.
        """
        for position in self._new.values():
            source = self._sources[position]
            with self._lock:
                end = source.end
            self._folder.publish_part(source.path, source.published, end)
            source.published = end

    def write(
        self, rows: Iterator[Row], output: Path, errors: Path, missing: tuple[str, str] | None, batch_id: str
    ) -> tuple[int, int]:
        """Write the output and the error file in the order of the input; returns their sizes.

        Args:
            rows: all requests.
            output: replaced if it exists.
            errors: likewise.
            missing: code and message for requests without an answer.
            batch_id: for their lines.
        """
        with self._lock, atomic_write(output, mode=0o600) as good, atomic_write(errors, mode=0o600) as bad:
            for row in rows:
                place = self._places[row.number]
                if place:
                    source = self._sources[place - 1]
                    (good if source.success else bad).write(source.line(self._offsets[row.number]))
                elif missing is not None:
                    bad.write(error_line(batch_id, row, *missing))
        return output.stat().st_size, errors.stat().st_size

    def close(self) -> None:
        with self._lock:
            for source in self._sources:
                source.close()

    def _read(self, source: _Source) -> None:
        self._sources.append(source)
        position = len(self._sources) - 1
        for number, offset in source.numbers():
            if number < len(self._places) and not self._places[number]:
                self._note(number, position, offset)

    def _note(self, number: int, position: int, offset: int) -> None:
        self._places[number], self._offsets[number] = position + 1, offset
        if self._sources[position].success:
            self.completed += 1
        else:
            self.failed += 1
