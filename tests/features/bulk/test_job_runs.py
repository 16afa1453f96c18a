"""Whole jobs, interrupted and continued: finished work is kept, and nothing is requested twice."""
# ruff: noqa: ASYNC240 - no loop waits for these small files

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import model_script
import pytest
from model_script import Script, one_each, refused, run, task, vector

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.rows import Columns, JobStopped, Piece, Reply
from hubgate.features.bulk.folder import JobFolder, JobRegistry, RunOptions, Status
from hubgate.features.bulk.formats.jsonl import JsonlSource
from hubgate.features.bulk.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = [f"text {number}" for number in range(9)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", TEXTS)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def write(path: Path, texts: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps({"id": f"r{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(texts: Sequence[str]) -> list[list[float]]:
    return [list(struct.unpack("<3f", vector(text))) for text in texts]


def stopping(after: int, error: Exception) -> Script:
    """A model that answers so many requests, and then fails."""
    script = Script()

    def answer(texts: Sequence[str]) -> Reply:
        if len(script.asked) > after:
            raise error
        return one_each(texts)

    script.answer = answer
    return script


async def test_every_row_gets_its_vector_in_input_order(source: Path, output: Path) -> None:
    script = Script()
    totals = await run(task(source, output), script)
    assert totals is not None
    assert (totals.rows, totals.pieces, totals.failed, totals.tokens) == (9, 9, 0, 18)
    assert [row["embedding"] for row in read(output)] == expected(TEXTS)
    assert [row["id"] for row in read(output)] == list(range(9))
    job = JobFolder(output)
    assert job.state().status is Status.DONE
    assert not job.shards.exists()
    assert not job.failures.exists()
    assert max(map(len, script.asked)) == 2


async def test_stopped_job_resumes_without_repeating_requests(source: Path, output: Path) -> None:
    first = stopping(2, refused(Cause.WRONG_TOKEN))
    with pytest.raises(JobStopped, match=r"It is wrong_token\."):
        await run(task(source, output), first, concurrency=1)
    assert not output.exists()
    job = JobFolder(output)
    assert (job.state().status, job.state().reason) == (Status.STOPPED, "It is wrong_token.")
    assert job.totals().rows == 4
    second = Script()
    assert await run(task(source, output), second) is not None
    assert sorted(text for texts in second.asked for text in texts) == TEXTS[4:]
    assert [row["embedding"] for row in read(output)] == expected(TEXTS)


async def test_completed_requests_are_kept_though_an_earlier_one_failed(source: Path, output: Path) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if "text 0" in texts:
            raise refused(Cause.OVERLOADED, retryable=True, retry_after=60.0)
        return one_each(texts)

    script = Script(answer)
    work = asyncio.create_task(run(task(source, output), script))
    async with asyncio.timeout(240):
        while JobFolder(output).totals().rows < 7:  # noqa: ASYNC110 - what is waited for is on disk
            await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    job = JobFolder(output)
    assert (job.state().status, job.state().reason) == (Status.STOPPED, "It was interrupted.")
    rest = Script()
    await run(task(source, output), rest)
    assert rest.asked == [["text 0", "text 1"]]
    assert [row["embedding"] for row in read(output)] == expected(TEXTS)


async def test_completed_job_is_not_rerun_until_its_output_is_removed(source: Path, output: Path) -> None:
    await run(task(source, output), Script())
    again = Script()
    assert await run(task(source, output), again) is None
    assert again.asked == []
    output.unlink()
    assert await run(task(source, output), again) is not None
    assert len(again.asked) == 5
    assert len(read(output)) == 9


async def test_failed_rows_are_written_to_their_own_file_in_order(tmp_path: Path, output: Path) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if "refused" in texts:
            raise refused(Cause.INPUT_REFUSED)
        return one_each(texts)

    long = "long " * 200_000
    source = write(tmp_path / "in.jsonl", ["a", "", None, "refused", long, 5, "z"])
    totals = await run(task(source, output, id_field="id"), Script(answer), concurrency=8)
    assert totals is not None
    assert (totals.rows, totals.pieces, totals.failed) == (7, 3, 4)
    assert [row["id"] for row in read(output)] == ["r0", "r4", "r6"]
    failed = read(tmp_path / "out.jsonl.failed.jsonl")
    assert [(row["row"], row["id"], row["cause"]) for row in failed] == [
        (1, "r1", "empty_text"),
        (2, "r2", "null_text"),
        (3, "r3", "input_refused"),
        (5, "r5", "not_a_text"),
    ]


async def test_shard_may_have_no_vectors(tmp_path: Path, output: Path) -> None:
    source = write(tmp_path / "in.jsonl", ["", "", "a", ""])
    await run(task(source, output), Script())
    assert [row["id"] for row in read(output)] == [2]


async def test_failed_rows_are_reported_when_a_job_stops_and_cleared_on_restart(
    tmp_path: Path, output: Path
) -> None:
    source = write(tmp_path / "in.jsonl", ["", "a", "b"])
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(1, refused(Cause.PAUSED)), concurrency=1)
    side = tmp_path / "out.jsonl.failed.jsonl"
    assert len(read(side)) == 1
    write(source, ["x", "y"])
    await run(task(source, output), Script(), overwrite=True)
    assert not side.exists()
    assert [row["embedding"] for row in read(output)] == expected(["x", "y"])


async def test_changed_input_is_reported_with_what_to_do(source: Path, output: Path) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(2, refused(Cause.PAUSED)), concurrency=1)
    write(source, ["text X", *TEXTS[1:]])
    script = Script()
    with pytest.raises(
        JobStopped, match=r"The input has changed: .* its content is not\. Restore the input"
    ) as told:
        await run(task(source, output), script)
    assert told.value.cause is Cause.INVALID_REQUEST
    assert script.asked == []
    write(source, TEXTS)
    await run(task(source, output), script)
    assert [row["embedding"] for row in read(output)] == expected(TEXTS)


