"""`hubgate job load` into real databases: PostgreSQL with pgvector, LanceDB, Milvus Lite. Qdrant is a look-alike.

Each load is killed twice and started again; then every row and vector is compared. `HUBGATE_LOAD_ROWS` sets the size.
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
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lancedb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import MilvusClient

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from postgres.server import PostgresServer, short_folder
from servers.vector_databases import JsonHandler, qdrant_collection, serving

ROWS = int(os.environ.get("HUBGATE_LOAD_ROWS", "20000"))
DIMENSIONS = 384
TABLE = "articles"
Rows = dict[str, tuple[str, list[float]]]


def main() -> None:
    """Load into each database."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("lancedb", "milvus-lite", "qdrant-client"))
    print(f"version: {versions}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "out.parquet"
        write(output)
        server = PostgresServer(short_folder())
        server.start()
        try:
            check(
                output, server.url.replace("postgresql", "pgvector", 1), lambda: rows_of_postgres(server.url)
            )
        finally:
            server.stop()
        check(output, f"lancedb://{folder / 'lance'}", lambda: rows_of_lance(folder / "lance"))
        check(output, f"milvus://{folder / 'milvus.db'}", lambda: rows_of_milvus(folder / "milvus.db"))
        points: dict[str, Any] = {}
        with qdrant(points) as url:
            check(output, url, lambda: rows_of_qdrant(points))


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


def check(output: Path, url: str, rows: Callable[[], Rows]) -> None:
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
    assert running.returncode == 0
    seconds = time.monotonic() - started
    stored = rows()
    assert len(stored) == ROWS, (scheme, len(stored))
    for batch in pq.ParquetFile(output).iter_batches(4096, columns=["id", "title", "embedding"]):
        for row in batch.to_pylist():
            title, vector = stored[row["id"]]
            assert title == row["title"], row["id"]
            near = max(abs(a - b) for a, b in zip(vector, row["embedding"], strict=True))
            assert near < 1e-6, (scheme, row["id"], near)
    print(
        f"{scheme}: {ROWS:,} rows equal after {kills} kills, the last at {stopped_at:,}; {seconds:.0f} s,"
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


def rows_of_lance(folder: Path) -> Rows:
    table = lancedb.connect(str(folder)).open_table(TABLE).to_arrow()
    return {row["id"]: (row["title"], row["embedding"]) for row in table.to_pylist()}


def rows_of_milvus(file: Path) -> Rows:
    client = MilvusClient(str(file))
    client.load_collection(TABLE)
    found: Rows = {}
    for first in range(0, ROWS, 500):
        ids = [f"r{n}" for n in range(first, min(first + 500, ROWS))]
        for row in client.get(TABLE, ids=ids, output_fields=["id", "title", "embedding"]):
            found[row["id"]] = (row["title"], [float(number) for number in row["embedding"]])
    client.close()
    return found


def rows_of_qdrant(points: dict[str, Any]) -> Rows:
    return {point["payload"]["id"]: (point["payload"]["title"], point["vector"]) for point in points.values()}


@contextmanager
def qdrant(points: dict[str, Any]) -> Iterator[str]:
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
            else:
                points.update((str(point["id"]), point) for point in body["points"])
                self.answer(
                    {"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0.0}
                )

    with serving(Handler) as address:
        yield f"qdrant://{address}"


if __name__ == "__main__":
    main()
