"""What runs on a cluster, called here in one process: the plan, the parts and what is resumed. No test needs Ray."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from model_script import Script, one_each, refused, vector

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.rows import JobStopped, Reply
from hubgate.features.bulk.folder import Task
from hubgate.features.bulk.ray.tasks import Prepared, Report, embed_split, finish, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = 23
FACTS = {"model": "org/model", "dimensions": 3}


def text(number: int) -> str:
    return f"text {number}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two Parquet files of 12 and 11 rows, in row groups of 5."""
    (tmp_path / "in").mkdir()
    for name, numbers in (("a", range(12)), ("b", range(12, ROWS))):
        table = pa.table({"key": [f"r{n}" for n in numbers], "text": [text(n) for n in numbers]})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet", row_group_size=5)
    return tmp_path


def task(folder: Path, source: str = "in/*.parquet", **fields: Any) -> Task:
    fields = {"id_field": "key", "rows_per_request": 2, **fields}
    return Task(input=str(folder / source), output=str(folder / "out"), endpoint="e5", **fields)


def prepared(work: Task, *, rows: int | None = 4, overwrite: bool = False, **facts: Any) -> Prepared:
    return prepare(work, {**FACTS, **facts}, rows, overwrite=overwrite)


async def embed(job: Prepared, script: Script, parts: int | None = None) -> list[Totals]:
    return [
        await embed_split(job.plan.work(split), script, concurrency=2, patience=0)
        for split in job.missing[:parts]
    ]


async def run(work: Task, script: Script, **options: Any) -> Totals:
    job = prepared(work, **options)
    await embed(job, script)
    return finish(job.plan)


def read(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset(folder / "out", format="parquet").to_table().to_pylist()
    return rows


def asked(script: Script) -> list[str]:
    return sorted(text for texts in script.asked for text in texts)


async def test_parts_have_all_rows_in_the_order_of_the_input(folder: Path) -> None:
    totals = await run(task(folder), Script())
    assert (totals.rows, totals.pieces, totals.failed) == (ROWS, ROWS, 0)
    rows = read(folder)
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(ROWS)]
    assert [row["embedding"] for row in rows] == [
        pytest.approx(memoryview(vector(text(n))).cast("f").tolist()) for n in range(ROWS)
    ]
    assert len(list((folder / "out").glob("part-*"))) == 6
    assert json.loads((folder / "out" / "_SUCCESS").read_bytes())["rows"] == ROWS


async def test_json_lines_are_cut_by_lines_and_numbered_over_all_files(folder: Path) -> None:
    for name, lines in (("a", ["x", "", "é€😀", "y"]), ("b", ["z", None, "w"])):
        content = [json.dumps({"text": line}, ensure_ascii=False) if line != "" else "" for line in lines]
        (folder / "in" / f"{name}.jsonl").write_text("\n".join(content) + "\n")
    totals = await run(task(folder, "in/*.jsonl", id_field=None), Script(), rows=2)
    assert [(row["id"], len(row["embedding"])) for row in read(folder)] == [
        (0, 3), (2, 3), (3, 3), (4, 3), (6, 3)
    ]  # fmt: skip
    assert (totals.rows, totals.failed) == (6, 1)
    failed = json.loads((folder / "out" / "_failed.jsonl").read_text())
    assert (failed["row"], failed["cause"]) == (5, "null_text")


async def test_only_missing_parts_are_asked_again(folder: Path) -> None:
    first, second = Script(), Script()
    await embed(prepared(task(folder)), first, parts=4)
    again = prepared(task(folder), rows=None)
    assert (again.done.rows, len(again.missing), again.is_complete) == (16, 2, False)
    await embed(again, second)
    assert sorted(asked(first) + asked(second)) == sorted(map(text, range(ROWS)))
    finish(again.plan)
    assert prepared(task(folder), rows=None).is_complete


async def test_a_lost_part_is_made_again(folder: Path) -> None:
    await run(task(folder), Script())
    (folder / "out" / "part-000000000004.parquet").unlink()
    script = Script()
    totals = await run(task(folder), script)
    assert (totals.rows, asked(script)) == (ROWS, sorted(map(text, range(4, 8))))
    assert len(read(folder)) == ROWS


async def test_the_second_of_two_attempts_changes_nothing(folder: Path) -> None:
    """A node that was thought dead may finish its split too."""
    job = prepared(task(folder))
    work = job.plan.work(job.missing[0])
    part = folder / "out" / "part-000000000000.parquet"
    slow = Script()

    def overtaken(texts: Sequence[str]) -> Reply:
        if not part.exists():
            part.write_bytes(other)
        return one_each(texts)

    await embed_split(work, Script(), concurrency=1)
    other = part.read_bytes()
    written = part.stat().st_mtime_ns
    part.unlink()
    slow.answer = overtaken
    totals = await embed_split(work, slow, concurrency=1)
    assert (totals.rows, part.read_bytes()) == (4, other)
    assert part.stat().st_mtime_ns >= written
    assert not list((folder / "out").glob(".*")), "a draft is left"


async def test_failed_rows_are_listed_in_order(folder: Path) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if {text(3), text(20)}.intersection(texts):
            raise refused(Cause.INPUT_REFUSED)
        return one_each(texts)

    totals = await run(task(folder), Script(answer))
    assert (totals.rows, totals.pieces, totals.failed) == (ROWS, ROWS - 2, 2)
    lines = map(json.loads, (folder / "out" / "_failed.jsonl").read_text().splitlines())
    assert [(line["row"], line["id"], line["cause"]) for line in lines] == [
        (3, "r3", "input_refused"),
        (20, "r20", "input_refused"),
    ]


