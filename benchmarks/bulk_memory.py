"""G14, memory: a Parquet of 200,000 rows, embedded by a job with a gateway of its own and the fake source.

    python benchmarks/bulk_memory.py [--rows 200000]

One process: the job, its gateway and the model are in it. What counts is its largest resident memory.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.ended import run
from support.table import show

_GOAL_MB = 400
_HUBGATE = (sys.executable, "-m", "hubgate")
_WORDS = ("gate", "model", "text", "vector", "search", "river", "stone", "garden", "lamp", "winter")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="G14: memory of a bulk job.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    rows = options.rows // 10 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source, output = folder / "in.parquet", folder / "out.parquet"
        # In a process of its own: what a parent holds counts for the largest size of its children too.
        writer = get_context("spawn").Process(target=write_input, args=(source, rows))
        writer.start()
        writer.join()
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HUBGATE_", "HF_"))}
        env |= {"HOME": made, "HUBGATE_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        subprocess.run([*_HUBGATE, "add", "fake", "--fake"], env=env, check=True, capture_output=True)
        empty = run([*_HUBGATE, "key", "list"], output=folder / "log", env=env)
        command = [
            *_HUBGATE,
            "job",
            "run",
            str(source),
            str(output),
            "--endpoint",
            "fake",
            "--id-field",
            "id",
        ]
        ended = run(command, output=folder / "log", env=env)
        written = pq.read_metadata(output)
        assert written.num_rows == rows
        print(
            f"\nG14  memory: {rows:,} rows, {source.stat().st_size / 1e6:.0f} MB in, {output.stat().st_size / 1e6:.0f} MB out\n"
        )
        show(
            ("", "peak MB", "seconds", "rows/s"),
            [
                ("a gateway in a command, at rest", f"{empty.peak_mb:.0f}", "", ""),
                (
                    "job, gateway and fake model",
                    f"{ended.peak_mb:.0f}",
                    f"{ended.seconds:.0f}",
                    f"{rows / ended.seconds:,.0f}",
                ),
            ],
        )
    if ended.peak_mb > _GOAL_MB:
        sys.exit(f"More than {_GOAL_MB} MB.")


def write_input(path: Path, rows: int) -> None:
    """Texts of 20 to 60 words, all in one row group: a reader that takes a whole one would hold all of them."""
    random.seed(1)
    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    texts = [" ".join(random.choices(_WORDS, k=random.randint(20, 60))) for _ in range(rows)]
    table = pa.table({"id": [f"r{number}" for number in range(rows)], "text": texts}, schema)
    pq.write_table(table, path, row_group_size=rows)


if __name__ == "__main__":
    main()