async def test_change_outside_the_samples_is_detected_by_completed_rows(tmp_path: Path, output: Path) -> None:
    texts = [f"{number:08}" * 100 for number in range(12_000)]  # 9.7 MB: samples are of 4 MiB
    source = write(tmp_path / "in.jsonl", texts)
    with pytest.raises(JobStopped):
        await run(
            task(source, output, rows_per_request=1000), stopping(9, refused(Cause.PAUSED)), concurrency=1
        )
    content = bytearray(source.read_bytes())
    before = dict(json.loads((JobFolder(output).path / "job.json").read_text())["input"])
    place = next(
        place
        for place in range(70_000, len(content), 1000)
        if chr(content[place]).isdigit() and _unseen(source, content, place)
    )
    assert dict(JsonlSource(source, Columns()).identity()) == before
    assert place
    with pytest.raises(JobStopped, match=r"row \d+ or one of the 999 rows after it is different"):
        await run(task(source, output, rows_per_request=1000), Script())


def _unseen(source: Path, content: bytearray, place: int) -> bool:
    """Change a digit; back again if a sample shows it."""
    before, was = JsonlSource(source, Columns()).identity(), content[place]
    content[place] = ord("9") if was != ord("9") else ord("8")
    source.write_bytes(content)
    if JsonlSource(source, Columns()).identity() == before:
        return True
    content[place] = was
    source.write_bytes(content)
    return False


async def test_input_modified_during_the_run_stops_the_job(source: Path, output: Path) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        with source.open("a") as file:
            file.write('{"text": "more"}\n')
        return one_each(texts)

    with pytest.raises(JobStopped, match="was written to while it was read"):
        await run(task(source, output), Script(answer), concurrency=1)
    assert not output.exists()


