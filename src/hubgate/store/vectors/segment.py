"""A file of vectors that is only appended to.

It consists of records (see `record`). Beside a complete file stands its list: the hashes and offsets of its records, so
that a start need not read the vectors.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hubgate.files import write_private
from hubgate.store.vectors.record import HEAD, UNIT, record_size

LISTED_BYTES = 12
"""Of a record in a list."""
MAX_BYTES = 1 << 30
"""Of a segment, so that offsets in it, which are counted in units, fit in 28 bits."""

_MAGIC = b"hubgate-vectors4"
_LIST = struct.Struct("<16sQI")
"""Magic, the bytes of the segment that it covers, and the checksum of what follows: all hashes, then all offsets."""
_MAX_RECORD = 1 << 24
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)
_FIRST_READ = 2048


def hashes_of(keys: Iterable[bytes]) -> array[int]:
    """The first eight bytes of each key, which is a digest of 32."""
    return array("Q", b"".join(keys))[::4]


class Segment:
    """An open segment.

    Its file is closed when nothing refers to it any longer, so a reader may go on while it is evicted.

    Args:
        path: created if it does not exist. A list has the same name, with `.list` at its end.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._file)
        self.bytes = os.fstat(self._file).st_size
        """Its size; after `records` without anything unfinished at its end."""
        self._hashes, self._offsets = array("Q"), array("I")
        self._listed = 0
        """Bytes that the list covers."""
        self._record_bytes = _FIRST_READ
        if self.bytes < len(_MAGIC):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _MAGIC, 0)
            self.bytes = len(_MAGIC)

    def append(self, records: Mapping[bytes, bytes]) -> Iterable[tuple[int, int]]:
        """Write records by key; returns the hash and the offset of each.

        Raises:
            OSError: nothing was written.
        """
        offsets, offset = array("I"), self.bytes // UNIT
        for record in records.values():
            offsets.append(offset)
            offset += len(record) // UNIT
        content = b"".join(records.values())
        hashes = hashes_of(records)
        try:
            _write(self._file, content, self.bytes)
        except OSError:
            os.ftruncate(self._file, self.bytes)
            raise
        self.bytes = offset * UNIT
        self._hashes.extend(hashes)
        self._offsets.extend(offsets)
        return zip(hashes, offsets, strict=True)

    def read(self, offset: int) -> bytes | None:
        """The record at an offset, with its padding; `None` if it is damaged.

        Raises:
            OSError: it cannot be read.
        """
        return self._read(offset, 0)

    def read_at_once(self, offset: int) -> bytes | None:
        """The same, without waiting for the disk.

        Raises:
            BlockingIOError: it is not in the memory of the operating system.
            OSError: it cannot be read, or this system cannot read so.
        """
        if not _NO_WAIT:
            raise BlockingIOError
        return self._read(offset, _NO_WAIT)

    def _read(self, offset: int, flags: int) -> bytes | None:
        buffer = bytearray(self._record_bytes)
        got = _preadv(self._file, buffer, offset * UNIT, flags)
        if got < HEAD.size:
            if flags:
                raise BlockingIOError
            return None
        size = record_size(int.from_bytes(buffer[:4], "little"))
        if size > min(_MAX_RECORD, self.bytes - offset * UNIT):
            return None
        if size > got:
            self._record_bytes = size
            buffer = bytearray(size)
            if _preadv(self._file, buffer, offset * UNIT, flags) < size:
                raise BlockingIOError  # only part of it is in memory
        return bytes(memoryview(buffer)[:size])

    def records(self) -> Iterator[tuple[int, int]]:
        """The hash and the offset of each record, oldest first. They are read from the file once.

        Raises:
            OSError: it cannot be read.
        """
        covered = self._read_list() if not self._hashes else self.bytes
        yield from zip(self._hashes, self._offsets, strict=True)
        if covered < self.bytes:
            for key_hash, offset in self._scan(covered):
                self._hashes.append(key_hash)
                self._offsets.append(offset)
                yield key_hash, offset

    def complete(self) -> None:
        """Write the list, and free the memory of `records`.

        Raises:
            OSError: the list cannot be written.
        """
        for _ in self.records():
            pass
        if self._listed < self.bytes:
            self._write_list()
        self._hashes, self._offsets = array("Q"), array("I")

    def remove(self) -> None:
        """Delete the file and its list.

        Raises:
            OSError: they cannot be deleted.
        """
        self.path.unlink(missing_ok=True)
        self._list.unlink(missing_ok=True)

    @property
    def _list(self) -> Path:
        return self.path.with_suffix(".list")

    def _read_list(self) -> int:
        """Take the records from the list; returns how many bytes of the segment it covers."""
        try:
            content = self._list.read_bytes()
        except FileNotFoundError:
            return len(_MAGIC)
        magic, covered, checksum = _LIST.unpack_from(content.ljust(_LIST.size))
        body = memoryview(content)[_LIST.size :]
        count, rest = divmod(len(body), LISTED_BYTES)
        if magic != _MAGIC or rest or covered > self.bytes or zlib.crc32(body) != checksum:
            self._list.unlink()
            return len(_MAGIC)
        self._hashes.frombytes(body[: count * 8])
        self._offsets.frombytes(body[count * 8 :])
        self._listed = int(covered)
        return self._listed

    def _write_list(self) -> None:
        content = self._hashes.tobytes() + self._offsets.tobytes()
        write_private(self._list, _LIST.pack(_MAGIC, self.bytes, zlib.crc32(content)) + content)
        self._listed = self.bytes

    def _scan(self, start: int) -> Iterator[tuple[int, int]]:
        """The records from a byte on. What a killed process or a power cut left unfinished is cut off."""
        at = start
        with mmap.mmap(self._file, self.bytes, access=mmap.ACCESS_READ) as content:
            while at + HEAD.size <= self.bytes:
                length, key, *_ = HEAD.unpack_from(content, at)
                size = record_size(length)
                if not 0 < length <= _MAX_RECORD or at + size > self.bytes:
                    break
                yield hashes_of([key])[0], at // UNIT
                at += size
        if at != self.bytes:
            os.ftruncate(self._file, at)
            self.bytes = at


def is_segment(path: Path) -> bool:
    """Whether this file was written by `Segment`, in this format."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _preadv(file: int, buffer: bytearray, offset: int, flags: int) -> int:
    return os.preadv(file, [buffer], offset, flags) if flags else os.preadv(file, [buffer], offset)


def _write(file: int, content: bytes, offset: int) -> None:
    if os.pwrite(file, content, offset) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
