"""`hubgate job load` into a real PostgreSQL with pgvector."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.parquet as pq
import pytest
from job_outputs import write_output
from postgres.server import PostgresServer, short_folder

from hubgate.features.bulk.load.databases import open_target
from hubgate.features.bulk.load.loader import Load
from hubgate.features.bulk.load.output import open_output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commands import Command
    from running_gateway import RunningGateway


def query(url: str, statement: str, *values: object) -> Sequence[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode(), values or None).fetchall()


def create(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE t (id text PRIMARY KEY, title text, embedding vector(8))")


def pgvector(url: str) -> str:
    return url.replace("postgresql://", "pgvector://", 1)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [{"id": f"r{n}", "body": f"First part {n}. " * 60, "n": n} for n in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
def test_output_of_a_job_is_loaded_into_a_new_table(
    hubgate: Command, gateway: RunningGateway, texts: Path, database_url: str, name: str
) -> None:
    gateway.add("words", dimensions=8)
    out = str(texts.with_name(name))
    fields = ("--text-field", "body", "--id-field", "id", "--keep", "n")
    assert hubgate("job", "run", str(texts), out, "--endpoint", "words", *fields).status == 0
    command = ("job", "load", out, "--to", pgvector(database_url), "--table", "public.articles")
    missing = hubgate(*command)
    assert missing.status == 1
    assert "There is no table [public.articles]." in missing.err
    assert "--create" in missing.err
    loaded = hubgate(*command, "--create")
    assert (loaded.status, loaded.err) == (0, "")
    assert loaded.fields == {"table": "public.articles", "vectors": "5", "refused": "0"}
    body = {"model": "words", "input": [json.loads(line)["body"] for line in texts.read_text().splitlines()]}
    expected = [one["embedding"] for one in gateway.request("POST", "/v1/embeddings", body).json()["data"]]
    rows = query(database_url, "SELECT id, n, embedding FROM articles ORDER BY id")
    assert [(row[0], int(row[1])) for row in rows] == [(f"r{n}", n) for n in range(5)]
    for row, known in zip(rows, expected, strict=True):
        assert json.loads(row[2]) == pytest.approx(known, rel=1e-6)
    nearest = query(database_url, "SELECT id FROM articles ORDER BY embedding <=> %s::vector", rows[3][2])
    assert nearest[0] == ("r3",)
    (index,) = query(database_url, "SELECT indexdef FROM pg_indexes WHERE indexname LIKE '%embedding%'")
    assert "vector_cosine_ops" in index[0]
    assert hubgate(*command).status == 0  # done: nothing is sent again


def test_chunks_have_ids_of_their_own(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path, database_url: str
) -> None:
    gateway.add("words", dimensions=8, chunking_settings={"strategy": "sentence", "max_chunk_size": 50})
    out = tmp_path / "out.parquet"
    options = ("--text-field", "body", "--id-field", "id", "--chunk")
    assert hubgate("job", "run", str(texts), str(out), "--endpoint", "words", *options).status == 0
    command = ("job", "load", str(out), "--to", pgvector(database_url), "--table", "chunks", "--create")
    assert hubgate(*command).status == 0
    stored = query(database_url, "SELECT id, document_id, chunk, start, text FROM chunks")
    expected = pq.read_table(out).to_pylist()
    assert len(expected) > 5
    assert {*stored} == {
        (f"{row['id']}#{row['chunk']}", row["id"], row["chunk"], row["start"], row["text"])
        for row in expected
    }


def test_killed_load_continues(tmp_path: Path, database_url: str, settings: Any) -> None:
    out = write_output(tmp_path / "out.parquet", 30_000)
    command = [sys.executable, "-m", "hubgate", "job", "load", str(out), "--to", pgvector(database_url)]
    command += ["--table", "t"]
    create(database_url)
    environment = {"HUBGATE_HOME": str(settings.home), "PATH": ""}
    with subprocess.Popen(command, env=environment) as running:
        while not (records := [*out.parent.glob("out.parquet.load-*.json")]):
            assert running.poll() is None
            time.sleep(0.005)
        running.kill()
    stored = json.loads(records[0].read_bytes())["position"]["rows"]
    assert 0 < stored < 30_000
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = dict(query(database_url, "SELECT id, embedding FROM t"))
    written = pq.read_table(out).to_pylist()
    assert len(rows) == 30_000
    assert all(json.loads(rows[row["id"]]) == pytest.approx(row["embedding"]) for row in written[::500])


def test_refused_rows_are_reported_and_the_others_loaded(
    hubgate: Command, tmp_path: Path, database_url: str
) -> None:
    """PostgreSQL stores no NUL character in a text."""
    out = write_output(tmp_path / "out.parquet", 50, lambda n: "a\0b" if n in {7, 31} else "good")
    command = ("job", "load", str(out), "--to", pgvector(database_url), "--table", "t", "--create")
    ended = hubgate(*command, "--similarity", "dot_product")
    assert ended.status == 1
    assert "2 vectors were refused." in ended.err
    assert query(database_url, "SELECT count(*) FROM t") == [(48,)]
    (failures,) = out.parent.glob("out.parquet.load-*.failed.jsonl")
    assert [json.loads(line)["id"] for line in failures.read_text().splitlines()] == ["r7", "r31"]


def test_database_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out.jsonl", 12_000)
    server = PostgresServer(short_folder())
    server.start()
    paused = []

    def restart(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 2:
            server.start()

    try:
        target = open_target(pgvector(server.url), "t", None)
        load = Load(out, open_output(out), target, "t")
        batches = iter(range(9))
        upsert = target.upsert

        def losing(batch: Any) -> Any:
            if next(batches) == 1:
                server.kill()
            return upsert(batch)

        target.upsert = losing  # type: ignore[method-assign]
        create(server.url)
        load.run(None, sleep=restart)
        assert len(paused) >= 2
        assert query(server.url, "SELECT count(*) FROM t") == [(12_000,)]
        target.close()
    finally:
        server.stop()


def test_unsuitable_tables_are_rejected(hubgate: Command, tmp_path: Path, database_url: str) -> None:
    out = str(write_output(tmp_path / "out.parquet", 3))
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE other (id text PRIMARY KEY, title text, embedding vector(9))")
        connection.execute("CREATE TABLE keyless (id text, title text, embedding vector(8))")
        connection.execute("CREATE TABLE bare (id text PRIMARY KEY, embedding vector(8))")
    messages = {
        "other": "The vectors of [other] have 9 dimensions, those of the job 8.",
        "keyless": "The column [id] of [keyless] has no unique index.",
        "bare": "The table [bare] has no column [title].",
    }
    for table, message in messages.items():
        ended = hubgate("job", "load", out, "--to", pgvector(database_url), "--table", table)
        assert ended.status == 1
        assert message in ended.err


def test_changed_output_is_loaded_again_only_when_asked(
    hubgate: Command, tmp_path: Path, database_url: str
) -> None:
    command = ("--to", pgvector(database_url), "--table", "t", "--create", "--similarity", "cosine")
    assert hubgate("job", "load", str(write_output(tmp_path / "out.parquet", 3)), *command).status == 0
    out = str(write_output(tmp_path / "out.parquet", 4))
    changed = hubgate("job", "load", out, *command)
    assert changed.status == 1
    assert "--restart" in changed.err
    assert hubgate("job", "load", out, *command, "--restart").status == 0
    assert query(database_url, "SELECT count(*) FROM t") == [(4,)]


def test_bad_arguments_are_explained(hubgate: Command, tmp_path: Path) -> None:
    out = write_output(tmp_path / "out.parquet", 3)
    unknown = hubgate("job", "load", str(out), "--to", "oracle://u:secret@h/d", "--table", "t")
    assert unknown.status == 1
    assert "pgvector://" in unknown.err
    assert "secret" not in unknown.err
    orphan = hubgate("job", "load", str(out), "--to", "pgvector://h/d", "--table", "t", "--create")
    assert "Choose the table's --similarity." in orphan.err
    other = out.with_name("notes.parquet")
    other.write_bytes(b"not Parquet")
    assert (
        "is not the output of a job"
        in hubgate("job", "load", str(other), "--to", "pgvector://h/d", "--table", "t").err
    )