async def test_model_change_during_requests_stops_the_job_with_that_reason(
    source: Path, output: Path
) -> None:
    changed = stopping(1, refused(Cause.MODEL_CHANGED))
    with pytest.raises(JobStopped, match="It is model_changed") as told:
        await run(task(source, output), changed, concurrency=1)
    assert told.value.cause is Cause.MODEL_CHANGED


async def test_model_changed_between_runs_or_before_the_output_is_reported(
    source: Path, output: Path
) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(1, refused(Cause.PAUSED)), concurrency=1)
    other = Script(facts={"model": "org/other", "dimensions": 3})
    with pytest.raises(JobStopped, match="its model was org/model and is now org/other") as told:
        await run(task(source, output), other)
    assert told.value.cause is Cause.MODEL_CHANGED
    assert other.asked == []
    late = Script()

    def answer(texts: Sequence[str]) -> Reply:
        late.facts = {"model": "org/late", "dimensions": 3}
        return one_each(texts)

    late.answer = answer
    with pytest.raises(JobStopped, match="its model was org/model and is now org/late"):
        await run(task(source, output), late)
    assert not output.exists()


async def test_vector_of_another_dimension_stops_the_job(source: Path, output: Path) -> None:
    script = Script(lambda texts: Reply([Piece(bytes(8)) for _ in texts], 1, exact=True))
    with pytest.raises(JobStopped, match="returned a vector of 2 numbers instead of 3") as told:
        await run(task(source, output), script)
    assert told.value.cause is Cause.DIMENSIONS_CHANGED


async def test_only_missing_shards_are_requested_again(source: Path, output: Path) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(3, refused(Cause.PAUSED)), concurrency=1)
    shards = JobFolder(output).shards
    whole = shards.read_bytes().splitlines(keepends=True)
    shards.write_bytes(b"".join([*whole[:2], whole[2][:5]]))  # the first shard of two rows, and a torn one
    script = Script()
    totals = await run(task(source, output), script, concurrency=1)
    assert totals is not None
    assert (totals.rows, totals.pieces) == (9, 9)
    assert script.asked == [TEXTS[2:4], TEXTS[4:6], TEXTS[6:8], TEXTS[8:]]
    assert [row["embedding"] for row in read(output)] == expected(TEXTS)


@pytest.mark.parametrize("name", ["same", "symlink", "hardlink", "failed"])
def test_input_is_never_overwritten_even_with_overwrite(source: Path, output: Path, name: str) -> None:
    if name == "same":
        output = source
    elif name == "symlink":
        output.symlink_to(source)
    elif name == "hardlink":
        output.hardlink_to(source)
    else:
        source = source.rename(JobFolder(output).failures)
    with pytest.raises(JobStopped, match="which the job would replace"):
        Job(task(source, output), RunOptions(), overwrite=True).check()


async def test_foreign_output_is_not_overwritten_by_default(source: Path, output: Path) -> None:
    output.write_text("somebody's")
    with pytest.raises(JobStopped, match=r"already exists\. Choose another one, or use --overwrite"):
        await run(task(source, output), Script())
    assert output.read_text() == "somebody's"
    assert not JobFolder(output).path.exists()
    await run(task(source, output), Script(), overwrite=True)
    assert len(read(output)) == 9


async def test_another_task_for_the_same_output_is_rejected_with_the_difference(
    source: Path, output: Path
) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(1, refused(Cause.PAUSED)), concurrency=1)
    others: tuple[tuple[dict[str, Any], str], ...] = (
        ({"rows_per_request": 3}, "rows per request: 2, not 3"),
        ({"chunk": True}, "chunk: no, not yes"),
        ({"keep": ("a", "b")}, "keep: none, not a, b"),
    )
    for option, difference in others:
        with pytest.raises(JobStopped, match=f"was started with a different {difference}"):
            await run(task(source, output, **option), Script())


async def test_only_one_process_works_on_an_output(source: Path, output: Path) -> None:
    job = JobFolder(output)
    with job.locked():
        assert job.worker() == os.getpid()
        assert job.state().status is Status.RUNNING
        with pytest.raises(
            JobStopped, match=rf"Another process is working on \S+\. `hubgate job show {job.id}`"
        ):
            await run(task(source, output), Script())
    assert job.worker() is None
    assert not job.path.exists()


