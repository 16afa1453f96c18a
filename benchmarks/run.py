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
    has_litellm: bool = False
    """Whether it can measure LiteLLM too."""
    only_named: bool = False
    """Whether it runs only if it is named, as it takes many minutes."""


BENCHMARKS = {
    "g1": Benchmark("cost.py", "CPU time of an embedding request, beside nginx"),
    "g2": Benchmark("chat.py", "G2 and G4: chat, whole and streamed, beside nginx"),
    "leaving": Benchmark("leaving.py", "how soon a client that leaves is felt upstream"),
    "g5": Benchmark("memory.py", "memory, and its growth while clients leave", has_litellm=True),
    "failed": Benchmark("failed_replies.py", "memory and /healthz while exchanges fail"),
    "replies": Benchmark("reply_memory.py", "memory of large replies to small requests", ("calls-8",)),
    "g6": Benchmark("start.py", "cold start and idle CPU", has_litellm=True),
    "g8": Benchmark("size.py", "installed size", has_litellm=True),
    "g9": Benchmark(
        "embed_here.py",
        "local embeddings (and G10, bf16) beside sentence-transformers and fastembed",
        ("--rounds", "1", "--scale", "0.3"),
    ),
    "g11": Benchmark("crowd_here.py", "64 clients of a local model", ("--rounds", "1", "--seconds", "2")),
    "neighbours": Benchmark(
        "neighbours_here.py", "a short call to a local model beside heavy ones of other keys"
    ),
    "g12": Benchmark("chunking.py", "chunking, MB/s", ("--rounds", "3")),
    "g13": Benchmark("coalesce.py", "what joining small calls saves and brings", ()),
    "vectors": Benchmark("vector_cache.py", "the vector cache on disk, beside SQLite"),
    "codec": Benchmark("vector_codec.py", "floats to JSON, back, and to int8, compiled and pure"),
    "walls": Benchmark("walls.py", "what the limit of requests in flight costs"),
    "g14": Benchmark("bulk.py", "a bulk job, beside a bare loop"),
    "g14-memory": Benchmark("bulk_memory.py", "memory of a bulk job of 200,000 rows"),
    "growth": Benchmark("growth.py", "cost against the size of an installation", only_named=True),
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
        for name in options.names or [name for name, one in BENCHMARKS.items() if not one.only_named]
        if not _run(BENCHMARKS[name], quick=options.quick, with_litellm=options.with_litellm)
    ]
    print(f"{time.monotonic() - start:.0f} s in all")
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}")


def _run(benchmark: Benchmark, *, quick: bool, with_litellm: bool) -> bool:
    command = [sys.executable, str(_HERE / benchmark.program)]
    if quick:
        command += benchmark.quick
    if with_litellm and benchmark.has_litellm:
        command.append("--with-litellm")
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
