"""Runs all benchmarks, or the named ones.

python benchmarks/run.py [--quick] [--with-litellm] [g1 g5 …]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from support import machine

_HERE = Path(__file__).parent


class Benchmark(NamedTuple):
    """A program of this folder."""

    program: str
    what: str
    quick: tuple[str, ...] = ("--quick",)
    """What makes it a quick look."""
    has_peer: bool = True
    """Whether it can measure LiteLLM too."""


BENCHMARKS = {
    "g1": Benchmark("cost.py", "CPU time of an embedding request, beside nginx"),
    "g2": Benchmark("chat.py", "G2 and G4: chat, whole and streamed, beside nginx"),
    "leaving": Benchmark("leaving.py", "how soon a client that leaves is felt upstream", has_peer=False),
    "g5": Benchmark("memory.py", "memory, and its growth while clients leave"),
    "failed": Benchmark("failed_replies.py", "memory and /healthz while exchanges fail", has_peer=False),
    "g6": Benchmark("start.py", "cold start and idle CPU"),
    "g8": Benchmark("size.py", "installed size"),
    "g9": Benchmark(
        "embed_here.py",
        "local embeddings (and G10, bf16) beside sentence-transformers and fastembed",
        ("--rounds", "1", "--scale", "0.3"),
        has_peer=False,
    ),
    "g11": Benchmark(
        "crowd_here.py", "64 clients of a local model", ("--rounds", "1", "--seconds", "2"), has_peer=False
    ),
    "neighbours": Benchmark(
        "neighbours_here.py", "a short call to a local model beside heavy ones of other keys", has_peer=False
    ),
    "g12": Benchmark("chunking.py", "chunking, MB/s", ("--rounds", "3"), has_peer=False),
    "g13": Benchmark("coalesce.py", "what joining small calls saves and brings", (), has_peer=False),
    "g14": Benchmark("bulk.py", "a bulk job, beside a bare loop", has_peer=False),
    "g14-memory": Benchmark("bulk_memory.py", "memory of a bulk job of 200,000 rows", has_peer=False),
}


def main() -> None:
    """Run them one after the other; each prints its own figures."""
    listed = "; ".join(f"{name}: {benchmark.what}" for name, benchmark in BENCHMARKS.items())
    parser = argparse.ArgumentParser(description="Run the benchmarks.", epilog=listed)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"any of {', '.join(BENCHMARKS)}; all if none"
    )
    parser.add_argument("--quick", action="store_true", help="a look in about two minutes, not a measurement")
    parser.add_argument("--with-litellm", action="store_true", help="install LiteLLM and measure it too")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is named {' or '.join(unknown)}")
    print(machine.facts(), flush=True)
    start = time.monotonic()
    failed = [
        name
        for name in options.names or BENCHMARKS
        if not _run(BENCHMARKS[name], quick=options.quick, with_litellm=options.with_litellm)
    ]
    print(f"{time.monotonic() - start:.0f} s in all")
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}")


def _run(benchmark: Benchmark, *, quick: bool, with_litellm: bool) -> bool:
    command = [sys.executable, str(_HERE / benchmark.program)]
    if quick:
        command += benchmark.quick
    if with_litellm and benchmark.has_peer:
        command.append("--with-litellm")
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
