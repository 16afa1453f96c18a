"""The commands for the output of a job on Ray. No test needs Ray: what runs on the cluster is called in one process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_script import Script, vector

from hubgate.domain.endpoint import OutputDtype
from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.folder import Task
from hubgate.features.bulk.load.output import Position
from hubgate.features.bulk.load.parts import PartsOutput
from hubgate.features.bulk.ray.tasks import embed_split, finish, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command

ROWS = 23


async def make(folder: Path, *, parts: int | None = None, dtype: OutputDtype = OutputDtype.FLOAT) -> Path:
    """Run a job whose output has six parts, or only the first `parts`."""
    source, output = folder / "in.parquet", folder / "out"
    texts = [f"text {n}" for n in range(ROWS)]
    pq.write_table(pa.table({"key": [f"r{n}" for n in range(ROWS)], "text": texts}), source)
    task = Task(input=str(source), output=str(output), endpoint="e5", id_field="key", output_dtype=dtype)
    job = prepare(task, {"model": "org/model", "dimensions": 3}, 4, overwrite=False)
    for split in job.missing[:parts]:
        await embed_split(job.plan.work(split), Script(), concurrency=2, patience=0)
    if parts is None:
        finish(job.plan)
    return output


async def test_parts_are_loaded_in_order_from_any_position(tmp_path: Path) -> None:
    output = PartsOutput(str(await make(tmp_path)))
    assert (output.rows, output.endpoint, output.shape.dimensions) == (ROWS, "e5", 3)
    for start in (0, 3, 4, 22, ROWS):
        found = list(output.batches(Position(start), 3))
        ids = [one for table, _ in found for one in table["id"].to_pylist()]
        assert ids == [f"r{n}" for n in range(start, ROWS)]
        assert [position.rows for _, position in found][-1:] == ([ROWS] if ids else [])


async def test_the_commands_know_an_output_of_ray(
    hubgate: Command, tmp_path: Path, database_url: str
) -> None:
    out = str(await make(tmp_path))
    shown = hubgate("job", "show", out)
    assert shown.status == 0
    fields = dict(line.split(maxsplit=1) for line in shown.out.splitlines() if len(line.split()) > 1)
    assert (fields["status"], fields["parts"], fields["endpoint"]) == ("done", "6 of 6", "e5")
    url = database_url.replace("postgresql://", "pgvector://", 1)
    load = ("job", "load", out, "--to", url, "--table", "t", "--create", "--similarity", "cosine")
    for _ in range(2):
        loaded = hubgate(*load)
        assert (loaded.status, loaded.err) == (0, "")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT id, embedding FROM t").fetchall()
    assert len(rows) == ROWS
    for row_id, numbers in rows:
        wanted = memoryview(vector(f"text {row_id[1:]}")).cast("f").tolist()
        assert json.loads(numbers) == pytest.approx(wanted)
    assert "to a job on Ray. To cancel it, press Ctrl-C" in hubgate("job", "cancel", out).err
    assert "to a job on Ray. To resume it, run its command" in hubgate("job", "resume", out).err


async def test_an_incomplete_output_is_shown_and_not_loaded(hubgate: Command, tmp_path: Path) -> None:
    out = str(await make(tmp_path, parts=2))
    assert "2 of 6" in hubgate("job", "show", out).out
    loaded = hubgate("job", "load", out, "--to", "pgvector://nowhere/x", "--table", "t")
    assert (loaded.status, "4 of 6 parts are missing" in loaded.err) == (1, True)


async def test_packed_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobStopped, match="binary vectors"):
        PartsOutput(str(await make(tmp_path, parts=0, dtype=OutputDtype.BINARY)))


def test_another_folder_is_not_an_output_of_ray(tmp_path: Path) -> None:
    with pytest.raises(JobStopped, match="is not the output of a job on Ray"):
        PartsOutput(str(tmp_path))
