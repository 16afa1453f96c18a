"""`hubgate job load` into a file of Milvus Lite. `scripts/clients/load_databases.py` loads into a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command


def test_large_output_is_announced_with_its_memory(hubgate: Command, tmp_path: Path) -> None:
    rows, dimensions = 1500, 8192
    numbers = pa.repeat(pa.scalar(0, pa.float32()), rows * dimensions)
    vectors = pa.FixedSizeListArray.from_arrays(numbers, dimensions)
    for name, size in (("few", 10), ("many", rows)):
        ids = pa.array([f"r{n}" for n in range(size)])
        pq.write_table(
            pa.table({"id": ids, "embedding": vectors.slice(0, size)}), tmp_path / f"{name}.parquet"
        )
    to = (
        "--to",
        f"milvus://{tmp_path}/no-such-folder/m.db",
        "--table",
        "t",
        "--create",
        "--similarity",
        "cosine",
    )
    assert "of memory" not in hubgate("job", "load", str(tmp_path / "few.parquet"), *to).err
    message = "will need about 585 MiB of memory. For large outputs, use a database server."
    assert message in hubgate("job", "load", str(tmp_path / "many.parquet"), *to).err
