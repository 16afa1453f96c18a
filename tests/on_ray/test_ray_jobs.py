"""Jobs on a Ray cluster of two nodes with S3: `kill -9` of a node, of the command, and Ctrl-C.

RAY_ROWS=50000 uses more rows than the 4,000 by default. Prints what it measured, also beside a job of one machine.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gateway_process import HUBGATE, Home
from ray_cluster import Bucket, Cluster, s3_server, two_nodes
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]  # warnings of Ray's
ROWS = int(os.environ.get("RAY_ROWS", "4000"))
PER_TASK = max(100, ROWS // 50)
FILES = 4
PARTS = FILES * math.ceil(ROWS // FILES / PER_TASK)
IN_FLIGHT = 4 * PER_TASK
"""Two tasks per node."""
MODEL = Path(__file__).parents[2] / "benchmarks" / "support" / "bulk_model.py"
TABLE = pa.table(
    {"id": [f"r{n}" for n in range(ROWS)], "text": [f"Row {n} has something to say." for n in range(ROWS)]}
)


class World(NamedTuple):
    """All that a job needs."""

    home: Home
    bucket: Bucket
    cluster: Cluster
    model: str
    folder: Path

    def start(
        self, source: object, output: object, endpoint: str = "bulk", *options: str
    ) -> subprocess.Popen[str]:
        """`hubgate job run`; with `--on ray`, on the cluster."""
        return subprocess.Popen(
            [
                *HUBGATE,
                "job",
                "run",
                str(source),
                str(output),
                "--endpoint",
                endpoint,
                "--id-field",
                "id",
                *options,
            ],
            env=self.home.env | {"RAY_ADDRESS": self.cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def job(self, output: str, on: str) -> subprocess.Popen[str]:
        places = self.bucket.uri("in/*.parquet"), self.bucket.uri(output)
        return self.start(*places, "bulk", "--on", on, "--rows-per-task", str(PER_TASK))

    def asked(self) -> dict[str, int]:
        """How many texts the model was asked for, and how many of them were new."""
        with urllib.request.urlopen(f"{self.model}/asked") as reply:
            asked: dict[str, int] = json.loads(reply.read())
            return asked

    def forget(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.model}/forget", method="POST")).close()

    def wait_for(self, count: str, texts: int, job: subprocess.Popen[str]) -> None:
        """Wait until the model was asked for more texts than this by a running job."""
        eventually(lambda: self.asked()[count] > texts or job.poll() is not None, seconds=300)
        assert job.poll() is None, job.communicate()

    def wait_for_the_middle(self, job: subprocess.Popen[str]) -> None:
        self.wait_for("new", ROWS // 3, job)

    def check_output(self, output: str) -> None:
        """Each row is there once, in order, with the vector of its text."""
        vector = runpy.run_path(str(MODEL))["vector"]
        table = self.bucket.read(output)
        assert table["id"].to_pylist() == TABLE["id"].to_pylist()
        numbers = table["embedding"].combine_chunks().flatten().buffers()[1].to_pybytes()
        assert numbers == b"".join(map(vector, TABLE["text"].to_pylist()))

    def job_keys(self, gateway: Any, output: str) -> list[str]:
        keys = gateway.request("GET", "/api/keys", key=self.home.admin_key).json()["keys"]
        return [key["name"] for key in keys if key["name"].endswith(f"/{output}")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ray")
    (folder / "s3").mkdir()
    home = Home(folder, "an-admin-key-of-tests")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    model = subprocess.Popen([sys.executable, str(MODEL), str(port), "--seconds", "0.2", "--at-once", "4"])
    try:
        with s3_server(folder / "s3") as bucket, pytest.MonkeyPatch.context() as patched:
            for name, value in bucket.env.items():
                patched.setenv(name, value)
            patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
            home.env |= bucket.env
            for number in range(FILES):
                bucket.write(f"in/{number}.parquet", TABLE.slice(number * ROWS // FILES, ROWS // FILES))
            url = f"http://127.0.0.1:{port}"
            added = home.run(
                "add", "bulk", "--url", url, "--engine", "openai", "--requests-per-minute", "1000000"
            )
            assert added.status == 0, added.err
            with two_nodes() as cluster:
                yield World(home, bucket, cluster, url, folder)
    finally:
        model.kill()
        model.wait()


def ended(job: subprocess.Popen[str], status: int = 0) -> str:
    out, err = job.communicate(timeout=900)
    assert job.returncode == status, out + err
    return out + err


def test_ctrl_c_and_kill_9_of_the_command(world: World) -> None:
    with world.home.serve() as gateway:
        world.forget()
        first = world.job("stopped", world.cluster.client_url)
        world.wait_for_the_middle(first)
        assert len(world.job_keys(gateway, "stopped")) == 1
        first.send_signal(signal.SIGINT)
        assert "finished parts are kept" in ended(first, 130)
        assert world.job_keys(gateway, "stopped") == []

        asked = world.asked()["asked"]
        assert asked < ROWS * 2 // 3, "too little is left for the next run"
        second = world.job("stopped", "ray")
        world.wait_for("asked", asked + ROWS // 4, second)
        second.kill()
        ended(second, -signal.SIGKILL)
        assert len(world.job_keys(gateway, "stopped")) == 1, "it expires within an hour"

        ended(world.job("stopped", "ray"))
        again = world.asked()["asked"] - ROWS
        print(f"{ROWS:,} rows, Ctrl-C and kill -9 of the command: {again:,} texts asked again")
        assert again <= 2 * IN_FLIGHT
        world.check_output("stopped")
        assert "already done" in ended(world.job("stopped", "ray"))


def test_kill_9_of_a_node(world: World) -> None:
    """Beside it, the same rows by a job of one machine, and by the cluster undisturbed."""
    with world.home.serve() as gateway:
        seconds = {"one machine": here(world)}
        for name in ("two nodes", "a node killed"):
            world.forget()
            started = time.monotonic()
            job = world.job(name.replace(" ", "-"), world.cluster.client_url)
            if name == "a node killed":
                world.wait_for_the_middle(job)
                world.cluster.kill_second_node()
            assert f"rows  {ROWS:,}" in ended(job)
            seconds[name] = time.monotonic() - started
            world.check_output(name.replace(" ", "-"))
            again = world.asked()["asked"] - ROWS
            print(f"{ROWS:,} rows, {name}: {again:,} texts asked again")
            assert again <= (IN_FLIGHT if name == "a node killed" else 0)
            assert world.job_keys(gateway, name.replace(" ", "-")) == []
    for name, took in seconds.items():
        print(f"{name}: {took:.1f} s, {took / seconds['one machine']:.2f} times one machine")


def test_an_output_in_s3_is_shown_and_loaded(world: World, database_url: str) -> None:
    with world.home.serve():
        ended(world.job("loaded", "ray"))
    out = world.bucket.uri("loaded")
    assert f"{PARTS} of {PARTS}" in world.home.run("job", "show", out).out
    url = database_url.replace("postgresql://", "pgvector://", 1)
    to = ("--to", url, "--table", "t", "--create", "--similarity", "cosine")
    loaded = world.home.run("job", "load", out, *to)
    assert (loaded.status, loaded.err) == (0, "")
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT id, embedding FROM t").fetchall()
    assert {row[0] for row in found} == set(TABLE["id"].to_pylist())
    vector = runpy.run_path(str(MODEL))["vector"]
    for row_id, numbers in found[:100]:
        wanted = memoryview(vector(TABLE["text"][int(row_id[1:])].as_py())).cast("f").tolist()
        assert json.loads(numbers) == pytest.approx(wanted)


def test_a_local_model_in_the_tasks_gives_the_same_vectors(world: World) -> None:
    source, alone, parts = (world.folder / name for name in ("few.parquet", "alone.parquet", "parts"))
    pq.write_table(TABLE.slice(0, 64), source)
    with world.home.serve() as gateway:
        added = world.home.run("add", "mini", "--local", "sentence-transformers/all-MiniLM-L6-v2")
        assert added.status == 0, added.err
        on_ray = ("--on", "ray", "--rows-per-task", "16", "--local-on-workers")
        ended(world.start(source, alone, "mini"))
        ended(world.start(source, parts, "mini", *on_ray))
        assert gateway.output.count("POST /v1/embeddings 200") == 1, "the tasks asked the gateway"
        failed = ended(world.start(source, world.folder / "no", "bulk", *on_ray), 1)
        assert "needs a model that runs locally, and the source of bulk is dedicated" in failed
    expected = pq.read_table(alone)
    found = pa.concat_tables(pq.read_table(path) for path in sorted(parts.glob("part-*")))
    assert found.drop(["embedding"]).equals(expected.drop(["embedding"]))
    pairs = zip(found["embedding"].to_pylist(), expected["embedding"].to_pylist(), strict=True)
    furthest = max(abs(one - other) for pair in pairs for one, other in zip(*pair, strict=True))
    print(f"a local model in the tasks: its numbers differ by at most {furthest:.1e}")
    assert furthest < 1e-5


def here(world: World) -> float:
    """Seconds of a job without Ray, with as many requests in flight."""
    pq.write_table(TABLE, world.folder / "in.parquet")
    started = time.monotonic()
    places = world.folder / "in.parquet", world.folder / "out.parquet"
    ended(world.start(*places, "bulk", "--concurrency", "32"))
    return time.monotonic() - started
