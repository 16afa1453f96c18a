"""The vector cache on disk beside SQLite and LMDB: CPU time, bytes written, size, start and memory.

python benchmarks/vector_cache.py [--vectors 1000000] [--with-lmdb] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from support import machine
from support.table import show

from hubgate.domain.calls import CachedVector
from hubgate.store.vectors.log import VectorLog
from hubgate.store.vectors.record import read_record, records_of

LMDB = "1.7.5"
_LMDB_FOLDER = Path(__file__).parents[1] / "build" / "bench" / f"lmdb-{LMDB}"
_BATCH = 160
"""Vectors written at once, as the gateway does: 256 KiB."""
_LOOKUP = 8
_LOOKUPS = 5000
_NUMBERS = random.Random(1).randbytes(384 * 4)

_Rows = Mapping[bytes, CachedVector]


class _Store(Protocol):
    def write(self, vectors: _Rows) -> None: ...
    def read(self, keys: Sequence[bytes]) -> _Rows: ...
    def close(self) -> None: ...


class _Log:
    """What the gateway uses, without its thread."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._log = VectorLog(folder / "vectors", max_bytes)
        while self._log.load():
            pass
        self.close = self._log.close

    def write(self, vectors: _Rows) -> None:
        while self._log.evict(_BATCH * 1600):
            pass
        self._log.write(vectors)

    def read(self, keys: Sequence[bytes]) -> _Rows:
        return self._log.read_at_once(self._log.find(keys))[0]


class _Sqlite:
    """As hubgate stored vectors before: a row for each, found by a unique index of the keys."""

    def __init__(self, folder: Path, max_bytes: int) -> None:  # noqa: ARG002 - it does not evict
        self._db = sqlite3.connect(folder / "vectors.db", isolation_level=None)
        for pragma in ("page_size = 16384", "journal_mode = WAL", "synchronous = OFF", "cache_size = -4096"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, key BLOB UNIQUE, data BLOB)"
        )
        self.close = self._db.close

    def write(self, vectors: _Rows) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT OR REPLACE INTO vectors (key, data) VALUES (?, ?)", list(records_of(vectors).items())
        )
        self._db.execute("COMMIT")

    def read(self, keys: Sequence[bytes]) -> _Rows:
        marks = ",".join("?" * len(keys))
        rows = self._db.execute(f"SELECT key, data FROM vectors WHERE key IN ({marks})", keys)  # noqa: S608
        return {key: vector for key, data in rows if (vector := read_record(data, key))}


class _Lmdb:
    """LMDB without a flush of each transaction."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        sys.path.append(str(_LMDB_FOLDER))
        import lmdb  # type: ignore[import-not-found] # noqa: PLC0415 - only installed when asked for

        self._env: Any = lmdb.open(str(folder), map_size=4 * max_bytes, sync=False, metasync=False)
        self.close = self._env.close

    def write(self, vectors: _Rows) -> None:
        with self._env.begin(write=True) as transaction:
            for key, data in records_of(vectors).items():
                transaction.put(key, data)

    def read(self, keys: Sequence[bytes]) -> _Rows:
        with self._env.begin() as transaction:
            return {
                key: vector
                for key in keys
                if (data := transaction.get(key)) is not None and (vector := read_record(data, key))
            }


_FULL = "hubgate, full"
_STORES: Mapping[str, Callable[[Path, int], _Store]] = {
    "hubgate": _Log,
    _FULL: _Log,
    "SQLite": _Sqlite,
    "LMDB": _Lmdb,
}


def main() -> None:
    """Measure each store in processes of its own, and print."""
    parser = argparse.ArgumentParser(description="The vector cache on disk, beside SQLite and LMDB.")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="of 384 numbers")
    parser.add_argument("--quick", action="store_true", help="100,000 vectors")
    parser.add_argument("--with-lmdb", action="store_true", help="install LMDB (once) and measure it too")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    count = 100_000 if options.quick else options.vectors
    if options.store:
        measure = _filled if options.fill else _started
        print(json.dumps(measure(options.store, options.folder, count)))
        return
    if options.with_lmdb and not _LMDB_FOLDER.exists():
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(_LMDB_FOLDER)]
        subprocess.run([*pip, f"lmdb=={LMDB}"], check=True)
    print(f"\n{count:,} vectors of 384 numbers; µs are CPU time for each vector, files in the page cache")
    print(f"{machine.facts()}\n")
    rows = []
    for store in _STORES:
        if store == "LMDB" and not options.with_lmdb:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                __file__,
                "--vectors",
                str(count),
                "--store",
                store,
                "--folder",
                folder,
            ]
            filled = subprocess.run([*command, "--fill"], stdout=subprocess.PIPE, check=True)
            started = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        rows.append((store, *json.loads(filled.stdout), *json.loads(started.stdout)))
    head = ("", "insert µs", "written ×", "hit µs", "miss µs", "disk bytes", "start s", "memory bytes")
    show(head, rows)
    print("written ×: bytes written for each byte of a vector; disk, memory: for each vector that is stored.")
    print("full: with room for half of the vectors, so that every second write evicts.\n")


def _filled(name: str, folder: Path, count: int) -> Sequence[str]:
    store = _opened(name, folder, count)
    written, insert = _written_bytes(), 0.0
    for start in range(0, count, _BATCH):
        vectors = {
            _key(number): CachedVector(_NUMBERS, tokens=7, exact=True, truncated=False)
            for number in range(start, start + _BATCH)
        }
        begun = time.process_time()
        store.write(vectors)
        insert += time.process_time() - begun
    written = _written_bytes() - written
    order = random.Random(2)
    newest = [order.randrange(count * 9 // 10, count) for _ in range(_LOOKUPS * _LOOKUP)]
    _read(store, newest)
    hit = _read(store, newest)
    miss = _read(store, range(2 * count, 2 * count + _LOOKUPS * _LOOKUP))
    store.close()
    disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    return (
        f"{insert / count * 1e6:.1f}",
        f"{written / count / len(_NUMBERS):.2f}",
        f"{hit:.1f}",
        f"{miss:.1f}",
        f"{disk / _stored(name, count):,.0f}",
    )


def _started(name: str, folder: Path, count: int) -> Sequence[str]:
    memory, begun = _memory(), time.monotonic()
    store = _opened(name, folder, count)
    started, memory = time.monotonic() - begun, _memory() - memory
    store.close()
    return f"{started:.2f}", f"{memory / _stored(name, count):.0f}"


def _opened(name: str, folder: Path, count: int) -> _Store:
    return _STORES[name](folder, count * (800 if name == _FULL else 2500))


def _stored(name: str, count: int) -> int:
    return count // 2 if name == _FULL else count


def _read(store: _Store, numbers: Sequence[int]) -> float:
    """CPU µs for each key."""
    keys = [_key(number) for number in numbers]
    begun = time.process_time()
    for start in range(0, len(keys), _LOOKUP):
        store.read(keys[start : start + _LOOKUP])
    return (time.process_time() - begun) / len(keys) * 1e6


def _key(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=32).digest()


def _written_bytes() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