async def test_job_whose_process_was_killed_is_interrupted(source: Path, output: Path) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(1, refused(Cause.PAUSED)), concurrency=1)
    job = JobFolder(output)
    job.write_state(Status.INTERRUPTED)
    assert job.state().status is Status.INTERRUPTED


async def test_unreadable_job_file_is_reported(source: Path, output: Path) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(1, refused(Cause.PAUSED)), concurrency=1)
    (JobFolder(output).path / "job.json").write_text("{}")
    with pytest.raises(JobStopped, match=r"job\.json cannot be read: .* start over with --overwrite"):
        await run(task(source, output), Script())
    await run(task(source, output), Script(), overwrite=True)
    assert len(read(output)) == 9


async def test_jobs_are_found_by_id_or_output_while_their_folders_exist(
    tmp_path: Path, source: Path, output: Path
) -> None:
    known = JobRegistry(tmp_path / "home")
    assert known.list() == []
    job = JobFolder(output)
    known.add(job)
    assert known.list() == []
    await run(task(source, output), Script())
    assert [one.id for one in known.list()] == [job.id]
    assert known.find(job.id).output == known.find(str(output)).output == output
    known.remove(job)
    assert known.list() == []
    with pytest.raises(JobStopped, match=r"No job \[nobody\]\. `hubgate job list` lists them"):
        known.find("nobody")


_ON_A_SMALL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from hubgate.features.bulk.folder import JobFolder
from hubgate.features.bulk.engine.rows import JobStopped
from model_script import Script, run, task

what = task(Path(sys.argv[1]), Path(sys.argv[2]))
for most in range(40, 10_000, 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    script = Script()
    before = JobFolder(Path(sys.argv[2])).totals().rows
    try:
        asyncio.run(run(what, script))
    except JobStopped as stopped:
        print(before, sum(map(len, script.asked)), stopped.message)
    else:
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_full_disk_stops_the_job_with_one_line_and_loses_nothing(tmp_path: Path, name: str) -> None:
    """Simulated by a file size limit that grows until the job is done, so that every file hits it once."""
    source = write(tmp_path / "in.jsonl", [f"text {number}" for number in range(16)])
    output = tmp_path / name
    ran = subprocess.run(
        # -B: under the limit Python would leave truncated .pyc files behind, which break every later import.
        [sys.executable, "-B", "-c", _ON_A_SMALL_DISK, str(source), str(output)],
        env={**os.environ, "PYTHONPATH": str(Path(model_script.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert ran.stderr == ""
    attempts = [line.split(" ", 2) for line in ran.stdout.splitlines()]
    said = [message for _, _, message in attempts]
    assert all(
        re.fullmatch(r"The output cannot be written: the maximum file size is reached( \(.*\))?\.", one)
        for one in said
    )
    done = [int(before) for before, _, _ in attempts]
    assert done == sorted(done)
    assert len(set(done)) > 3  # the shard file, or the manifest, was full again and again
    assert JobFolder(output).totals().rows == 16
    assert JobFolder(output).state().status is Status.DONE


async def test_output_error_is_reported_after_every_row_is_done(source: Path, output: Path) -> None:
    with pytest.raises(JobStopped):
        await run(task(source, output), stopping(1, refused(Cause.PAUSED)), concurrency=1)
    in_the_way = JobFolder(output).draft
    in_the_way.mkdir()
    with pytest.raises(
        JobStopped, match=r"The output cannot be written: Is a directory \(.*\)\. Free up space"
    ):
        await run(task(source, output), Script())
    assert JobFolder(output).totals().rows == 9
    in_the_way.rmdir()
    rest = Script()
    await run(task(source, output), rest)
    assert rest.asked == []
    assert [row["embedding"] for row in read(output)] == expected(TEXTS)
