"""G14: 50,000 rows, Parquet → endpoint → Parquet, beside a bare loop and Ray Data.

    python benchmarks/bulk.py [--with-ray]

The model server has the second core for itself, and every subject the first: the job together with its gateway, which
runs as `hubgate serve`. Twice: a server that takes 50 ms for a request of up to 32 texts, eight at once (at most
5,120 texts a second: what a fast GPU gives), and one that answers at once, so that only the client's own work counts.

The bare loop asks the same server just as the gateway does, and writes the same columns with the same settings
(`support/bulk_bare.py` says what it leaves out). On one core nobody gains by having two processes: the job pays for
what a text costs twice, once in the gateway and once in itself. CPU seconds are steadier than seconds on a busy machine;
those of the job are its gateway's too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from support import machine, ray_data
from support.ended import Ended, run
from support.gateway import bare_gateway
from support.loopback import free_port, wait_for
from support.processes import Process
from support.table import show

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.gateway import Gate

_SUPPORT = Path(__file__).parent / "support"
_GOAL = 1.3
_SERVERS = {"50 ms a request": ("--seconds", "0.05", "--at-once", "8"), "answers at once": ()}


class Subject(NamedTuple):
    """Who embeds the file."""

    name: str
    run: Callable[[Path], Ended]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="G14: bulk jobs.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one round")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with-ray", action="store_true", help="install Ray Data and measure it too")
    options = parser.parse_args()
    rows, rounds = (options.rows // 10, 1) if options.quick else (options.rows, options.rounds)
    machine.need("taskset")
    cores = machine.two_cores()
    if options.with_ray:
        ray_data.install()
    for name, pace in _SERVERS.items():
        with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
            folder = Path(made)
            write_input(folder / "in.parquet", rows)
            port = free_port()
            command = [sys.executable, str(_SUPPORT / "bulk_model.py"), str(port), *pace]
            server = stack.enter_context(Process(command, core=cores.load, output=folder / "model.log"))
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/v1/models", server.check)
            gateway = stack.enter_context(bare_gateway(folder / "gate", cores.measured))
            subjects = [_bare(folder, url, cores.measured), _job(folder, gateway, url, cores.measured)]
            if options.with_ray:
                subjects.append(_ray(folder, url))
            print(
                f"\nG14  {rows:,} rows, a model that {name}\n"
                if not pace
                else f"\nG14  {rows:,} rows, a model of {name}\n"
            )
            _compare(subjects, folder, rows, rounds)


def write_input(path: Path, rows: int) -> None:
    """Texts of some 200 characters."""
    words = "has a sentence to be found by what it means and not by its words alone, wherever it stands; " * 2
    texts = [f"Row {number} {words}" for number in range(rows)]
    pq.write_table(pa.table({"id": [f"r{number}" for number in range(rows)], "text": texts}), path)


def _compare(subjects: list[Subject], folder: Path, rows: int, rounds: int) -> None:
    """All take turns; the first is the one that the others are compared with."""
    ended: dict[str, list[Ended]] = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects:
            output = folder / f"{subject.name.replace(' ', '-')}-{number}.parquet"
            ended[subject.name].append(subject.run(output))
            assert pq.read_table(output, columns=["id"]).num_rows == rows, subject.name
    first = ended[subjects[0].name]
    show(
        ("", "seconds", "rows/s", "to the bare loop", "range", "CPU s", "to the bare loop", "peak MB"),
        [_row(name, runs, first, rows) for name, runs in ended.items()],
    )
    print(f"Goal: at most {_GOAL} times the bare loop.")


def _row(name: str, runs: list[Ended], first: list[Ended], rows: int) -> tuple[str, ...]:
    seconds = statistics.median(one.seconds for one in runs)
    ratios = [one.seconds / bare.seconds for one, bare in zip(runs, first, strict=True)]
    of_cpu = [one.cpu_seconds / bare.cpu_seconds for one, bare in zip(runs, first, strict=True)]
    return (
        name,
        f"{seconds:.1f}",
        f"{rows / seconds:,.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
        f"{statistics.median(one.cpu_seconds for one in runs):.1f}",
        f"{statistics.median(of_cpu):.2f}",
        f"{max(one.peak_mb for one in runs):.0f}",
    )


def _bare(folder: Path, url: str, core: int) -> Subject:
    command = _pinned(core, sys.executable, str(_SUPPORT / "bulk_bare.py"), str(folder / "in.parquet"))
    return Subject("bare loop", lambda output: run([*command, str(output), url], output=folder / "bare.log"))


def _job(folder: Path, gateway: Gate, url: str, core: int) -> Subject:
    """The job, its CPU time with that of its gateway."""
    form = {"name": "bulk", "url": url, "engine": "openai", "rate_limit": {"requests_per_minute": 10**9}}
    reply = gateway.ask("POST", "/api/endpoints", form)
    assert reply.status == 201, reply.body
    command = _pinned(core, sys.executable, "-m", "hubgate", "job", "run", str(folder / "in.parquet"))
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUBGATE_")}
    env |= {"HUBGATE_HOME": str(folder / "gate" / "home")}

    def work(output: Path) -> Ended:
        before = gateway.process.cpu_seconds()
        options = ("--endpoint", "bulk", "--id-field", "id")
        ended = run([*command, str(output), *options], output=folder / "job.log", env=env)
        return ended._replace(cpu_seconds=ended.cpu_seconds + gateway.process.cpu_seconds() - before)

    return Subject("hubgate job", work)


def _ray(folder: Path, url: str) -> Subject:
    """On both cores: its processes cannot all be pinned from here. Its CPU time and memory are those of its driver only."""
    command = [
        "taskset",
        "--cpu-list",
        _all_cores(),
        str(ray_data.PYTHON),
        str(ray_data.PROGRAM),
        str(folder / "in.parquet"),
    ]
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), **ray_data.SILENT}
    return Subject(
        "Ray Data", lambda output: run([*command, str(output), url], output=folder / "ray.log", env=env)
    )


def _pinned(core: int, *command: str) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


def _all_cores() -> str:
    told = subprocess.run(["nproc", "--all"], capture_output=True, text=True, check=True).stdout
    return f"0-{int(told) - 1}"


if __name__ == "__main__":
    main()
