"""Vectors in a SQLite file that never grows beyond its bound. All of it blocks: it belongs to one thread.

Rows are numbered as they are written, so the lowest are the oldest. Which were read since is kept in memory only: a
read writes nothing, and when room is made a vector that was read gets a second chance among the newest (the "clock"
form of least recently used).
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hubgate.core.vectors import json_to_f32
from hubgate.domain.calls import CachedVector, Encoding
from hubgate.domain.errors import UpstreamUnreadable
from hubgate.files import create_private_folder
from hubgate.store.vectors.bloom_filter import KnownKeys

_FORMAT = 2
"""1 had keys that anybody could compute from a text."""
_KEY_BYTES = 32
_PAGE_BYTES = 16 * 1024
"""Measured with 200,000 vectors of 384: writes cost a third of those with pages of 4 KiB, and the file is 20 % smaller."""
LOG_BYTES = 4 * 1024 * 1024
_MOST_KEYS = 500
"""In one question; SQLite's own limit is 32,766."""
_EVICTED = 256
"""Rows that are looked at to make room: at least half of them go."""
_MOST_MARKS = 100_000
_LEARNED = 2000
"""Keys that are learned in one go, some 5 ms: reads come in between."""
_TABLE = "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, data BLOB NOT NULL)"

_CHECKSUM = struct.Struct("<I")
_HEAD = struct.Struct("<qBB")
"""Tokens, or -1; whether they are exact; whether the text was cut, or 2 where that is not known."""
_UNKNOWN = 2


