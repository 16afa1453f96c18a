"""Kills a bulk job and its gateway (`kill -9`) at random moments, and compares its output with an undisturbed run.

    python benchmarks/bulk_kills.py [--kills 20] [--rows 20000] [--seed 1]

A kill is due when the model was asked so many new texts, chosen at random, and then waits up to 50 ms more; some
come when nothing is left to be asked, while the output is written. It hits the job, the gateway, or both. What was killed is
started again: the gateway as a supervisor would, the job by the same command.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from support.bulk_model import vector
from support.loopback import ask, free_port, wait_for

_MODEL = Path(__file__).parent / "support" / "bulk_model.py"
_HUBGATE = (sys.executable, "-m", "hubgate")
_PER_REQUEST, _AT_ONCE = 100, 4
_ALL_ASKED = 0.1
"""The share of the kills that come when every text was asked."""


class Program:
    """A process that can be killed and started again. Use it as a context."""

    def __init__(self, command: list[str], env: dict[str, str], output: Path) -> None:
        self._command, self._env, self._output = command, env, output

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=output, stderr=output)

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self._process.kill()
        self._process.wait()

    def ended(self) -> bool:
        """Whether it has ended by itself; well, or this stops with its words."""
        status = self._process.poll()
        if status:
            sys.exit(f"{' '.join(self._command)} ended with {status}:\n{self._output.read_text()[-3000:]}")
        return status == 0

    def check(self) -> None:
        """Stop here if it has ended."""
        if self.ended():
            sys.exit(f"{' '.join(self._command)} has ended")


def main() -> None:
    """Kill, compare and print."""
    parser = argparse.ArgumentParser(description="Kill a bulk job and its gateway, and compare.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        texts = write_input(folder / "in.parquet", options.rows)
        env = environment(folder)
        port = free_port()
        command = [sys.executable, str(_MODEL), str(port), "--seconds", "0.01", "--at-once", "8"]
        model = stack.enter_context(Program(command, env, folder / "model.log"))
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/v1/models", model.check)
        add = [
            *_HUBGATE,
            "add",
            "bulk",
            "--url",
            url,
            "--engine",
            "openai",
            "--requests-per-minute",
            "1000000",
        ]
        subprocess.run(add, env=env, check=True, capture_output=True)

        ask("POST", f"{url}/forget")
        subprocess.run(job(folder, "calm.parquet"), env=env, check=True, capture_output=True)
        calm = ask("GET", f"{url}/asked").json()["asked"]
        assert calm == options.rows, f"an undisturbed job asked for {calm} texts of {options.rows}"

        ask("POST", f"{url}/forget")
        killed = disturbed(folder, env, url, options)
        again = ask("GET", f"{url}/asked").json()["asked"] - options.rows
        compare(folder, texts)
    most = _PER_REQUEST * _AT_ONCE
    told = ", ".join(f"{what} {killed.count(what)}" for what in ("job", "gate", "both"))
    print(f"{options.rows:,} rows, {len(killed)} kills ({told}): the same file, row by row.")
    print(
        f"Asked again: {again:,} texts, {again / len(killed):.0f} a kill (at most {most} can be in flight)."
    )
    assert again <= most * len(killed), "more was asked again than was in flight"


def environment(folder: Path) -> dict[str, str]:
    """A home of its own."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("HUBGATE_", "HF_", "XDG_"))
    }
    home = {"HUBGATE_HOME": str(folder / "home"), "HUBGATE_PORT": "0", "HF_HUB_OFFLINE": "1"}
    return env | home | {"HOME": str(folder), "HUBGATE_LOG_LEVEL": "debug"}


def write_input(path: Path, rows: int) -> list[str]:
    """Texts of a few words."""
    texts = [f"Row {number} has {random.randrange(1000)} words to say." for number in range(rows)]
    pq.write_table(pa.table({"id": [f"r{number}" for number in range(rows)], "text": texts}), path)
    return texts


def job(folder: Path, output: str) -> list[str]:
    """The command of the job."""
    command = [
        *_HUBGATE,
        "job",
        "run",
        str(folder / "in.parquet"),
        str(folder / output),
        "--endpoint",
        "bulk",
    ]
    return [
        *command,
        "--id-field",
        "id",
        "--rows-per-request",
        str(_PER_REQUEST),
        "--concurrency",
        str(_AT_ONCE),
    ]


def disturbed(folder: Path, env: dict[str, str], url: str, options: Any) -> list[str]:
    """Run the job to its end through all kills; what was killed."""
    late = max(1, round(options.kills * _ALL_ASKED))
    due = [random.randrange(options.rows) for _ in range(options.kills - late)] + [options.rows] * late
    due.sort(reverse=True)
    killed: list[str] = []
    asked_before = 0
    gateway = Program([*_HUBGATE, "serve"], env, folder / "gate.log")
    work = Program(job(folder, "killed.parquet"), env, folder / "job.log")
    with gateway:
        wait_until_served(folder, gateway)
        with work:
            while not work.ended():
                gateway.check()
                asked = ask("GET", f"{url}/asked").json()
                if not due or asked["new"] < due[-1]:
                    time.sleep(0.005)
                    continue
                due.pop()
                time.sleep(random.random() * 0.05)
                # A job that finds no gateway when it begins starts one, and is in the way of the gateway that comes back.
                at_work = asked["asked"] > asked_before
                killed.append(random.choice(("job", "both", "gate") if at_work else ("job", "both")))
                if killed[-1] != "gate":
                    work.kill()
                if killed[-1] != "job":
                    gateway.kill()
                    gateway.start()
                if killed[-1] != "gate":
                    wait_until_served(folder, gateway)
                    asked_before = ask("GET", f"{url}/asked").json()["asked"]
                    work.start()
    return killed


def wait_until_served(folder: Path, gateway: Program) -> None:
    """Wait until the gateway has said that it serves."""
    until = time.monotonic() + 240
    while "serves on" not in (folder / "gate.log").read_text():
        gateway.check()
        if time.monotonic() > until:
            sys.exit("The gateway does not start.")
        time.sleep(0.01)


def compare(folder: Path, texts: list[str]) -> None:
    """The two outputs with one another, and with what the model gives."""
    calm, killed = (pq.read_table(folder / name) for name in ("calm.parquet", "killed.parquet"))
    assert killed.schema == calm.schema
    assert killed.column("id").to_pylist() == [f"r{number}" for number in range(len(texts))]
    for name in calm.schema.names:
        assert killed.column(name).combine_chunks() == calm.column(name).combine_chunks(), name
    numbers = killed.column("embedding").combine_chunks().flatten().buffers()[1].to_pybytes()
    assert numbers[: 4 * len(killed) * 384] == b"".join(map(vector, texts))
    assert not (folder / "killed.parquet.failed.jsonl").exists()


if __name__ == "__main__":
    main()
