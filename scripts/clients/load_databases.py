"""`hubgate job load` into a real PostgreSQL with pgvector.

Elasticsearch and Qdrant are look-alikes, which answer 429 now and then and refuse some rows. Each load is killed twice
and started again; then every row and vector is compared. `HUBGATE_LOAD_ROWS` sets the size, arguments choose schemes.
"""
# ruff: noqa: N802 - the methods of a handler

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from postgres.server import PostgresServer, short_folder
from servers.vector_databases import JsonHandler, qdrant_collection, serving

ROWS = int(os.environ.get("HUBGATE_LOAD_ROWS", "20000"))
DIMENSIONS = 384
TABLE = "articles"
REFUSED = frozenset(f"r{n}" for n in range(ROWS // 8, ROWS, ROWS // 4))
"""What the look-alikes reject."""
Rows = dict[str, tuple[str, list[float]]]


def main() -> None:
    """Load into each database."""
    packages = ("psycopg", "elasticsearch", "qdrant-client")
    print("version: " + ", ".join(f"{name} {version(name)}" for name in packages))
    with tempfile.TemporaryDirectory() as name:
        output = Path(name, "out.parquet")
        write(output)
        for scheme in sys.argv[1:] or CHECKS:
            CHECKS[scheme](output)


def check_postgres(output: Path) -> None:
    server = PostgresServer(short_folder())
    server.start()
    try:
        url = server.url.replace("postgresql", "pgvector", 1)
        check(output, url, lambda: rows_of_postgres(server.url))
    finally:
        server.stop()


def check_elastic(output: Path) -> None:
    rows: Rows = {}
    with elastic(rows) as url:
        check(output, url, lambda: rows, REFUSED)


def check_qdrant(output: Path) -> None:
    rows: Rows = {}
    with qdrant(rows) as url:
        check(output, url, lambda: rows, REFUSED)


CHECKS = {
    "pgvector": check_postgres,
    "elasticsearch": check_elastic,
    "qdrant": check_qdrant,
}


def write(output: Path) -> None:
    """An output like that of a job, with a group for each 16,384 rows."""
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("title", pa.string()),
            pa.field("embedding", pa.list_(pa.float32(), DIMENSIONS)),
            pa.field("tokens", pa.int32()),
            pa.field("tokens_unread", pa.int32()),
        ]
    )
    chosen = random.Random(5)
    with pq.ParquetWriter(output, schema, compression="none") as writer:
        for first in range(0, ROWS, 16_384):
            numbers = range(first, min(first + 16_384, ROWS))
            flat = pa.array([chosen.uniform(-1, 1) for _ in range(len(numbers) * DIMENSIONS)], pa.float32())
            writer.write_table(
                pa.Table.from_arrays(
                    [
                        pa.array([f"r{n}" for n in numbers]),
                        pa.array([f"title {n}" for n in numbers]),
                        pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS),
                        pa.array([3] * len(numbers), pa.int32()),
                        pa.array([0] * len(numbers), pa.int32()),
                    ],
                    schema=schema,
                )
            )