async def test_a_split_that_stops_leaves_no_part(folder: Path) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if text(7) in texts:
            raise refused(Cause.NOT_AUTHENTICATED)
        return one_each(texts)

    job = prepared(task(folder))
    with pytest.raises(JobStopped, match="not_authenticated"):
        await embed(job, Script(answer))
    assert {path.name for path in (folder / "out").iterdir()} == {"_job.json", "part-000000000000.parquet"}


_DECODE_AT_ONCE = """
import io, pathlib, sys, threading
from hubgate.features.bulk.ray.parts import read_records

class File(io.BytesIO):
    def __exit__(self, *error):
        all_have_read.wait()

class Folder:
    def open(self, name):
        return File(pathlib.Path(name).read_bytes())

all_have_read = threading.Barrier(32)
sys.setswitchinterval(1e-6)
print(len(list(read_records(Folder(), sys.argv[1:] * 32))))
"""


def test_the_first_records_of_a_process_are_decoded_at_once(folder: Path) -> None:
    asyncio.run(run(task(folder), Script()))
    command = [sys.executable, "-c", _DECODE_AT_ONCE, str(folder / "out" / "part-000000000000.parquet")]
    for _ in range(3):
        ended = subprocess.run(command, capture_output=True, check=False)
        assert (ended.returncode, ended.stdout.split()) == (0, [b"32"])


async def test_progress_is_reported(folder: Path) -> None:
    reports: list[Report] = []
    job = prepared(task(folder))
    await embed_split(job.plan.work(job.missing[0]), Script(), concurrency=1, report=reports.append)
    assert [report.totals.rows for report in reports] == [2, 4]


def test_inputs_in_other_stores(folder: Path) -> None:
    with pytest.raises(JobStopped, match=r"^ftp://host/a\.parquet cannot be used"):
        prepared(Task(input="ftp://host/a.parquet", output=str(folder / "out"), endpoint="e5"))


async def test_a_changed_input_stops_the_job(folder: Path) -> None:
    job = prepared(task(folder))
    source = folder / "in" / "a.parquet"
    os.utime(source, ns=(1, 1))
    with pytest.raises(JobStopped, match=r"The input has changed: .*a\.parquet is not the file it was"):
        await embed(job, Script(), parts=1)
    with pytest.raises(JobStopped, match=r"The input has changed: .*a\.parquet is not the file it was"):
        prepared(task(folder))
    (folder / "in" / "c.parquet").write_bytes(source.read_bytes())
    with pytest.raises(JobStopped, match="the number of its files was 2 and is now 3"):
        prepared(task(folder))
    assert len(prepared(task(folder), overwrite=True).plan.files) == 3


async def test_another_job_in_the_same_folder_is_refused(folder: Path) -> None:
    await run(task(folder), Script())
    with pytest.raises(JobStopped, match="started with a different endpoint"):
        prepared(Task(**{**json.loads(json.dumps(_fields(task(folder)))), "endpoint": "other"}))
    with pytest.raises(JobStopped, match="started with 4 rows per task, not 5"):
        prepared(task(folder), rows=5)
    with pytest.raises(JobStopped, match="its model was org/model and is now org/other"):
        prepared(task(folder), model="org/other")


def _fields(work: Task) -> dict[str, Any]:
    return {name: getattr(work, name) for name in ("input", "output", "id_field", "rows_per_request")}


async def test_overwrite_starts_over_and_leaves_other_files_alone(folder: Path) -> None:
    await run(task(folder), Script())
    script = Script()
    totals = await run(task(folder), script, rows=10, overwrite=True)
    assert (totals.rows, len(asked(script)), len(read(folder))) == (ROWS, ROWS, ROWS)
    assert len(list((folder / "out").glob("part-*"))) == 4


def test_a_folder_with_other_files_is_not_an_output(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")
    with pytest.raises(JobStopped, match="has files that are not of this job"):
        prepared(task(folder))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("in/*.csv", "No file matches the input"),
        ("in/a.csv", "No file matches the input"),
        ("*/a.parquet", "has wildcards in a folder"),
        ("in", "has Parquet files and JSON lines"),
        ("in/*.txt", "The format of the input .* is unknown"),
    ],
)
def test_inputs_that_cannot_be_used(folder: Path, source: str, message: str) -> None:
    (folder / "in" / "c.jsonl").write_text('{"text": "x", "key": "r"}\n')
    (folder / "in" / "readme.txt").write_text("x")
    if source == "in":
        (folder / "in" / "readme.txt").unlink()
    with pytest.raises(JobStopped, match=message):
        prepared(task(folder, source))


def test_files_with_different_types_are_refused(folder: Path) -> None:
    pq.write_table(pa.table({"key": [1], "text": ["x"]}), folder / "in" / "c.parquet")
    with pytest.raises(JobStopped, match="different types in the columns of the id"):
        prepared(task(folder))


def test_an_output_that_cannot_be_written(folder: Path) -> None:
    (folder / "out").write_text("a file")
    with pytest.raises(JobStopped, match=r"cannot be (written|read)"):
        prepared(task(folder))


async def test_a_damaged_part_stops_the_job(folder: Path) -> None:
    await run(task(folder), Script())
    (folder / "out" / "part-000000000004.parquet").write_bytes(b"PAR1")
    with pytest.raises(JobStopped, match=r"part-000000000004\.parquet is not a valid part") as stopped:
        prepared(task(folder))
    assert stopped.value.remedy == "Delete it, and run the same command again."