class VectorTable:
    """What `hubgate.store.vectors.file` does in its thread.

    The file is opened when it is first needed, and again after `close`. Every method but `close` and `may_hold` raises
    `sqlite3.Error` or `OSError` where the file cannot be used; after that, only `close` and `remove` may follow.
    """

    def __init__(self, path: Path, most_bytes: int, *, patience: float) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._patience = patience
        self._db: sqlite3.Connection | None = None
        self._read_since: set[int] = set()
        self._known = KnownKeys(most_bytes)
        self._learned: bytes | None = b""
        """The keys up to this one are known; `None` when all are."""

    def may_hold(self, key: bytes) -> bool:
        """Whether it is worth while to `read` this key. Any thread may ask."""
        return self._learned is not None or key in self._known

    def learn(self) -> bool:
        """Learn some of the keys that are in the file; whether there may be more."""
        if self._learned is None:
            return False
        rows = self._opened().execute(
            "SELECT key FROM vectors WHERE key > ? ORDER BY key LIMIT ?", (self._learned, _LEARNED)
        )
        keys = [key for (key,) in rows if isinstance(key, bytes) and len(key) == _KEY_BYTES]
        for key in keys:
            self._known.add(key)
        # Damage may have put keys out of order: what is not learned then is computed anew, and this comes to an end.
        self._learned = keys[-1] if keys and keys[-1] > self._learned else None
        return self._learned is not None

    def read(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Those vectors of the keys that are there and undamaged."""
        db, found = self._opened(), {}
        for start in range(0, len(keys), _MOST_KEYS):
            part = keys[start : start + _MOST_KEYS]
            places = ",".join("?" * len(part))
            for number, key, data in db.execute(
                f"SELECT id, key, data FROM vectors WHERE key IN ({places})",  # noqa: S608 - only question marks
                part,
            ):
                vector = _unpacked(key, data)
                if vector:
                    found[key] = vector
                    self._read_since.add(number)
        if len(self._read_since) > _MOST_MARKS:
            self._read_since.clear()
        return found

    def write(self, vectors: Mapping[bytes, CachedVector]) -> None:
        """Add vectors, or put them in the place of those of equal keys; the longest unused make room."""
        rows = list(_rows(vectors))
        db = self._opened()
        db.execute("BEGIN IMMEDIATE")
        # Pages are never quite full, and the keys stand in an index too: twice the bytes are always enough.
        self._make_room(db, 2 * sum(len(data) for _, data in rows) + 8 * _PAGE_BYTES)
        db.executemany("INSERT OR REPLACE INTO vectors (key, data) VALUES (?, ?)", rows)
        db.execute("COMMIT")
        for key, _ in rows:
            self._known.add(key)

    def measure(self) -> tuple[int, int]:
        """How many vectors there are, and the bytes of the file that they take."""
        db = self._opened()
        return _number(db, "SELECT count(*) FROM vectors"), _used(db)

    def remove(self) -> None:
        """Delete the file; the next use makes a new one."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._known, self._learned = KnownKeys(self._most_bytes), None

    def close(self) -> None:
        """Let go of the file; what was begun and not finished is undone."""
        if self._db:
            self._db.close()
        self._db = None
        self._read_since.clear()

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = self._open()
        return self._db

    def _open(self) -> sqlite3.Connection:
        create_private_folder(self._path.parent)
        self._path.touch(mode=0o600)
        self._path.chmod(0o600)
        db = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.text_factory = bytes  # what damage turned into text shall not fail to decode
        version = _number(db, "PRAGMA user_version")
        if version not in {0, _FORMAT}:
            raise sqlite3.NotSupportedError("of another version of hubgate")
        if version == 0:
            _make(db)
        # A killed process loses nothing by it. A power cut may damage the file, and the checksums find that.
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // _PAGE_BYTES}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        db.execute(f"PRAGMA cache_size = {-LOG_BYTES // 1024}")
        if _number(db, "PRAGMA page_count") * _PAGE_BYTES > self._most_bytes:
            self._shrink(db)
        db.execute(f"PRAGMA max_page_count = {self._most_bytes // _PAGE_BYTES}")

    def _shrink(self, db: sqlite3.Connection) -> None:
        """Fit a file into a bound that was lowered."""
        db.execute("BEGIN IMMEDIATE")
        self._make_room(db, 0)
        db.execute("COMMIT")
        db.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page

    def _make_room(self, db: sqlite3.Connection, needed: int) -> None:
        while _used(db) + needed > self._most_bytes:
            lowest = db.execute("SELECT id FROM vectors ORDER BY id LIMIT ?", (_EVICTED,))
            oldest = [number for (number,) in lowest]
            if not oldest:
                return
            spared = [number for number in oldest if number in self._read_since][: len(oldest) // 2]
            self._read_since.difference_update(oldest)
            db.executemany(
                "UPDATE vectors SET id = (SELECT max(id) FROM vectors) + 1 WHERE id = ?",
                [(number,) for number in spared],
            )
            db.execute("DELETE FROM vectors WHERE id <= ?", (oldest[-1],))


def _make(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(_TABLE)
    db.execute(f"PRAGMA user_version = {_FORMAT}")


def is_beyond_repair(error: Exception) -> bool:
    """Whether the file itself is the trouble, so that a new one would do."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return isinstance(error, sqlite3.NotSupportedError) or code in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,  # another table than ours
    }


def _used(db: sqlite3.Connection) -> int:
    return (_number(db, "PRAGMA page_count") - _number(db, "PRAGMA freelist_count")) * _number(
        db, "PRAGMA page_size"
    )


def _number(db: sqlite3.Connection, question: str) -> int:
    return int(db.execute(question).fetchone()[0])


def _rows(vectors: Mapping[bytes, CachedVector]) -> Iterator[tuple[bytes, bytes]]:
    for key, vector in vectors.items():
        try:
            single = vector.vector if vector.encoding is Encoding.F32 else json_to_f32(vector.vector)
            row = key, _packed(key, vector, single)
        except (UpstreamUnreadable, struct.error):
            continue  # a number too large for single precision, or a count for eight bytes
        yield row


def _packed(key: bytes, vector: CachedVector, single: bytes) -> bytes:
    tokens = -1 if vector.tokens is None else vector.tokens
    cut = _UNKNOWN if vector.truncated is None else vector.truncated
    body = _HEAD.pack(tokens, vector.exact, cut) + single
    return _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(key))) + body


def _unpacked(key: bytes, data: bytes) -> CachedVector | None:
    """The vector of a row, unless the row was damaged: a wrong vector is worse than none."""
    body = data[_CHECKSUM.size :]
    if len(body) < _HEAD.size or data[: _CHECKSUM.size] != _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(key))):
        return None
    tokens, exact, cut = _HEAD.unpack_from(body)
    return CachedVector(
        vector=body[_HEAD.size :],
        tokens=None if tokens < 0 else tokens,
        exact=bool(exact),
        truncated=None if cut == _UNKNOWN else bool(cut),
    )
