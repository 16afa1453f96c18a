"""`hubgate job`, through a running gateway and through one that the job starts."""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lookalikes import lookalike

from hubgate.features.bulk.folder import JobFolder, Status

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command
    from running_gateway import RunningGateway


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [{"id": f"r{n}", "text": f"text number {n}", "n": n} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_file_is_embedded_through_the_running_gateway(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    gateway.add("words", dimensions=8)
    out = tmp_path / "out.jsonl"
    options = ("--endpoint", "words", "--id-field", "id", "--keep", "n", "--rows-per-request", "3")
    ran = hubgate("job", "run", str(texts), str(out), *options, "--price-per-million-tokens", "1000")
    assert (ran.status, ran.err) == (0, "")
    assert ran.fields == {
        "output": str(out),
        "rows": "20",
        "failed": "0",
        "vectors": "20",
        "tokens": "60",
        "truncated": "0",
        "cost": "0.0600",
    }
    rows = read(out)
    assert [(row["id"], row["n"], row["tokens"]) for row in rows] == [(f"r{n}", n, 3) for n in range(20)]
    body = {"model": "words", "input": "text number 7", "encoding_format": "base64"}
    told = gateway.request("POST", "/v1/embeddings", body).json()["data"][0]["embedding"]
    assert struct.pack("<8f", *rows[7]["embedding"]) == base64.b64decode(told)


@pytest.mark.parametrize("dtype", ["int8", "ubinary"])
def test_vectors_of_another_type_are_the_same_in_both_formats(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path, dtype: str
) -> None:
    gateway.add("words", dimensions=12)
    body = {"model": "words", "input": ["text number 0", "text number 7"], "output_dtype": dtype}
    expected = [one["embedding"] for one in gateway.request("POST", "/v1/embeddings", body).json()["data"]]
    options = ("--endpoint", "words", "--output-dtype", dtype)
    for out in (tmp_path / "out.jsonl", tmp_path / "out.parquet"):
        assert hubgate("job", "run", str(texts), str(out), *options).status == 0
    vectors = pq.read_table(tmp_path / "out.parquet").column("embedding")
    assert vectors.type == (pa.list_(pa.int8(), 12) if dtype == "int8" else pa.list_(pa.uint8(), 2))
    assert [vectors.to_pylist()[n] for n in (0, 7)] == expected
    assert [row["embedding"] for row in read(tmp_path / "out.jsonl")] == vectors.to_pylist()


def test_job_does_not_continue_with_another_output_dtype(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    gateway.add("words", dimensions=8)
    run = ("job", "run", str(texts), str(tmp_path / "out.jsonl"), "--endpoint", "words")
    assert hubgate(*run, "--output-dtype", "int8").status == 0
    again = hubgate(*run)
    assert again.status == 1
    assert "was started with a different output dtype: int8, not float" in again.err


def test_job_starts_its_own_gateway_when_none_runs(hubgate: Command, texts: Path, tmp_path: Path) -> None:
    assert hubgate("add", "words", "--fake", "--dimensions", "8").status == 0
    out = tmp_path / "out.parquet"
    ran = hubgate("job", "run", str(texts), str(out), "--endpoint", "words")
    assert (ran.status, ran.err) == (0, "")
    assert pq.read_table(out).column("id").to_pylist() == list(range(20))
    again = hubgate("job", "run", str(texts), str(out), "--endpoint", "words")
    done = "This job is already done. To start over, run it with --overwrite.\n"
    assert (again.status, again.out) == (0, done + ran.out)


def test_job_continues_with_its_original_request_size(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    command = ("job", "run", str(texts), str(out), "--endpoint", "words")
    gateway.add("words")
    assert hubgate(*command, "--rows-per-request", "3").status == 0
    out.unlink()
    assert hubgate(*command).status == 0
    plan = JobFolder(out).plan()
    assert plan is not None
    assert plan.task.rows_per_request == 3
    assert hubgate(*command, "--overwrite").status == 0
    plan = JobFolder(out).plan()
    assert plan is not None
    assert plan.task.rows_per_request == 128


def test_job_that_creates_the_home_prints_the_first_admin_key(
    hubgate: Command, texts: Path, tmp_path: Path
) -> None:
    ran = hubgate("job", "run", str(texts), str(tmp_path / "out.jsonl"), "--endpoint", "words")
    assert ran.status == 1
    assert ran.err.startswith("hubgate's admin key, shown only once: hg_")
    assert "hubgate: No endpoint is named [words]. `hubgate list` lists the names.\n" in ran.err
    assert hubgate("job", "list").rows == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == []


def test_wrong_task_is_reported_with_the_command_that_lists_endpoints(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    gateway.add("ranks", task="rerank")
    ran = hubgate("job", "run", str(texts), str(tmp_path / "out.jsonl"), "--endpoint", "ranks")
    assert ran.err.endswith("Use an endpoint with task text_embedding; `hubgate list` lists them.\n")


def test_long_texts_are_chunked_by_the_endpoints_settings(
    hubgate: Command, gateway: RunningGateway, tmp_path: Path
) -> None:
    gateway.add(
        "words", dimensions=8, chunking_settings={"strategy": "word", "max_chunk_size": 10, "overlap": 1}
    )
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "long.md").write_text("word " * 25)
    (folder / "short.txt").write_text("one two")
    out = tmp_path / "out.jsonl"
    ran = hubgate("job", "run", str(folder), str(out), "--endpoint", "words", "--chunk")
    assert (ran.status, ran.err) == (0, "")
    rows = read(out)
    assert [(row["id"], row["chunk"], row["tokens"]) for row in rows] == [
        ("long.md", 0, 10),
        ("long.md", 1, 10),
        ("long.md", 2, 7),
        ("short.txt", 0, 2),
    ]
    whole = "word " * 25
    assert all(row["text"] == whole[row["start"] : row["end"]] for row in rows[:3])


def test_rows_without_a_vector_are_reported_at_the_end_and_in_the_status(
    hubgate: Command, gateway: RunningGateway, tmp_path: Path
) -> None:
    gateway.add("words")
    texts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts.write_text('{"text": "a"}\n{"text": ""}\nbroken\n')
    ran = hubgate("job", "run", str(texts), str(out), "--endpoint", "words")
    assert ran.status == 1
    assert ran.err == f"hubgate: 2 rows have no vector. The reasons are in {out}.failed.jsonl.\n"
    assert len(read(out)) == 1
    texts.write_text('{"text": "a"}\n{"text": 7}\n')
    ran = hubgate("job", "run", str(texts), str(out), "--endpoint", "words", "--overwrite")
    assert ran.err == f"hubgate: 1 row has no vector. The reasons are in {out}.failed.jsonl.\n"
    shown = hubgate("job", "show", str(out)).fields
    assert (shown["status"], shown["failed"], shown["failed rows"]) == ("done", "1", f"{out}.failed.jsonl")


def test_jobs_are_listed_shown_cancelled_and_resumed(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    gateway.add("words", dimensions=8)
    out = tmp_path / "out.jsonl"
    assert hubgate("job", "run", str(texts), str(out), "--endpoint", "words").status == 0
    job = JobFolder(out)
    assert hubgate("job", "list").rows == [
        [
            job.id,
            "done",
            "20",
            "0",
            "words",
            *hubgate("job", "show", job.id).fields["created"].split(),
            str(out),
        ]
    ]
    shown = hubgate("job", "show", job.id).fields
    assert (shown["model"], shown["input"], shown["endpoint"]) == ("fake", str(texts), "words")
    assert hubgate("job", "cancel", job.id).out == f"{out} is already done.\n"
    assert job.state().status is Status.DONE  # what is done cannot be undone
    job.write_state(Status.STOPPED, "Something was wrong.")
    assert hubgate("job", "show", job.id).fields["reason"] == "Something was wrong."
    assert hubgate("job", "cancel", job.id).out == f"Cancelled {out}.\n"
    assert hubgate("job", "list").rows[0][1] == "cancelled"
    resumed = hubgate("job", "resume", job.id)
    assert (resumed.status, resumed.fields["rows"]) == (0, "20")
    assert job.state().status is Status.DONE
    deleted = hubgate("job", "cancel", "--delete", str(out))
    assert deleted.out == f"Cancelled {out} and deleted its finished work.\n"
    assert hubgate("job", "list").rows == []
    assert len(read(out)) == 20
    assert not job.path.exists()


@pytest.mark.parametrize("command", ["show", "cancel", "resume"])
def test_unknown_job_is_reported(hubgate: Command, command: str) -> None:
    failed = hubgate("job", command, "nobody")
    assert (failed.status, failed.out) == (1, "")
    assert failed.err == "hubgate: No job [nobody]. `hubgate job list` lists them.\n"


def test_invalid_job_is_reported_before_the_first_request(
    hubgate: Command, texts: Path, tmp_path: Path
) -> None:
    failed = hubgate("job", "run", str(texts), str(tmp_path / "out.csv"), "--endpoint", "words")
    assert failed.status == 1
    assert re.fullmatch(r"hubgate: The format of the output \S+ is unknown\. .*\n", failed.err)
    gone = hubgate(
        "job", "run", str(tmp_path / "gone.jsonl"), str(tmp_path / "out.jsonl"), "--endpoint", "words"
    )
    assert re.fullmatch(r"hubgate: The input \S+ cannot be read: No such file or directory\.\n", gone.err)
    out = str(tmp_path / "out.jsonl")
    unknown = hubgate("job", "run", str(texts), out, "--endpoint", "words", "--text-field", "body")
    assert "has a field [body]. Its fields are id, text, n: use one of them" in unknown.err
    assert not (tmp_path / "home").exists()


def test_model_replaced_between_two_runs_stops_the_job(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    gateway.add("words", dimensions=8)
    out = tmp_path / "out.jsonl"
    run = ("job", "run", str(texts), str(out), "--endpoint", "words")
    assert hubgate(*run).status == 0
    JobFolder(out).write_state(Status.INTERRUPTED)
    gateway.request("DELETE", "/api/endpoints/words")
    gateway.add("words", dimensions=8, model="org/other")
    failed = hubgate(*run)
    assert failed.status == 1
    assert "has changed since the job started: its model was fake and is now org/other" in failed.err
    assert "--overwrite" in failed.err
    assert hubgate(*run, "--overwrite").status == 0


def test_model_changed_during_a_run_stops_the_job_with_that_reason(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    job = JobFolder(out)
    with lookalike("tei") as server:
        gateway.add("e5", url=server.url)

        def change() -> None:
            while not job.totals().rows:
                time.sleep(0.01)
            server.model = replace(server.model, dimensions=9)

        changing = threading.Thread(target=change)
        changing.start()
        options = ("--endpoint", "e5", "--rows-per-request", "1", "--concurrency", "1")
        failed = hubgate("job", "run", str(texts), str(out), *options)
        changing.join()
    assert failed.status == 1
    assert "its dimensions was 8 and is 9" in failed.err, "the model was checked before the endpoint stopped"
    assert failed.err.count("\n") == 1
    assert not out.exists()
    state = job.state()
    assert (state.status, f"hubgate: {state.reason}\n") == (Status.STOPPED, failed.err)
    assert 0 < job.totals().rows < 20
    assert job.totals().failed == 0