def check(output: Path, url: str, rows: Callable[[], Rows], refused: AbstractSet[str] = frozenset()) -> None:
    """Load, kill twice, load to the end, compare."""
    scheme = url.partition(":")[0]
    command = [sys.executable, "-m", "hubgate", "job", "load", str(output), "--to", url, "--table", TABLE]
    command += ["--create", "--similarity", "cosine"]
    environment = {**os.environ, "HUBGATE_HOME": str(output.parent / "home")}
    before, started, kills = {*output.parent.glob("*.load-*")}, time.monotonic(), 0
    for wanted in (ROWS // 5, ROWS // 2):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
            while running.poll() is None and position(output, before) < wanted:
                time.sleep(0.02)
            kills += running.poll() is None
            running.kill()
    stopped_at = position(output, before)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
        peak = 0
        while running.poll() is None:
            peak = max(peak, peak_memory(running.pid))
            time.sleep(0.05)
    assert running.returncode == (1 if refused else 0)
    seconds = time.monotonic() - started
    failures = {*output.parent.glob("*.failed.jsonl")} - before
    reported = [json.loads(line)["id"] for path in failures for line in path.read_bytes().splitlines()]
    assert {*reported} == refused, (scheme, reported)
    stored = rows()
    assert len(stored) == ROWS - len(refused), (scheme, len(stored))
    for batch in pq.ParquetFile(output).iter_batches(4096, columns=["id", "title", "embedding"]):
        for row in batch.to_pylist():
            if row["id"] in refused:
                continue
            title, vector = stored[row["id"]]
            assert title == row["title"], row["id"]
            near = max(abs(a - b) for a, b in zip(vector, row["embedding"], strict=True))
            assert near < 1e-6, (scheme, row["id"], near)
    print(
        f"{scheme}: {len(stored):,} rows equal, {len(refused)} refused, after {kills} kills, the last at {stopped_at:,}; {seconds:.0f} s,"
        f" {peak} MiB",
        flush=True,
    )


def peak_memory(process: int) -> int:
    """The most memory that a process has had, in MiB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def position(output: Path, before: set[Path]) -> int:
    """How many rows the load has recorded."""
    for path in {*output.parent.glob("*.load-*.json")} - before:
        return int(json.loads(path.read_bytes())["position"]["rows"])
    return 0


def rows_of_postgres(url: str) -> Rows:
    with psycopg.connect(url) as connection:
        rows = connection.execute(f"SELECT id, title, embedding FROM {TABLE}")  # noqa: S608
        return {row[0]: (row[1], json.loads(row[2])) for row in rows}


@contextmanager
def elastic(rows: Rows) -> Iterator[str]:
    """One index, by Elasticsearch's documented bulk API. Every 500th row is answered 429 when it is first sent."""
    mappings: dict[str, Any] = {}
    busy = {f"r{n}" for n in range(0, ROWS, 500)}

    def store(name: str, document: Any) -> dict[str, Any]:
        if name in busy:
            busy.remove(name)
            return {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}
        if name in REFUSED:
            return {"status": 400, "error": {"type": "document_parsing_exception", "reason": "no vector"}}
        rows[name] = (document["title"], document["embedding"])
        return {"status": 201, "result": "created"}

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self.answer({TABLE: {"mappings": mappings}} if mappings else {}, 200 if mappings else 404)

        def do_POST(self) -> None:
            self.body()
            self.answer({})

        def do_PUT(self) -> None:
            if not self.path.endswith("_bulk"):
                mappings.update(json.loads(self.body())["mappings"])
                self.answer({"acknowledged": True})
                return
            lines = [json.loads(line) for line in self.body().splitlines()]
            items = []
            for action, document in zip(lines[::2], lines[1::2], strict=True):
                meta = action["index"]
                items.append({"index": {**meta, **store(meta["_id"], document)}})
            errors = any("error" in item["index"] for item in items)
            self.answer({"took": 1, "errors": errors, "items": items})

    with serving(Handler) as address:
        yield f"elasticsearch://{address}"


@contextmanager
def qdrant(rows: Rows) -> Iterator[str]:
    """One collection, by Qdrant's documented API. Every tenth request is answered 429."""
    state: dict[str, Any] = {"collection": None, "requests": 0}

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            if state["collection"] is None:
                self.answer({"status": {"error": "Not found: Collection doesn't exist!"}, "time": 0.0}, 404)
                return
            self.answer({"result": qdrant_collection(state["collection"]), "status": "ok", "time": 0.0})

        def do_PUT(self) -> None:
            body = json.loads(self.body())
            state["requests"] += 1
            if "points" not in body:
                state["collection"] = body["vectors"]
                self.answer({"result": True, "status": "ok", "time": 0.0})
            elif state["requests"] % 10 == 0:
                self.answer({"status": {"error": "Too many requests"}, "time": 0.0}, 429)
            elif any(point["payload"]["id"] in REFUSED for point in body["points"]):
                self.answer({"status": {"error": "Wrong input"}, "time": 0.0}, 400)
            else:
                for point in body["points"]:
                    rows[point["payload"]["id"]] = (point["payload"]["title"], point["vector"])
                done = {"operation_id": 1, "status": "completed"}
                self.answer({"result": done, "status": "ok", "time": 0.0})

    with serving(Handler) as address:
        yield f"qdrant://{address}"


if __name__ == "__main__":
    main()
