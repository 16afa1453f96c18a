"""The programs of docs/jobs.md that load a job's output into Milvus and LanceDB, run as they are with the real packages.

Each runs twice, as after an interruption. Then every row and vector is compared.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import MilvusClient

ROOT = Path(__file__).resolve().parents[2]
ROWS, DIMENSIONS = 3000, 64


def main() -> None:
    """Run each program and compare what it loaded."""
    print(
        "version: " + ", ".join(f"{name} {version(name)}" for name in ("pymilvus", "milvus-lite", "lancedb"))
    )
    programs = {name: code for code in documented() for name in ("pymilvus", "lancedb") if name in code}
    assert len(programs) == 2, "docs/jobs.md has one program for each database"
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        rows = output(Path("vectors.parquet"))
        for program in programs.values():
            for _ in range(2):
                subprocess.run([sys.executable, "-c", program], check=True)
        compare(
            "LanceDB", rows, lancedb.connect("vectors.lance").open_table("articles").to_arrow().to_pylist()
        )
        client = MilvusClient("vectors.db")
        client.load_collection("articles")
        found = [
            row
            for first in range(0, ROWS, 500)
            for row in client.get("articles", ids=[f"r{n}" for n in range(first, min(first + 500, ROWS))])
        ]
        client.close()
        compare("Milvus Lite", rows, found)


def documented() -> list[str]:
    """The programs in the section about databases without a loader."""
    text = (ROOT / "docs" / "jobs.md").read_text("utf-8")
    section = text.partition("### Into Milvus or LanceDB")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def output(path: Path) -> list[dict[str, Any]]:
    """Write an output like that of a job, and return its rows."""
    chosen = random.Random(5)
    flat = pa.array([chosen.uniform(-1, 1) for _ in range(ROWS * DIMENSIONS)], pa.float32())
    columns = {
        "id": pa.array([f"r{n}" for n in range(ROWS)]),
        "title": pa.array([f"title {n}" for n in range(ROWS)]),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS),
        "tokens": pa.array([3] * ROWS, pa.int32()),
    }
    table = pa.table(columns)
    pq.write_table(table, path, row_group_size=1024)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def compare(database: str, rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Check that a database has each row once, with its vector."""
    expected = {row["id"]: (row["title"], row["embedding"]) for row in rows}
    loaded = {row["id"]: (row["title"], [float(n) for n in row["embedding"]]) for row in found}
    assert len(found) == ROWS, (database, len(found))
    assert loaded == expected, database
    print(f"{database}: {ROWS:,} rows equal")


if __name__ == "__main__":
    main()
